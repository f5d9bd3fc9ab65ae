"""Whose series is whose: edges are told apart by their numbers only (timedata.md 14, 23)."""

from __future__ import annotations

from openems.backend.timedata.influx.lineprotocol import tag_value
from openems.common.errors import generic


class Owners:
    """Which edge has which number. Two with one number would be one series in the database (timedata.md 14, 23)."""

    MAX = 500_000

    def __init__(self) -> None:
        #: Tag's value -> edge, and back.
        self._edges: dict[str, str] = {}
        self._tags: dict[str, str] = {}

    def tag(self, edge_id: str, claim: bool = False) -> str:
        """The tag's value for an edge. Code 1 for an id without number and for the second edge with a number: the
        first is the one that sent data first (``claim``)."""
        known = self._tags.get(edge_id)
        if known is not None:
            return known
        tag = tag_value(edge_id)
        owner = self._edges.get(tag)
        if owner is None:
            if claim and len(self._edges) < self.MAX:
                self._edges[tag] = edge_id
                self._tags[edge_id] = tag
        elif owner != edge_id:
            raise generic(f"Edge [{edge_id}] has the same number as edge [{owner}]: their history cannot be told apart")
        return tag
