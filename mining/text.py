"""Text from outside, made safe to show."""

from __future__ import annotations


def one_line(text: str) -> str:
    """As ``printable``, with line breaks escaped too."""
    return printable(text.replace("\n", "\\n"))


def printable(text: str) -> str:
    """Show control characters escaped: names come from vehicles and must not drive the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
