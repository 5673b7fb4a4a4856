"""What the commands and the methods share of the command line."""
