"""A few edges over WebSockets, a backend process, a real database: stopped, killed with -9, the backend killed with -9.
Every value that was sent is counted in the database afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.outage import RISK, _counted
from bench.process import ROOT
from services import known
from tests.real import absent

EDGES = 50


class CountTests(SynchronousTestCase):
    def test_what_is_missing_and_when(self) -> None:
        class Base:
            def counts(self, first: int, last: int) -> dict[int, int]:
                return {100: 50, 101: 40, 103: 10, 104: 55, 106: 7}

        sent = {"first_second": 100, "messages_by_second": [2, 2, 2, 2, 2]}
        base: Any = Base()
        self.assertEqual(
            {"sent_values": 250, "counted_values": 162, "lost": 10 + 50 + 40, "lost_at_kill": 0,
             "sent_values_at_kill": 0, "more_than_sent": 5 + 7},
            _counted(sent, 25, base, []),
        )  # fmt: skip
        self.assertEqual(2, RISK)
        counted = _counted(sent, 25, base, [103.5])
        self.assertEqual(
            (0, 10 + 50 + 40, 200), tuple(counted[k] for k in ("lost", "lost_at_kill", "sent_values_at_kill"))
        )


class OutageTests(SynchronousTestCase):
    if shutil.which("cc") is None and os.environ.get("CI") != "true":
        skip = "the load generator needs a C compiler (cc)"

    def outage(self, database: str, away: str, *, least: int) -> dict[str, Any]:
        """``least``: seconds of load that it cannot be done without."""
        if database != "sqlite" and not known()[database].installed():
            absent(database, f"not installed; ./dev services {database} installs it")
        words = ("--database", database, "--edges", str(EDGES), "--watchers", "5", "--seconds", "1", "--away", away)
        run = subprocess.run(
            [sys.executable, "-m", "bench", "outage", *words], cwd=ROOT, capture_output=True, text=True, timeout=240
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        self.assertTrue(result["all_written"], result)
        self.assertEqual((0, 0), (result["lost"], result["more_than_sent"]), result)
        self.assertGreater(result["sent_values"], EDGES * 25 * least)
        self.assertEqual(result["sent_values"] - result["lost_at_kill"], result["counted_values"])
        self.assertEqual({}, result["dropped"])
        return result

    def outage_of_a_server(self, database: str) -> None:
        result = self.outage(database, "5", least=14)
        self.assertEqual((0, 5), (result["second_lost"], len([p for p in ("steady", "stopped", "killed", "up_again",
                         "after_restart") if p in result["edge_to_ui"]])), result)  # fmt: skip
        self.assertGreater(result["spool_bytes_at_most"], 0)
        self.assertGreater(result["waiting_values_at_most"], EDGES * 25 * 3)

    def test_influxdb2(self) -> None:
        self.outage_of_a_server("influxdb2")

    def test_postgresql(self) -> None:
        self.outage_of_a_server("postgresql")

    def test_sqlite_goes_away_with_the_backend(self) -> None:
        self.outage("sqlite", "1", least=RISK + 2)
