"""What a command's reactor does: each in a process of its own, since a reactor runs once."""

import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = str(Path(__file__).parents[2])
PROGRAM = """
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from openems.application.running import in_reactor

stop = Deferred()

async def work(reactor):
    reactor.callLater(0, print, "runs", flush=True)
    %s

try:
    print(in_reactor(work, %s))
except KeyboardInterrupt:
    print("interrupted")
except ValueError as error:
    print(error)
"""


class InReactor(SynchronousTestCase):
    def run_it(self, body: str, interrupted: str = "None", signals: tuple[int, ...] = ()) -> tuple[int, str, str]:
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM % (body, interrupted)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:
            self.addCleanup(process.kill)
            assert process.stdout is not None
            if signals:
                self.assertEqual(process.stdout.readline(), "runs\n")
            for index, number in enumerate(signals):
                if index:  # two that come at once would be one
                    self.assertEqual(process.stdout.readline(), "first\n")
                process.send_signal(number)
            out, err = process.communicate(timeout=30)
        return process.returncode, out.removeprefix("runs\n"), err

    def test_result(self) -> None:
        self.assertEqual(self.run_it("return 5"), (0, "5\n", ""))

    def test_exception(self) -> None:
        self.assertEqual(self.run_it("raise ValueError('bad')"), (0, "bad\n", ""))

    def test_warnings_are_seen(self) -> None:
        status, out, err = self.run_it("Logger().info('a detail'); Logger().warn('a warning')")
        self.assertEqual((status, out), (0, "None\n"))
        self.assertIn("a warning", err)
        self.assertNotIn("a detail", err)

    def test_in_order_after_an_interrupt(self) -> None:
        done = self.run_it("return await stop", "lambda: stop.callback('in order')", (signal.SIGINT,))
        self.assertEqual(done, (0, "in order\n", ""))

    def test_interrupted(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.assertEqual(self.run_it("await stop", "None", (number,)), (0, "interrupted\n", ""))

    def test_second_interrupt(self) -> None:
        done = self.run_it("await stop", "lambda: print('first', flush=True)", (signal.SIGINT, signal.SIGINT))
        self.assertEqual(done, (130, "", ""))
