"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input: one line that names the file or value at fault and says what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class ToldElsewhere(InputError):
    """What another process of the same run has failed with and says; the command line ends without a word."""
