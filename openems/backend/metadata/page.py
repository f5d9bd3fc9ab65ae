"""Filter, order and cut a list of edges for ``getEdges`` (metadata.md 8.2, ui.md 7.1).

Pure. Unlike Java the sum state filters, the query ignores the letter case, ids and comments are in natural order
(edge2 before edge10), every order ends with the id so that pages never overlap, and a negative page is empty
(metadata.md 22, Q16 and Q17).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from openems.backend.models import Edge, PageRequest
from openems.common.role import Level, Role

_NUMBERS = re.compile(r"([0-9]+)")

#: Text and numbers in turn, beginning with a text; then the text itself, so that only equal texts have equal keys.
NaturalKey = tuple[tuple[str | int, ...], str]


@functools.lru_cache(maxsize=65_536)
def natural_key(text: str) -> NaturalKey:
    """Sorts ``edge2`` before ``edge10``.

    >>> natural_key("Edge10") > natural_key("edge2")
    True
    """
    # No edge has a number of more digits than a long; int() of very many would be slow.
    parts = _NUMBERS.split(text)
    key = (part.casefold() if index % 2 == 0 else int(part[:19]) for index, part in enumerate(parts))
    return tuple(key), text


def _level(edge: Edge) -> Level:
    return Level.OK if edge.sum_state is None else edge.sum_state


_ORDERS: dict[str, Callable[[Edge], Any]] = {
    "id": lambda edge: natural_key(edge.id),
    "comment": lambda edge: natural_key(edge.comment or ""),
    "sumState": _level,
}


def page(edges: Iterable[tuple[Edge, Role]], request: PageRequest) -> list[dict[str, Any]]:
    """The EdgeMetadata shapes of one page of ``edges``, each with the role its reader has for it."""
    if request.page < 0:
        return []
    found = [(edge, role) for edge, role in edges if _matches(edge, request)]
    found.sort(key=lambda entry: natural_key(entry[0].id))
    # The sort is stable: the least important order first, the id settled above is the last resort.
    for item in reversed(request.order or ()):
        key = _ORDERS.get(item.field)
        if key is not None:
            found.sort(key=lambda entry, key=key: key(entry[0]), reverse=item.descending)  # type: ignore[misc]
    start = request.page * request.limit
    return [shape(edge, role) for edge, role in found[start : start + request.limit]]


def shape(edge: Edge, role: Role) -> dict[str, Any]:
    """The EdgeMetadata shape of the providers without Odoo: an unknown sum state is OK (metadata.md 8.2, 6)."""
    result = edge.metadata_json(role)
    if "sumState" not in result:
        settings = result.pop("settings", None)
        result["sumState"] = Level.OK.name
        if settings is not None:
            result["settings"] = settings
    return result


def _matches(edge: Edge, request: PageRequest) -> bool:
    if request.is_online is not None and edge.online != request.is_online:
        return False
    if request.producttype and edge.producttype not in request.producttype:
        return False
    if request.sum_state and _level(edge) not in request.sum_state:
        return False
    if request.query:
        query = request.query.casefold()
        return any(query in text.casefold() for text in (edge.id, edge.comment or "", edge.producttype))
    return True
