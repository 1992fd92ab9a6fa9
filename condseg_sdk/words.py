"""Numbers with their nouns, for messages."""

from __future__ import annotations

import re

__all__ = ["pluralize"]


def pluralize(count: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    Args:
        count: The number.
        noun: A noun in the singular. Words before it and a phrase behind it that begins with of, to, without or named
            may be given with it.

    Example:
        >>> pluralize(1, "mask"), pluralize(2, "box"), pluralize(0, "hidden entry"), pluralize(3, "link to a folder")
        ('1 mask', '2 boxes', '0 hidden entries', '3 links to a folder')
    """
    phrase = re.search(r" (of|to|without|named) ", noun)
    end = phrase.start() if phrase else len(noun)
    return f"{count:,} {noun[:end] if count == 1 else _plural(noun[:end])}{noun[end:]}"


def _plural(noun: str) -> str:
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if re.search(r"(s|x|z|ch|sh)$", noun) else f"{noun}s"
