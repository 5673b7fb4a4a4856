"""DiffIR: restoration of a picture of any size in strips that share their statistics."""
