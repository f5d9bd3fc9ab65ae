"""Both InfluxDB providers in a backend, on a real server (T069)."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.application import config, felix
from openems.application.backend import Backend
from openems.backend.timedata.aggregatedinflux.provider import AggregatedInfluxTimedata
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.common.data import DataKind, DataNotification
from openems.common.resolution import Resolution, Unit
from tests.application.ports import free_offset
from tests.backend.timedata.conformance import NOW, at, day
from tests.backend.timedata.influx.servers import bucket

FILE = """
[backend]
stateDir = "{state}"
offset = {offset}
[metadata.dummy]
[[timedata.influxdb]]
id = "influx0"
{server}
bucket = "{bucket}"
[timedata.aggregatedinfluxdb]
id = "fast0"
{server}
bucket = "{bucket}"
allowedChannelsAvg = ["default", "mine{{0..2}}/Power"]
[core.timedatamanager]
ids = ["fast0", "influx0"]
"""


class BackendTests(TestCase):
    timeout = 60

    def backend(self, found: Any, **changes: str) -> Backend:
        server = f'url = "{found.url}"\norg = "{found.org}"\napiKey = {{ env = "INFLUX_TOKEN" }}'
        state = os.path.abspath(self.mktemp())
        values = {"state": state, "offset": str(free_offset()), "server": server, "bucket": found.name, **changes}
        token = {"INFLUX_TOKEN": found.token}
        backend = Backend(config.parse(FILE.format(**values), "test", environ=token), reactor=reactor, now=lambda: NOW)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        return backend

    async def test_t069_the_fast_one_first_the_rest_of_the_other(self) -> None:
        found = bucket("influxdb2")
        for policy in ("rp_avg", "rp_max"):
            found.make(f"{found.name}/{policy}")
        backend = self.backend(found)
        providers = {provider.id: provider for provider in backend.timedata}
        self.assertEqual(
            {"influx0": InfluxTimedata, "fast0": AggregatedInfluxTimedata},
            {name: type(provider) for name, provider in providers.items()},
        )
        await backend.start()
        time = at("2026-06-01")
        row = {"_sum/EssSoc": 50, "myMeter7/ActivePower": 7, "mine2/Power": 3}
        backend.timedata_manager.write("edge7", DataNotification(DataKind.AGGREGATED, {time: dict(row)}))
        for provider in backend.timedata:
            await provider.flush()
        asked: list[list[str]] = []
        ask = providers["influx0"].query_historic_data

        async def listen(edge: str, begin: Any, end: Any, channels: Any, resolution: Any) -> Any:
            asked.append(list(channels))
            return await ask(edge, begin, end, channels, resolution)

        self.patch(providers["influx0"], "query_historic_data", listen)
        answer = await backend.timedata_manager.query_historic_data(
            "edge7", day("2026-06-01"), day("2026-06-02"), [*sorted(row), "nope0/X"], Resolution(1, Unit.DAYS)
        )
        self.assertEqual(
            {"_sum/EssSoc": [50], "myMeter7/ActivePower": [7], "mine2/Power": [3], "nope0/X": [None]}, answer.data
        )
        self.assertEqual([["myMeter7/ActivePower", "nope0/X"]], [sorted(channels) for channels in asked])
        lines = " ".join(provider.debug_log() for provider in backend.timedata)
        self.assertIn("[influx0] Written:3", lines)
        self.assertIn("[fast0] Written:2", lines)
        self.assertNotIn(found.token, lines + repr(backend.configuration))


class FelixTests(SynchronousTestCase):
    def test_configurations_of_java(self) -> None:
        root = self.mktemp()
        files = {
            "Metadata/Dummy.config": "",
            "Timedata/InfluxDB/4554366a.config": 'service.factoryPid="Timedata.InfluxDB"\nid="influx0"\n'
            'queryLanguage="FLUX"\nurl="http://127.0.0.1:8086"\norg="openems"\napiKey="t"\nbucket="b"\n'
            'measurement="data"\nisReadOnly=B"true"\npoolSize=I"5"\nmaxQueueSize=I"100"\nstartDate="2024-01-31"\n'
            'blacklistedChannels=["a0/B"]\nblacklistedChannelIds=["_PropertyAlias"]\n',
            "Timedata/AggregatedInfluxDB.config": 'id="fast0"\nurl="http://127.0.0.1:8086"\nbucket="b"\n'
            'retentionPolicyAvg="rp_avg"\nmeasurementsMax=["Europe/Berlin=max", "UTC=max_utc"]\n',
        }
        for name, text in files.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        loaded, notes = felix.load(root)
        self.assertEqual([], notes)
        [influx] = loaded.timedata_influxdb
        self.assertEqual(
            ("influx0", "FLUX", "openems", True, 5, 100, "2024-01-31", ["a0/B"]),
            (
                influx.id,
                influx.query_language,
                influx.org,
                influx.is_read_only,
                influx.pool_size,
                influx.max_queue_size,
                influx.start_date,
                influx.blacklisted_channels,
            ),
        )
        assert loaded.timedata_aggregatedinfluxdb is not None
        self.assertEqual(["Europe/Berlin=max", "UTC=max_utc"], loaded.timedata_aggregatedinfluxdb.measurements_max)
