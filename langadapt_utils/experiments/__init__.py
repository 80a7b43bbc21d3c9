"""Compare variants on the same documents (notebooks 3, 4 and 5)."""
