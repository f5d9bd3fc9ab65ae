"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import openems

ROOT = Path(next(iter(openems.__path__)))


class Examples(SynchronousTestCase):
    def test_of_every_module(self) -> None:
        tried = 0
        for path in sorted(ROOT.rglob("*.py")):
            if ">>> " not in path.read_text():
                continue
            name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
            failed, attempted = doctest.testmod(importlib.import_module(name))
            self.assertEqual(0, failed, name)
            tried += attempted
        self.assertGreater(tried, 40)
