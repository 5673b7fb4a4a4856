"""The one exception for problems that the user can mend."""


class BIRError(Exception):
    """A problem in what the user gave: the message is one sentence that says what was expected,
    what came and what to do. The command line prints it and exits with code 2; a node shows it."""
