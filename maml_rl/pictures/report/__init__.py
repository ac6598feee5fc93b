"""A report as one HTML file: its parts, its figures, its page."""
