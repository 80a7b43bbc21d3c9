"""Notebook 5. Measure the gain on the language and the forgetting of English."""
