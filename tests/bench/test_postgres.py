"""The benchmarks of PostgreSQL run, and what they compare is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.process import ROOT
from services import known
from tests.real import absent


class TestPostgres(SynchronousTestCase):
    def bench(self, *words: str) -> dict[str, Any]:
        if not known()["postgresql"].installed():
            absent("postgresql", "not installed")
        run = subprocess.run(
            [sys.executable, "-m", "bench", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        return result

    def test_write(self) -> None:
        result = self.bench("postgres-write", "--edges", "5", "--values", "20", "--messages", "100", "--rounds", "1")
        self.assertEqual(result["rows"], 2000)
        self.assertGreater(result["rows_per_second"], 0)

    def test_ask(self) -> None:
        result = self.bench("postgres-ask", "--days", "3", "--rounds", "1")
        self.assertGreater(result["day_ratio"], 0)
        self.assertGreater(result["year_ratio"], 0)
