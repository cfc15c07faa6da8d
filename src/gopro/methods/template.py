"""Prompt templates: the words around the class name, and those among them that a context starts from."""

from __future__ import annotations

import string
from typing import NamedTuple

from gopro.clip.text.tower import TextTower
from gopro.errors import InputError

DEFAULT_TEMPLATE = "a photo of a {}."


def split_template(template: str) -> tuple[str, str]:
    """Split a template into what stands before and after the class name.

    Example:
        >>> split_template("a photo of a {}, a pet.")
        ('a photo of a', ', a pet.')

    Raises:
        InputError: the template does not hold exactly one `{}`.
    """
    if template.count("{}") != 1:
        raise InputError(f"template {template!r}: write {{}} exactly once, where the class name goes")
    before, _, after = template.partition("{}")
    return before.strip(), after


def split_context_template(template: str) -> tuple[str, str]:
    """Split a template as `split_template` does, for methods that learn the words before the class name.

    Raises:
        InputError: also if no word stands before the `{}`.
    """
    before, after = split_template(template)
    if not before:
        raise InputError(f"template {template!r}: the context starts from the words before {{}}; write at least one")
    return before, after


class LearnedWords(NamedTuple):
    """The words of a template that a context starts from.

    Attributes:
        words: the text of these words.
        behind: whether they follow the class name instead of standing before it.
        tail: the fixed text after the class name or, if they follow it, after the words.
    """

    words: str
    behind: bool
    tail: str


def split_learned_words(template: str) -> LearnedWords:
    """Split a template for methods that learn the words before the class name or, if there are none, those after it.

    Example:
        >>> split_learned_words("a photo of {}, a type of food.")
        LearnedWords(words='a photo of', behind=False, tail=', a type of food.')
        >>> split_learned_words("{} texture.")
        LearnedWords(words='texture', behind=True, tail='.')

    Raises:
        InputError: the template does not hold exactly one `{}`, or no word besides.
    """
    before, after = split_template(template)
    if before:
        return LearnedWords(before, False, after)
    words = after.rstrip(string.punctuation + string.whitespace)
    if not words.strip():
        raise InputError(f"template {template!r}: the context starts from the words around {{}}; write at least one")
    return LearnedWords(words.strip(), True, after.removeprefix(words))


def split_context_tokens(template: str, tokens: int, text: TextTower) -> tuple[str, str, str]:
    """Split a template for methods that learn only its first `tokens` tokens.

    Returns: the words to learn, the fixed words between them and the class name, and what follows the class name.

    Raises:
        InputError: also if no word ends with that token.
    """
    before, after = split_context_template(template)
    words = before.split()
    for i in range(1, len(words) + 1):
        if len(text.tokens(" ".join(words[:i]))) == tokens:
            return " ".join(words[:i]), " ".join(words[i:]), after
    raise InputError(
        f"template {template!r}: no word before {{}} ends with token {tokens}, the last learned one; choose other "
        "words or another number of tokens"
    )
