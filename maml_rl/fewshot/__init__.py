"""Learners that classify: what they learn from is pictures with labels, and what they are asked about is others."""
