"""A copy that is stopped, fails or is killed at any moment and begun again ends with the same samples on both sides."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.backend.timedata import transfer
from openems.backend.timedata.export import Digest, cells
from openems.backend.timedata.sqlite.export import SqliteExport
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.backend.timedata.transfer import State, Transfer, load_state
from openems.common.data import DataNotification, Row
from tests.backend.timedata.conformance import NOW
from tests.backend.timedata.scenarios import Chance, scenario


class Killed(BaseException):
    """Nothing more is done by this process."""


class InterruptedTests(TestCase):
    timeout = 120  # type: ignore[assignment]

    async def sqlite(self, path: str) -> SqliteTimedata:
        days = {"retention_days_raw": 7_000, "retention_days_rollup": 7_000}
        provider = SqliteTimedata("lite", path, reactor=reactor, now=lambda: NOW, **days)
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        await provider.start()
        return provider

    async def test_killed_anywhere(self) -> None:
        self.patch(transfer, "AIM", 8)
        self.patch(transfer, "MOST", 12)
        for seed in range(12):
            await self.one(seed)

    async def one(self, seed: int) -> None:
        chance = random.Random(seed)
        source_path, target_path, state_path = self.mktemp(), self.mktemp(), self.mktemp()
        source = await self.sqlite(source_path)
        for number in range(3):
            for write in scenario(Chance.of_seed(100 * seed + number)).writes:
                if write is not None:
                    source.write(f"edge{number}", DataNotification(*write))
        await source.flush()
        export = SqliteExport(source_path)
        edges = await export.export_edges()
        interruptions = 0
        for _ in range(10_000):
            target = await self.sqlite(target_path)
            try:
                state = await self.run_once(export, target, target_path, state_path, edges, chance)
            except (Killed, OSError):
                interruptions += 1
                await target.stop()
                continue
            await target.stop()
            if all(done.finished for done in state.edges.values()) and len(state.edges) == len(edges):
                break
        self.assertTrue(interruptions, "nothing was tried")
        there = SqliteExport(target_path)
        for edge in edges:
            done = state.edges[edge]
            self.assertTrue(done.verified, (seed, edge, done))
            one, other = await self.digest(export, edge), await self.digest(there, edge)
            self.assertEqual(one, other, (seed, edge))
            self.assertEqual((one.count, one.checksum), (done.samples, done.checksum), (seed, edge))
        await source.stop()

    async def run_once(
        self, export: Any, target: SqliteTimedata, path: str, state_path: str, edges: list[str], chance: random.Random
    ) -> State:
        """One process, which ends in order, with an error, or at once."""
        from pathlib import Path

        file = Path(state_path)
        state = load_state(file, "a", "b", None)

        def save(state: State) -> None:
            if chance.random() < 0.1:
                raise Killed  # written, and nobody knows
            file.write_bytes(msgspec.json.encode(state))
            if chance.random() < 0.1:
                raise Killed

        async def flush() -> None:
            if chance.random() < 0.1:
                raise OSError("the database went away")
            await target.flush()
            if chance.random() < 0.1:
                raise Killed

        going = iter(lambda: chance.random() < 0.95, None)
        work = Transfer(
            export, target, SqliteExport(path), state, save=save, flush=flush, going=lambda: bool(next(going))
        )
        await work.run(edges)
        return state

    async def digest(self, export: SqliteExport, edge: str) -> Digest:
        rows: dict[int, Row] = await export.export(edge, 0, 1 << 50)
        result = Digest()
        for cell in cells(rows):
            result.add(*cell)
        return result
