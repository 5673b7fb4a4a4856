"""Restoring with a compact restoration module: exact strips, and its memory formula."""
