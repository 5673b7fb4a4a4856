"""Sub-commands of `bir`: each file has `add_arguments(parser)` and `run(options)`."""
