"""Faces in whole photos: their geometry, the networks that see them, and the pipeline."""
