"""A database in the layout of OpenEMS, made of what a real edge has sent: read, and continued."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.backend.timedata.influx.database import FLUX, INFLUX_QL
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.common.data import DataKind, DataNotification, Row
from openems.common.resolution import DAY, UTC, Resolution, Unit
from tests.backend.timedata.conformance import NOW
from tests.backend.timedata.influx.servers import bucket
from tests.captures.recording import lines

_INTEGER = re.compile(r"-?[0-9]+\Z")


def captured() -> dict[int, Row]:
    """Time -> what the edge sent as ``timestampedData``, in order."""
    rows: dict[int, Row] = {}
    for line in lines("edge-edgeapp"):
        if line["kind"] == "text" and '"timestampedData"' in line["text"]:
            for time, row in json.loads(line["text"])["params"].items():
                rows.setdefault(int(time), {}).update(row)
    return dict(sorted(rows.items()))


def java_lines(rows: dict[int, Row]) -> Iterable[str]:
    """As its client writes them: sorted fields, typed by their literal, other texts left out (timedata.md 5.3, 5.4)."""
    for time, row in rows.items():
        fields = []
        for channel, value in sorted(row.items()):
            if isinstance(value, bool):
                fields.append(f"{channel}={str(value).lower()}")
            elif isinstance(value, int) or (isinstance(value, str) and _INTEGER.match(value)):
                fields.append(f"{channel}={value}i")
            elif isinstance(value, float):
                fields.append(f"{channel}={value:f}")
        if fields:
            yield f"data,edge=5 {','.join(fields)} {time}"


class CaptureTests:
    LANGUAGE = INFLUX_QL

    async def test_read_and_continued(self) -> None:
        found = bucket("influxdb2")
        rows = captured()
        self.assertGreater(len(rows), 50)  # type: ignore[attr-defined]
        found.write("\n".join(java_lines(rows)))
        provider = InfluxTimedata(
            "timedata0",
            Path(self.mktemp()),  # type: ignore[attr-defined]
            reactor=reactor,
            now=lambda: NOW,
            query_language=self.LANGUAGE,
            **found.options,
        )
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))  # type: ignore[attr-defined]
        values: dict[str, list[float]] = {}
        for row in rows.values():
            for channel, value in row.items():
                if isinstance(value, int | float):
                    values.setdefault(channel, []).append(value)
        first = datetime.datetime.fromtimestamp(min(rows) / 1000, UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        await self.compare(provider, first, values)
        # The next day the same edge sends the same again, to us.
        later = {time + DAY: row for time, row in rows.items()}
        provider.write("edge5", DataNotification(DataKind.TIMESTAMPED, later))
        await provider.flush()
        self.assertEqual(0, provider._spool.retries)  # type: ignore[attr-defined]
        await self.compare(provider, first + datetime.timedelta(days=1), values)

    async def compare(self, provider: Any, first: datetime.datetime, values: dict[str, list[float]]) -> None:
        end = first + datetime.timedelta(days=1)
        answer = await provider.query_historic_data("edge5", first, end, sorted(values), Resolution(1, Unit.DAYS))
        self.assertEqual(set(values), set(answer.data))  # type: ignore[attr-defined]
        for channel, numbers in values.items():
            mean = sum(numbers) / len(numbers)
            self.assertAlmostEqual(1, (answer.data[channel][0] + 1e9) / (mean + 1e9), 9, channel)  # type: ignore


class InfluxQlTests(CaptureTests, TestCase): ...


class FluxTests(CaptureTests, TestCase):
    LANGUAGE = FLUX
