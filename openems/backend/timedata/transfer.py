"""Copying a history from one provider to another: any to any that can be read out and written to.

An edge's history goes over in spans of time whose size follows the number of samples in them. Each span is read,
written as resent data, committed (``flush``), read back and compared before the next; so a copy that was stopped goes
on where it was, and what is in the target stays there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from openems.backend.timedata.export import Digest, cells, plain
from openems.common.data import DataKind, DataNotification, Row

#: Samples in one span: what is aimed at, and what is the most.
AIM, MOST = 100_000, 250_000
FIRST_SPAN = 3_600_000
SHORTEST, LONGEST = 1_000, 31 * 86_400_000


class Done(msgspec.Struct):
    """What was copied of one edge: until when, and number and checksum of the samples read and found again."""

    until: int
    samples: int = 0
    checksum: int = 0
    found: int = 0
    found_checksum: int = 0
    #: Older than what the target keeps as it came: written, but not to be found as such.
    coarse: int = 0
    finished: bool = False

    @property
    def verified(self) -> bool:
        return self.found == self.samples - self.coarse and (self.coarse > 0 or self.found_checksum == self.checksum)


class State(msgspec.Struct):
    """The file that makes a copy resumable."""

    source: str
    target: str
    since: int | None
    edges: dict[str, Done] = {}


def load_state(path: Path, source: str, target: str, since: int | None) -> State:
    """What an earlier run of the same copy left; otherwise a new one."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except (FileNotFoundError, msgspec.MsgspecError):
        return State(source, target, since)
    same = (state.source, state.target, state.since) == (source, target, since)
    return state if same else State(source, target, since)


class Transfer:
    """``source`` provides ITimedataExport; ``target`` is a provider, ``flush`` waits until it has committed everything;
    ``target_export`` is its export, or None and then nothing is compared. ``progress(edge_id, part of 1, samples)``
    is called after each span; ``going()`` False ends it in order."""

    def __init__(
        self,
        source: Any,
        target: Any,
        target_export: Any,
        state: State,
        *,
        save: Callable[[State], None],
        flush: Callable[[], Awaitable[None]],
        progress: Callable[[str, float, int], None] = lambda edge, part, samples: None,
        going: Callable[[], bool] = lambda: True,
    ) -> None:
        self._source = source
        self._target = target
        self._target_export = target_export
        self.state = state
        self._save = save
        self._flush = flush
        self._progress = progress
        self._going = going
        self._span = FIRST_SPAN
        self._exact_from = 0

    async def run(self, edges: list[str]) -> None:
        """Raises what the two sides raise; what was copied until then is kept in the state."""
        if self._target_export is not None:
            self._exact_from = await self._target_export.exact_from()
        for edge in edges:
            if not self._going():
                return
            await self._edge(edge)

    async def _edge(self, edge: str) -> None:
        span = await self._source.export_span(edge)
        if span is None:
            return
        first, last = span
        if self.state.since is not None:
            first = max(first, self.state.since)
        done = self.state.edges.get(edge)
        if done is None:
            done = self.state.edges[edge] = Done(first)
        self._span = FIRST_SPAN
        # A run later than the first goes on with what came since.
        at = max(first, done.until)
        while at <= last and self._going():
            until = await self._choose(edge, at, last + 1)
            rows: dict[int, Row] = await self._source.export(edge, at, until)
            before = done.samples
            if rows:
                await self._write(edge, rows, done)
            at = done.until = until
            self._save(self.state)
            self._progress(edge, (at - first) / max(1, last + 1 - first), done.samples - before)
        done.finished = at > last
        self._save(self.state)

    async def _choose(self, edge: str, at: int, end: int) -> int:
        """The end of the next span."""
        while True:
            until = min(end, at + self._span)
            count = await self._source.export_count(edge, at, until)
            if count <= MOST or self._span <= SHORTEST:
                break
            self._span = max(SHORTEST, self._span * AIM // count)
        if count < AIM // 2:
            self._span = min(LONGEST, self._span * (8 if not count else 2))
        return until

    async def _write(self, edge: str, rows: dict[int, Row], done: Done) -> None:
        sent = Digest()
        for cell in cells(rows):
            sent.add(*cell)
        self._target.write(edge, DataNotification(DataKind.RESEND, rows))
        await self._flush()
        done.samples += sent.count
        done.checksum = (done.checksum + sent.checksum) & 0xFFFFFFFFFFFF
        if self._target_export is None:
            return
        there = await self._target_export.export(edge, min(rows), max(rows) + 1)
        found = Digest()
        for time, row in rows.items():
            if time < self._exact_from:
                done.coarse += len(row)
                continue
            known = there.get(time, {})
            for channel, value in row.items():
                if channel in known and plain(known[channel]) == plain(value):
                    found.add(time, channel, value)
        done.found += found.count
        done.found_checksum = (done.found_checksum + found.checksum) & 0xFFFFFFFFFFFF
