"""Checking weight files that somebody else has: what they are, that they load, what they give."""
