"""Small environments that are formulas over arrays."""
