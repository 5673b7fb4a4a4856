"""Training of the networks; `bir train` on the command line."""
