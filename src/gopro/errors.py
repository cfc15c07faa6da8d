"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input: one line that names the file or value at fault and says what to do.

    The command line prints it without a traceback and exits with code 2.
    """
