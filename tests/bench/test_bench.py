"""The benchmarks run: a few edges, one second."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from bench.growth import picture
from bench.process import ROOT


class TestBench(SynchronousTestCase):
    if shutil.which("cc") is None and os.environ.get("CI") != "true":
        skip = "the load generator needs a C compiler (cc)"

    def bench(self, *words: str) -> dict[str, Any]:
        run = subprocess.run(
            [sys.executable, "-m", "bench", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        self.assertEqual(result["name"], words[0])
        self.assertEqual(result["command"], "./dev bench " + " ".join(words))
        return result

    def test_tokens(self) -> None:
        result = self.bench("tokens", "--messages", "200", "--rounds", "1")
        self.assertGreater(result["ratio"], 0)
        self.assertGreater(result["verified_per_second"], 0)

    def test_ingest(self) -> None:
        result = self.bench("ingest", "--edges", "5", "--messages", "500", "--seconds", "1", "--rounds", "1")
        self.assertGreater(result["backend_messages_per_cpu_second"], 0)
        self.assertGreater(result["ratio"], 0)

    def test_ingest_sqlite_every_value_is_written(self) -> None:
        result = self.bench("ingest-sqlite", "--edges", "5", "--messages", "50", "--seconds", "1")
        self.assertEqual(result["written_values"], result["taken_values"])
        self.assertGreater(result["written_values"], 0)

    def test_hold_loses_nothing(self) -> None:
        result = self.bench("hold", "--edges", "5", "--watchers", "5", "--seconds", "1")
        self.assertEqual((result["lost_messages"], result["missing_pushes"]), (0, 0))
        self.assertEqual(result["pushes"], 5)

    def test_through_applications(self) -> None:
        result = self.bench("hold", "--edges", "5", "--watchers", "5", "--seconds", "1", "--through-applications", "2")
        self.assertEqual((result["lost_messages"], result["missing_pushes"]), (0, 0))
        self.assertEqual((len(result["applications_cpu_seconds"]), result["applications_dropped"]), (2, 0))
        result = self.bench(
            *("ingest", "--edges", "5", "--messages", "500", "--seconds", "1"),
            *("--rounds", "1", "--through-applications", "1"),
        )
        self.assertGreater(result["backend_messages_per_cpu_second"], 0)
        self.assertEqual(result["applications_dropped"], 0)

    def test_history_agrees_with_the_bare_sql(self) -> None:
        result = self.bench("history", "--edges", "1", "--days", "3", "--rounds", "3")
        self.assertEqual(result["queries"], 3)

    def test_metrics_of_a_few_edges(self) -> None:
        result = self.bench("metrics", "--edges", "20", "--rounds", "2")
        self.assertEqual((result["edges"], result["descriptors"]), (20, 21))
        self.assertGreater(result["bytes"], 50_000)
        self.assertGreater(result["reactor_ms"], 0)

    def test_alerting_of_a_few_edges(self) -> None:
        result = self.bench("alerting", "--edges", "30")
        self.assertEqual((result["edges"], result["users_an_edge"]), (30, 2))
        self.assertLess(result["scan_seconds"], 1)

    def test_unknown_name(self) -> None:
        run = subprocess.run([sys.executable, "-m", "bench", "nonsense"], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(run.returncode, 2)
        self.assertIn("ingest", run.stderr)

    def test_rpc(self) -> None:
        result = self.bench("rpc", "--edges", "5", "--seconds", "1")
        self.assertGreater(result["requests"], 50)
        self.assertEqual(result["failed"], 0)

    def test_soak(self) -> None:
        result = self.bench("soak", "--edges", "5", "--watchers", "3", "--churn", "2", "--seconds", "4")
        self.assertGreater(result["reconnects_of_edges"], 2)
        self.assertGreater(result["watchers_that_left"], 0)
        self.assertEqual(len(result["rss_bytes"]), 3)
        self.assertEqual(result["fleet_afterwards"], 0)

    def test_storm_beside_live_edges(self) -> None:
        for words in ([], ["--greet"]):
            result = self.bench("storm", "--edges", "30", "--live", "20", "--watchers", "20", *words)
            self.assertEqual((result["failed"], result["live_edges_lost"], result["lost_messages"]), (0, 0, 0))
            self.assertGreater(result["before_pushes"], 20)

    def test_slow_readers_get_the_newest_values_once_they_read(self) -> None:
        result = self.bench("slow-readers", "--edges", "25", "--watchers", "3", "--slow", "2", "--seconds", "3")
        self.assertEqual(result["slow_readers"], 2)
        self.assertEqual(result["readers_with_newest_values"], 2)
        self.assertEqual((result["older_after_newer"], result["waiting_bytes_after"]), (0, 0))
        self.assertGreater(result["pushes_skipped"], 0)
        self.assertLess(result["waiting_bytes_per_slow_reader"], 400_000)

    def test_profile(self) -> None:
        path = str(Path(self.mktemp()).absolute())
        self.bench("hold", "--edges", "5", "--watchers", "5", "--seconds", "2", "--profile", path)
        run = subprocess.run([sys.executable, "-m", "bench.costs", path], cwd=ROOT, capture_output=True, text=True)
        self.assertIn("orjson.loads", run.stdout)
        # To the last message, not only to the first figures in between.
        (loads,) = (line for line in run.stdout.splitlines() if line.endswith("orjson.loads"))
        self.assertGreaterEqual(int(loads.split()[1]), 10)
        self.bench("idle", "--edges", "50", "--seconds", "1", "--profile", path)
        self.assertIn("openems.websocket.peer.Connection", Path(path).read_text())

    def test_growth(self) -> None:
        result = self.bench("growth", "--edges", "100")
        self.assertEqual((result["edges"], result["ratio"]), ([100], 1.0))


class TestPicture(SynchronousTestCase):
    def test_growth(self) -> None:
        path = Path(self.mktemp())
        picture(path, {"a": [(100, 15.0), (10_000, 22.5)], "b": [(100, 10.0), (10_000, 12.0)]})
        root = ElementTree.parse(path).getroot()
        self.assertEqual(len(root.findall("{http://www.w3.org/2000/svg}polyline")), 2)
