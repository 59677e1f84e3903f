"""Percent escapes of S3 URLs (RFC 3986), which some clients send and others do not. Standard library only."""

import re

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def unescaped(text: str) -> str:
    """Return the text with its percent escapes decoded; raise UnicodeError if that is not UTF-8.

    A `%` without two hexadecimal digits stands for itself, as URL parsers leave it.
    """
    return _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), text.encode()).decode()


def other_form(text: str) -> str | None:
    """Return the text with its percent escapes decoded, or None if it has no escapes that can be decoded."""
    try:
        decoded = unescaped(text)
    except UnicodeError:
        return None
    return None if decoded == text else decoded
