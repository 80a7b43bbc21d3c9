"""Notebook 2. Add tokens to a tokenizer."""
