"""Notebook 2. Give a tokenizer new tokens."""
