"""Text: read documents, split them, load evaluation items, find contamination."""
