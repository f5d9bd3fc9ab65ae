"""getEdgesChannelsValues: many values in one answer, without holding up everybody else (b2b.md 4).

200,000 values take a fifth of a second to collect and to write. They are collected and written in slices, and between
two of them the reactor does what else there is to do. A slice is a few milliseconds; so is what bounds it, the channels
of one edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw
from twisted.internet.task import deferLater

from openems.common import jsonrpc
from openems.common.channel import check_addresses
from openems.common.data import Value
from openems.common.errors import generic
from openems.common.jsonrpc import Members

#: Edges of one request, different channels (an edge has at most half of that), and values, edges times channels.
MAX_EDGES = 10_000
MAX_CHANNELS = 20_000
MAX_VALUES = 200_000
#: Values between two turns of the reactor.
SLICE = 10_000


def limited(elements: list[str], most: int, what: str) -> list[str]:
    """Raises a generic error for more than ``most``."""
    if len(elements) > most:
        raise generic(f"Too many {what}: {len(elements)}, at most {most}")
    return elements


def asked(members: Members) -> tuple[list[str], list[str]]:
    """Edges and channels of a request, ascending, without duplicates. Raises OpenemsError for too many."""
    edge_ids = sorted(set(limited(members.strings("ids"), MAX_EDGES, "edges")))
    channels = check_addresses(limited(members.strings("channels"), MAX_CHANNELS, "channels"))
    if len(edge_ids) * len(channels) > MAX_VALUES:
        raise generic(f"Too many values: {len(edge_ids)} edges with {len(channels)} channels, at most {MAX_VALUES}")
    return edge_ids, channels


async def collect(
    get: Callable[[str, Sequence[str]], dict[str, Value]],
    edge_ids: Sequence[str],
    channels: Sequence[str],
    reactor: Any,
) -> dict[str, dict[str, Value]] | Raw:
    """Edge id -> channel -> value; as JSON already where it took more than one slice. ``get``: of one edge."""
    if not channels:
        return {}
    written: list[bytes] = []
    values: dict[str, dict[str, Value]] = {}
    at_once = max(1, SLICE // len(channels))
    for edge_id in edge_ids:
        if len(values) >= at_once:
            written.append(jsonrpc.dumps(values)[1:-1])
            values = {}
            await deferLater(reactor, 0)
        values[edge_id] = get(edge_id, channels)
    if not written:
        return values
    written.append(jsonrpc.dumps(values)[1:-1])
    return Raw(b"{%b}" % b",".join(written))
