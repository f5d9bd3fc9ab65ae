"""A whole backend with its history in PostgreSQL, from the configuration on."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.application import config
from openems.application.backend import Backend
from openems.common.data import DataKind, DataNotification
from openems.common.resolution import Resolution, Unit
from tests.application.ports import free_offset
from tests.postgres.databases import database, run_sql
from tests.real import real


def now() -> int:
    return time.time_ns() // 1_000_000


class WholeTests(TestCase):
    timeout = 60  # type: ignore[assignment]

    async def backend(self, **keys: Any) -> Backend:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "metadata.json").write_text('{"edges": {"edge0": {"comment": "x", "apikey": "k"}}}')
        lines = "\n".join(f"{key} = {value}" for key, value in keys.items())
        configuration = config.parse(
            f'[backend]\nstateDir = "{folder / "state"}"\ninterface = "127.0.0.1"\n'
            f'offset = {free_offset()}\n[edge]\n[metadata.file]\npath = "{folder / "metadata.json"}"\n'
            f'[[timedata.timescaledb]]\nid = "big"\nhost = "127.0.0.1"\nuser = "postgres"\n{lines}\n',
            "test",
        )
        backend = Backend(configuration, reactor=reactor, now=now)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        await backend.start()
        return backend

    async def test_written_asked_healthy(self) -> None:
        server = real("postgresql")
        name = database(self, server, "whole")
        backend = await self.backend(port=server.port, database=f'"{name}"', password='"secret"', batchDelay=0)
        at = now() // 300_000 * 300_000 - 3_600_000
        backend.timedata_manager.write("edge0", DataNotification(DataKind.TIMESTAMPED, {at: {"_sum/EssSoc": 57}}))
        [provider] = backend.timedata
        await provider.flush()
        self.assertEqual([(57,)], run_sql(server, "SELECT value FROM ts_num", database=name))
        begin = datetime.datetime.fromtimestamp(at / 1000, datetime.UTC)
        answer = await backend.timedata_manager.query_historic_data(
            "edge0", begin, begin + datetime.timedelta(minutes=10), ["_sum/EssSoc"], Resolution(5, Unit.MINUTES)
        )
        self.assertEqual([57, None], answer.data["_sum/EssSoc"])
        component = backend.health()["Timedata big"]
        self.assertTrue(component.ok)
        self.assertIn("Rows:1", component.state)
        self.assertEqual(1, backend.timedata_manager.debug_metrics()["big/Rows"])

    async def test_no_database_no_harm(self) -> None:
        """The backend starts and says what is wrong; it does not show the password."""
        backend = await self.backend(port=1, database='"x"', password='"my-own-secret"')
        await backend.listening()
        component = backend.health()["Timedata big"]
        self.assertFalse(component.ok)
        self.assertIn("refused", component.state)
        self.assertNotIn("my-own-secret", component.state)
