"""A provider, whatever its database, against the reference: seeds instead of hypothesis, which cannot wait."""

from __future__ import annotations

import os
from typing import Any

from openems.backend.timedata.influx.period import Period
from openems.common.data import DataNotification
from openems.common.resolution import periods
from tests.backend.timedata.conformance import NOW
from tests.backend.timedata.reference import Reference
from tests.backend.timedata.scenarios import COUNTER, MIXED, POWER, Chance, Question, scenario

#: More of them: for a night.
EXAMPLES = int(os.environ.get("HISTORY_EXAMPLES", "0"))


class ReferenceComparison:
    """Next to a ``TimedataConformance``, which makes the provider."""

    SEEDS = 8
    #: ``make`` gives a new provider on the same database.
    RESTARTS = False
    FIRST_SEED = 0
    #: The provider is for the middle of the time only, in every other history.
    CLIPS = False
    NAMES: tuple[str, ...] = (COUNTER, MIXED, POWER)
    assertEqual: Any
    assertAlmostEqual: Any
    provider: Any
    begin: Any
    settle: Any
    make: Any

    async def test_reference(self) -> None:
        await self.begin()
        for seed in range(self.FIRST_SEED, self.FIRST_SEED + (EXAMPLES or self.SEEDS)):
            await self._compare(seed)

    async def _compare(self, seed: int) -> None:
        case = scenario(Chance.of_seed(seed), mixed=MIXED in self.NAMES)
        edge = f"edge{seed + 100}"
        reference = Reference()
        period = Period()
        if self.CLIPS and seed % 2:
            times = sorted({time for write in case.writes if write for time in write[1]})
            period = Period(times[len(times) // 4] + seed % 3 - 1, times[-1 - len(times) // 4] + seed % 5 - 1)
        if self.CLIPS:
            self.provider._period = period
        for write in case.writes:
            if write is None:
                await self.settle()
                if self.RESTARTS:
                    await self.provider.stop()
                    self.provider = await self.make(lambda: NOW)
                    reference.restarted()
            else:
                reference.write(write[0], {time: row for time, row in write[1].items() if time in period})
                self.provider.write(edge, DataNotification(write[0], dict(sorted(write[1].items()))))
        await self.settle()
        for question in case.questions:
            await self._ask(edge, reference, question, f"seed {seed}, {question}")

    async def _ask(self, edge: str, reference: Reference, question: Question, where: str) -> None:
        dates, resolution, names = question.dates, question.resolution, list(self.NAMES)
        edges = question.edges
        self.assertEqual(edges, periods(*dates, resolution).edges, where)
        means = await self.provider.query_historic_data(edge, *dates, names, resolution)
        self.assertEqual(edges[:-1], means.timestamps, where)
        rises = await self.provider.query_historic_energy_per_period(edge, *dates, names, resolution)
        total = await self.provider.query_historic_energy(edge, *dates, names)
        newest = await self.provider.query_first_value_before(edge, dates[0], names)
        for name in names:
            self._same(reference.means(edges, name, question.length), means.data.get(name), f"{where} {name} means")
            self._same(reference.rises(edges, name), rises.data.get(name), f"{where} {name} rises")
            span = reference.rises([edges[0], edges[-1]], name)
            self._same(span, [total[name]] if name in total else None, f"{where} {name} energy")
            before = reference.newest_before(question.start, name)
            self._same([before], [newest.get(name)], f"{where} {name} before")

    def _same(self, expected: Any, found: Any, where: str) -> None:
        text = f"{where}\nexpected {expected}\nfound    {found}"
        if expected is None or found is None:
            self.assertEqual(expected, found, text)
            return
        self.assertEqual(len(expected), len(found), text)
        for one, other in zip(expected, found, strict=True):
            if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
                self.assertEqual(one, other, text)
            else:
                self.assertAlmostEqual(one, other, places=6, msg=text)
