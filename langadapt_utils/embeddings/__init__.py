"""Notebook 3. Initialise the embeddings of new tokens."""
