import os
import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.application.systemd import Systemd


class TestSystemd(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(self.socket.close)
        # An abstract address: no path to clean up, and short.
        self.name = f"openems-test-{os.getpid()}"
        self.socket.bind("\0" + self.name)

    def received(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def test_ready_then_signs_of_life_at_twice_the_rate(self) -> None:
        s = Systemd({"NOTIFY_SOCKET": f"@{self.name}", "WATCHDOG_USEC": "10000000"}, reactor=self.clock)
        s.ready("listening")
        self.assertEqual(self.received(), ["READY=1\nSTATUS=listening", "WATCHDOG=1"])
        self.clock.advance(5)
        self.assertEqual(self.received(), ["WATCHDOG=1"])
        s.stopping()
        self.clock.advance(20)
        self.assertEqual(self.received(), ["STOPPING=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_sign_of_life_while_unhealthy(self) -> None:
        environ = {"NOTIFY_SOCKET": f"@{self.name}", "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
        s = Systemd(environ, reactor=self.clock, healthy=lambda: False)
        s.ready("x")
        self.clock.advance(5)
        self.assertEqual(self.received(), ["READY=1\nSTATUS=x"])
        s.stopping()

    def test_watchdog_of_another_process(self) -> None:
        environ = {"NOTIFY_SOCKET": f"@{self.name}", "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}
        Systemd(environ, reactor=self.clock).ready("x")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_systemd(self) -> None:
        s = Systemd({"WATCHDOG_USEC": "10000000"}, reactor=self.clock)
        s.ready("x")
        s.stopping()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.received(), [])
