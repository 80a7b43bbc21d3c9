"""Text in: reading documents, splitting them, evaluation items, contamination."""
