"""What may go into a request at all (auth.md S27). Pure."""

from __future__ import annotations

MAX_OEM = 64
MAX_IDENTIFIER = 64
MAX_CODE = 4096
MAX_TOKEN = 16 * 1024
MAX_USERNAME = 256
MAX_PASSWORD = 1024


def is_plain(text: str, limit: int) -> bool:
    """Not empty, not too long, no control characters, nothing that is no text in UTF-8.

    >>> is_plain("openems", 64), is_plain("open\\r\\nems", 64), is_plain("", 64)
    (True, False, False)
    """
    if not 0 < len(text) <= limit:
        return False
    return all(
        " " <= character < "\x7f" or "\xa0" <= character < "\ud800" or character >= "\ue000" for character in text
    )


def is_token(text: str) -> bool:
    """A token or code is visible ASCII."""
    return 0 < len(text) <= MAX_TOKEN and text.isascii() and text.isprintable() and " " not in text
