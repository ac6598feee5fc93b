"""The check of an environment before training."""
