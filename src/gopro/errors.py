"""Exceptions for errors that a user can fix."""

import textwrap


class InputError(ValueError):
    """Bad input: one line that names the file or value at fault and says what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class OtherRankFailed(InputError):
    """Another rank failed and has already printed the error; the command line exits with code 2 and prints nothing."""


def first_few(names: list[str]) -> str:
    """Join the first three names, and say how many more there are.

    Example:
        >>> first_few(["cat", "cow", "dog", "owl"])
        'cat, cow, dog and 1 more'
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the message of another library's exception on one line; a longer one ends after a whole word.

    Example:
        >>> one_line(OSError("no connection\\nafter 5 tries"), limit=20)
        'no connection …'
    """
    return textwrap.shorten(str(error), limit, placeholder=" …") or type(error).__name__
