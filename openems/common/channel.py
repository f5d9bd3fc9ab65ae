"""Channel addresses, ``<component-id>/<channel-id>``, and patterns of them (wire.md 4.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from openems.common.errors import COMMON_NO_VALID_CHANNEL_ADDRESS, OpenemsError, short

#: Longer addresses are no channels of any edge; they are refused before anything is made of them.
MAX_LENGTH = 255
_EXACT = 1073741823
_COMPONENT_ID = re.compile(r"([a-z][a-zA-Z0-9]*[0-9]|_[a-z]([a-zA-Z0-9]*[a-zA-Z])?)\Z")
_WORD = re.compile("[a-zA-Z0-9]+")


def is_component_id(text: str) -> bool:
    """As databases hold them (timedata.md 5.7).

    >>> [is_component_id(text) for text in ("_sum", "pvInverter0", "ess", "Ess1", "_s1")]
    [True, True, False, False, False]
    """
    return _COMPONENT_ID.match(text) is not None


def component_id(name: str) -> str:
    """A component's name as an id that databases hold.

    >>> component_id("edges0"), component_id("Backend.Edge.Server")
    ('edges0', 'backendEdgeServer0')
    """
    if is_component_id(name):
        return name
    text = "".join(word[0].upper() + word[1:] for word in _WORD.findall(name)).lstrip("0123456789") or "unnamed"
    return text[0].lower() + text[1:] + ("" if text[-1].isdigit() else "0")


def check_address(text: str) -> str:
    """``text`` if it is a channel address, else error 1000. Linear in its length."""
    if len(text) > MAX_LENGTH:
        raise OpenemsError(COMMON_NO_VALID_CHANNEL_ADDRESS, short(text, 100))
    component, slash, channel = text.rstrip("/").partition("/")
    if not slash or not channel:
        raise OpenemsError(COMMON_NO_VALID_CHANNEL_ADDRESS, text)
    del component
    return text


def check_addresses(texts: Iterable[str]) -> list[str]:
    """Checked, without duplicates, in the order of the text."""
    return sorted({check_address(text) for text in texts})


def match(address: str, pattern: str) -> int:
    """How well an address fits a pattern with one wildcard a part: -1 not at all, 0 equal, larger is worse."""
    component, _, channel = address.partition("/")
    pattern_component, _, pattern_channel = pattern.partition("/")
    first = _match_part(component, pattern_component)
    second = _match_part(channel, pattern_channel)
    if first < 0 or second < 0:
        return -1
    if first == 0 and second == 0:
        return 0
    if first == 0 or second == 0:
        return _EXACT + first + second
    return first + second


def _match_part(source: str, pattern: str) -> int:
    if source == pattern:
        return 0
    if pattern == "*":
        return 1
    if pattern.startswith("*") and source.endswith(pattern[1:]):
        return len(pattern)
    if pattern.endswith("*") and source.startswith(pattern[:-1]):
        return len(pattern)
    return -1
