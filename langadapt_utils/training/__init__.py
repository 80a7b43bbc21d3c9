"""Notebook 4. Train on a mixture of the language and English."""
