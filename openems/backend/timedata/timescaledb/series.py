"""Which number stands for which channel of which edge: a copy of the names in the database, loaded as edges appear.

Numbers never change, so what is known stays true. Whether an edge's channels are *all* known is another matter: other
processes make new ones too. They tell by LISTEN/NOTIFY (``openems_ts_series``, the edge's id); while nobody listens,
each question asks the database.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from openems.backend.timedata.sharedsets import NONE, Names, SharedSets
from openems.postgres.pool import Pool

NOTIFY = "openems_ts_series"
#: Names in one statement.
CHUNK = 2_000
#: A statement that lost a race is repeated for the rest: two rounds are the most that were seen.
ROUNDS = 5

_EDGE = "SELECT id FROM ts_edge WHERE name = %s"
_CHANNELS = (
    "SELECT c.address, s.id, s.txt FROM ts_series s JOIN ts_channel c ON c.id = s.channel_id WHERE s.edge_id = %s"
)
_RESOLVE = """
WITH w AS (SELECT DISTINCT * FROM unnest(%s::text[], %s::text[]) AS u(edge, address)),
 e0 AS (INSERT INTO ts_edge (name) SELECT DISTINCT edge FROM w
        WHERE NOT EXISTS (SELECT 1 FROM ts_edge WHERE name = edge) ORDER BY edge ON CONFLICT DO NOTHING
        RETURNING id, name),
 c0 AS (INSERT INTO ts_channel (address) SELECT DISTINCT address FROM w
        WHERE NOT EXISTS (SELECT 1 FROM ts_channel c WHERE c.address = w.address) ORDER BY address
        ON CONFLICT DO NOTHING RETURNING id, address),
 e AS (SELECT id, name FROM e0 UNION ALL SELECT x.id, x.name FROM ts_edge x WHERE name IN (SELECT edge FROM w)),
 c AS (SELECT id, address FROM c0
       UNION ALL SELECT x.id, x.address FROM ts_channel x WHERE address IN (SELECT address FROM w)),
 k AS (SELECT e.id edge_id, c.id channel_id, w.edge, w.address
       FROM w JOIN e ON e.name = w.edge JOIN c ON c.address = w.address),
 s0 AS (INSERT INTO ts_series (edge_id, channel_id) SELECT edge_id, channel_id FROM k
        WHERE NOT EXISTS (SELECT 1 FROM ts_series s WHERE s.edge_id = k.edge_id AND s.channel_id = k.channel_id)
        ORDER BY edge_id, channel_id ON CONFLICT DO NOTHING RETURNING id, edge_id, channel_id, txt)
SELECT k.edge, k.edge_id, k.address, s.id, s.txt FROM k
JOIN (SELECT id, edge_id, channel_id, txt FROM s0
      UNION ALL SELECT t.id, t.edge_id, t.channel_id, t.txt FROM k
      JOIN ts_series t ON t.edge_id = k.edge_id AND t.channel_id = k.channel_id) s
  ON s.edge_id = k.edge_id AND s.channel_id = k.channel_id
"""


class Edge:
    """One edge's channels: address -> number; the numbers that have texts."""

    __slots__ = ("all_known", "id", "ids", "refused", "timestamped", "txt")

    def __init__(self) -> None:
        self.id = 0
        self.ids: dict[str, int] = {}
        self.txt: set[int] = set()
        #: Every channel the database has is in ``ids``.
        self.all_known = False
        #: Channels that came as timestampedData since the start (timedata.md 5.2).
        self.timestamped: Names = NONE
        #: Channels that get no number, and why.
        self.refused: dict[str, str] = {}

    def add(self, address: str, number: int, txt: bool) -> None:
        # The same few hundred addresses for all edges: one object each.
        self.ids[sys.intern(address)] = number
        if txt:
            self.txt.add(number)


class Series:
    """``listening()``: whether somebody would tell of other processes' new channels."""

    def __init__(self, pool: Pool, listening: Callable[[], bool]) -> None:
        self._pool = pool
        self._listening = listening
        self.edges: dict[str, Edge] = {}
        self.sets = SharedSets()

    def __len__(self) -> int:
        return sum(len(edge.ids) for edge in self.edges.values())

    def edge(self, name: str) -> Edge:
        """For writing; makes an entry."""
        edge = self.edges.get(name)
        if edge is None:
            edge = self.edges[name] = Edge()
        return edge

    def changed(self, channel: str, name: str) -> None:
        """A notification: this edge has a channel more, or one of another kind."""
        edge = self.edges.get(name)
        if edge is not None:
            edge.all_known = False

    def missed(self) -> None:
        """Notifications may have been lost."""
        for edge in self.edges.values():
            edge.all_known = False

    async def load(self, name: str, pool: Pool, *, timeout: float) -> Edge | None:
        """For reading: the edge with all its channels, None if it has no history."""
        edge = self.edges.get(name)
        if edge is not None and edge.all_known and self._listening():
            return edge
        rows = await pool.query(_EDGE, (name,), timeout=timeout, repeatable=True)
        if not rows:
            return None
        edge = self.edge(name)
        # Before the question: a notification while it runs must not be forgotten.
        edge.all_known = True
        edge.id = rows[0][0]
        try:
            channels = await pool.query(_CHANNELS, (edge.id,), timeout=timeout, repeatable=True)
        except BaseException:
            edge.all_known = False
            raise
        for row in channels:
            edge.add(*row)
        return edge

    async def resolve(self, wanted: Mapping[str, Iterable[str]], *, timeout: float) -> None:
        """Numbers for the channels of edges, made where there are none. Raises what the pool raises."""
        pairs = sorted({(edge, address) for edge, addresses in wanted.items() for address in addresses})
        for start in range(0, len(pairs), CHUNK):
            left = pairs[start : start + CHUNK]
            for _ in range(ROUNDS):
                rows = await self._pool.query(_RESOLVE, ([p[0] for p in left], [p[1] for p in left]), timeout=timeout)
                self._learn(rows)
                left = [(edge, address) for edge, address in left if address not in self.edge(edge).ids]
                if not left:
                    break

    def _learn(self, rows: list[tuple[Any, ...]]) -> None:
        for name, edge_id, address, number, txt in rows:
            edge = self.edge(name)
            edge.id = edge_id
            edge.add(address, number, txt)
