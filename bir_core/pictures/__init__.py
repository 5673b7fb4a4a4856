"""Picture files: what can be read and written, and the codecs behind it."""
