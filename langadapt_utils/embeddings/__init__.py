"""Notebook 3. Give new tokens their first embeddings."""
