"""``./dev bench NAME --record``: a row in the table, also where nothing knows of a commit."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench import __main__ as bench


class TestRecord(SynchronousTestCase):
    def row(self) -> list[str]:
        page = Path(self.mktemp())
        self.patch(bench, "RESULTS", page)
        for ratio in (0.5, 0.25):
            bench.record({"name": "x", "ratio": ratio, "command": "./dev bench x"})
        lines = page.read_text().splitlines()
        self.assertIn(bench.HEAD, lines)
        self.assertEqual(4, sum(line.startswith("|") for line in lines))
        return [cell.strip() for cell in lines[-1].strip("|").split("|")]

    def test_without_git(self) -> None:
        def absent(*_: Any, **__: Any) -> None:
            raise FileNotFoundError("git")

        self.patch(subprocess, "run", absent)
        cells = self.row()
        self.assertEqual(["unknown", "x", "ratio 0.25", "`./dev bench x`"], [cells[1], *cells[3:]])

    def test_in_an_unpacked_archive(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.patch(bench, "ROOT", Path(folder))
            self.assertEqual("unknown", self.row()[1])
