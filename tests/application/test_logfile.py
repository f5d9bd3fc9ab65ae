from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import Logger
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from openems.application import logfile


class Rotating(SynchronousTestCase):
    def test_it_keeps_the_newest(self) -> None:
        path = Path(self.mktemp())
        self.patch(logfile, "BYTES", 200)
        self.patch(os, "environ", {**os.environ, logfile.VARIABLE: str(path)})
        file = logfile.opened()
        self.addCleanup(file.close)
        self.patch(logfile, "opened", lambda: file)
        log = Logger(observer=namedAny(logfile.FACTORY)())
        for number in range(100):
            log.info("line {number:03} of a hundred, each so long that a file is full soon", number=number)
        file.flush()
        files = sorted(path.parent.glob(f"{path.name}*"))
        self.assertEqual(1 + logfile.OLD_FILES, len(files))
        text = "".join(file.read_text() for file in files)
        self.assertIn("line 099", text)
        self.assertNotIn("line 000", text)
