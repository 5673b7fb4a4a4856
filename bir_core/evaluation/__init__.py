"""Measuring restored pictures: the measures, the papers' protocols, and the tables."""
