"""Edges that are there twice, or gone without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.websocket.server import PING_INTERVAL, WebSocketServer
from tests.faults.backend import ROOT, Faults, SilentEndpoint
from tests.fuzz.frames import UPGRADE
from tests.real import absent


class Twins(Faults):
    async def test_two_edges_with_one_key(self) -> None:
        """The newest gets the requests, the older one is closed; the edge is online all the time."""
        await self.start()
        attack: Deferred[Any] = Deferred.fromCoroutine(self.attack("twins"))
        states = []
        asked = None
        while not attack.called:
            states.append((await self.ui.request("getEdge", {"edgeId": "edge1"}))["edge"]["isOnline"])
            if len(states) > 20 and asked is None and all(states[-5:]):
                asked = await self.ui.edge_rpc("edge1", "anything", {})
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        told = await attack
        self.assertEqual(asked, {"who": "newer"})
        self.assertEqual(told["asked"], 1)
        self.assertGreater(told["turns"], 5)
        self.assertIsNotNone(told["code"])
        first, last = states.index(True), len(states) - states[::-1].index(True)
        # Offline only before the first came and after the last has gone.
        self.assertEqual(set(states[first:last]), {True})
        self.assertUntouched()


class HalfOpen(TestCase):
    timeout = 90

    async def test_real(self) -> None:
        """With short pings, in a network of its own."""
        if os.geteuid() != 0:
            absent("network namespace", "only root may make one")
        tried = subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True)
        if tried.returncode:
            absent("network namespace", tried.stderr.decode())
        folder = str(Path(self.mktemp()).absolute())
        trial = f"exec '{sys.executable}' -m twisted.trial --temp-directory='{folder}' tests.faults.halfopen"
        out, err, code = await getProcessOutputAndValue(
            "/bin/sh",
            ["-c", 'exec unshare -n sh -c "$0"', f"ip link set lo up && {trial}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            path=str(Path(folder).parent),
        )
        self.assertEqual(code, 0, (out + err).decode()[-5000:])


class InRealTime(SynchronousTestCase):
    def test_a_silent_peer_is_gone_after_150_seconds(self) -> None:
        """On whichever second between two pings it came."""
        for offset in range(0, int(PING_INTERVAL), 7):
            clock = Clock()
            server = WebSocketServer("Test", SilentEndpoint, reactor=clock)
            server._ping.start(PING_INTERVAL, now=False)
            clock.advance(offset)
            protocol: Any = server._factory.buildProtocol(None)
            transport = StringTransport()
            protocol.makeConnection(transport)
            protocol.dataReceived(UPGRADE)
            seconds = 0
            while not transport.disconnecting:
                clock.advance(1)
                seconds += 1
                # Not a word comes, but much is sent: that is no sign of life.
                protocol.connection.send(b"{}")
                self.assertLessEqual(seconds, 150)
            self.assertGreater(seconds, 90)
            server._ping.stop()
