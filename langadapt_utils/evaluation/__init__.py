"""Notebook 5. Measure what was gained and what was forgotten."""
