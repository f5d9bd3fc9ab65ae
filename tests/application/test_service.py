import os
import sys
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

ROOT = str(Path(__file__).parents[2])
PROGRAM = """
import os, signal
from twisted.internet import reactor
from openems.application.service import SignalledService

class Tried(SignalledService):
    async def begin(self):
        {begin}
    async def end(self):
        print("ended", flush=True)

service = Tried(reactor)
service.startService()
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.run()
"""


class TestSignalledService(TestCase):
    async def status(self, begin: str) -> tuple[int, str, str]:
        environ = {**os.environ, "PYTHONPATH": ROOT}
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ["-c", PROGRAM.format(begin=begin)], env=environ
        )
        return status, out.decode(), err.decode()

    async def test_sigterm_ends_with_0(self) -> None:
        self.assertEqual(await self.status("os.kill(os.getpid(), signal.SIGTERM)"), (0, "ended\n", ""))

    async def test_sigint_twice_ends_with_0(self) -> None:
        begin = "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)"
        self.assertEqual(await self.status(begin), (0, "ended\n", ""))

    async def test_failed_start_ends_with_1_and_its_reason(self) -> None:
        status, out, err = await self.status('raise OSError("port 8081 is in use")')
        self.assertEqual((status, out), (1, "ended\n"))
        self.assertIn("cannot start: port 8081 is in use\n", err)
        self.assertNotIn("Traceback", err)
