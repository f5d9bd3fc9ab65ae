"""Which edges are connected here, and which keys let them in (edge.md 2.3, 2.5, 2.8, 2.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openems.backend.edgeapplication.edge import EdgeEndpoint


class Fleet:
    """Of two connections of one edge the newer one gets the requests, and the older one is closed (edge.md 8, 12)."""

    def __init__(self) -> None:
        self.keys: Mapping[str, str] = {}
        self.edges: dict[str, EdgeEndpoint] = {}
        #: The manager does not know the present list.
        self.changed = False
        self.replaced = 0
        #: Not read from, because the manager is slow.
        self.paused: set[EdgeEndpoint] = set()
        self.all_paused = False

    def add(self, endpoint: EdgeEndpoint) -> None:
        older = self.edges.get(endpoint.edge_id)
        self.edges[endpoint.edge_id] = endpoint
        self.changed = True
        if older is not None:
            self.replaced += 1
            self.paused.discard(older)
            older.connection.close(1000, "Replaced by a newer connection of this edge")
        if self.all_paused:
            self.pause(endpoint)

    def remove(self, endpoint: EdgeEndpoint) -> None:
        self.paused.discard(endpoint)
        # A replaced connection that closes late takes nothing along.
        if self.edges.get(endpoint.edge_id) is endpoint:
            del self.edges[endpoint.edge_id]
        self.changed = True

    def update(self, keys: Mapping[str, str]) -> None:
        """Other keys from now on; who came in by one that is gone or belongs to another edge now is closed."""
        self.keys = keys
        for endpoint in tuple(self.edges.values()):
            if keys.get(endpoint.apikey) != endpoint.edge_id:
                endpoint.connection.close(1000, "Apikey changed")

    def pause(self, endpoint: EdgeEndpoint) -> bool:
        """True if that edge was read from until now."""
        if endpoint in self.paused or not endpoint.connection.is_open:
            return False
        self.paused.add(endpoint)
        endpoint.connection.pause_reading()
        return True

    def pause_all(self) -> int:
        """Nobody is read from, nor who comes meanwhile; how many were until now."""
        if self.all_paused:
            return 0
        self.all_paused = True
        return sum(map(self.pause, self.edges.values()))

    def resume(self) -> None:
        self.all_paused = False
        paused, self.paused = self.paused, set()
        for endpoint in paused:
            endpoint.connection.resume_reading()
