"""Readiness and watchdog for systemd (``Type=notify``, ``WatchdogSec=``), without a library.

The protocol: datagrams of ``NAME=value`` lines to the unix socket that the environment names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger


class Systemd:
    """``healthy`` is asked before each sign of life: a backend that cannot work is started anew by systemd.

    Without NOTIFY_SOCKET in ``environ`` nothing is sent.
    """

    _log = Logger()

    def __init__(self, environ: Mapping[str, str], *, reactor: Any, healthy: Callable[[], bool] = lambda: True) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._healthy = healthy
        self._interval = _interval(environ)
        self._watchdog = LoopingCall(self._alive)
        self._watchdog.clock = reactor
        self._failed = False

    def ready(self, status: str) -> None:
        """All listeners are open. From now on the watchdog is fed, twice as often as asked for."""
        self.send("READY=1", f"STATUS={status}")
        if self._interval and self._address and not self._watchdog.running:
            self._watchdog.start(self._interval / 2)

    def stopping(self) -> None:
        if self._watchdog.running:
            self._watchdog.stop()
        self.send("STOPPING=1")

    def _alive(self) -> None:
        # The call itself shows that the reactor turns.
        if self._healthy():
            self.send("WATCHDOG=1")

    def send(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as s:
                s.sendto("\n".join(lines).encode(), address)
        except OSError as e:
            if not self._failed:
                self._failed = True
                self._log.warn("cannot notify systemd at {address}: {error}", address=self._address, error=e.strerror)


def _interval(environ: Mapping[str, str]) -> float:
    """Seconds between two signs of life at most; 0 without a watchdog, or with one that watches another process."""
    try:
        interval = int(environ.get("WATCHDOG_USEC", "0")) / 1_000_000
        pid = int(environ.get("WATCHDOG_PID", "0"))
    except ValueError:
        return 0.0
    return interval if pid in (0, os.getpid()) else 0.0
