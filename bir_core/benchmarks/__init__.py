"""Measurements of speed and memory; `bir bench` runs them."""
