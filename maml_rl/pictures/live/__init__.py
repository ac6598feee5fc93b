"""Live views: a page in the browser where a trained run acts and adapts."""
