"""Exceptions for errors that a user can fix."""


class InputError(ValueError):
    """Bad input: one line that names the file or value at fault and says what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class OtherRankFailed(InputError):
    """Another rank failed and has already printed the error; the command line exits with code 2 and prints nothing."""
