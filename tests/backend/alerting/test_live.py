"""The whole way with real processes: a simulated edge, a backend that is killed again and again, a mail server.

One second here is a minute for the backend (its delays would take hours); everything else is real.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.application.config import to_toml
from openems.simulator.edge import SimulatedEdge
from openems.testing.uiclient import UiClient
from openems.websocket.client import ReconnectingClient
from services.smtpd import Smtpd, forget, mails
from tests.application.ports import free_offset
from tests.real import fresh, real

reactor: Any = _reactor
ROOT = Path(__file__).parents[3]
FACTOR = 60
HASH = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$L1b1NjppUoj/KIEORq1pof4waLxklM0mqKZzt9nCsKI"


class Child(ProcessProtocol):
    def __init__(self) -> None:
        self.output = ""
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode(errors="replace")
        if "ready\n" in self.output and not self.ready.called:
            self.ready.callback(None)

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        if not self.ready.called:
            self.ready.errback(RuntimeError(f"the backend ended: {self.output[-3000:]}"))
        self.ended.callback(None)


class Live(TestCase):
    timeout = 180

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="openems-alerting-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.offset = free_offset()
        self.child: Child | None = None
        self.clock = (time.time_ns() // 1_000_000, 1_776_679_230_000)
        self.addCleanup(self.kill)

    def configure(self, smtp: dict[str, Any]) -> None:
        users = {
            "mia": {
                "name": "Mia Berg", "passwordHash": HASH, "language": "DE", "globalRole": "owner",
                "roles": {"edge0": "owner", "edge1": "owner"},
                "information": {"email": "mia@example.org", "firstname": "Mia"},
                "settings": {"timezone": "Europe/Vienna"},
                "alerting": {"edge0": {"offline": 8, "fault": 4}},
            },
            "jan@example.org": {
                "name": "Jan", "passwordHash": HASH, "language": "NL", "roles": {"edge0": "guest"},
                "alerting": {"edge0": {"offline": 20, "fault": 0}},
            },
            "gone@example.org": {"name": "Gone", "alerting": {"edge0": {"offline": 8, "fault": 4}}},
        }  # fmt: skip
        edges = {f"edge{n}": {"comment": f"Haus {n}", "apikey": f"key-of-edge-{n}-0123456789"} for n in range(2)}
        metadata = self.folder / "metadata.json"
        metadata.write_text(json.dumps({"version": 2, "edges": edges, "users": users}))
        metadata.chmod(0o600)
        self.apikeys = {edge_id: edge["apikey"] for edge_id, edge in edges.items()}
        self.config = self.folder / "config.toml"
        self.config.write_text(
            to_toml(
                {
                    "backend": {"stateDir": str(self.folder), "offset": self.offset, "interface": "127.0.0.1"},
                    "edge": {},
                    "ui.websocket": {},
                    "metadata.file": {"path": str(metadata)},
                    "timedata.dummy": [{"id": "timedata0"}],
                    "alerting": {"initialDelay": 6},
                    "mail.smtp": {"host": "127.0.0.1", "fromAddress": "ems@example.org", "oem": "ACME",
                                  "baseUrl": "https://ems.example.org", **smtp},
                }
            )
        )  # fmt: skip

    async def start(self) -> None:
        self.child = child = Child()
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        arguments = [str(self.config), *map(str, self.clock), str(FACTOR)]
        command = [sys.executable, "-m", "tests.backend.alerting.child", *arguments]
        self.transport = reactor.spawnProcess(child, sys.executable, command, env=environ)
        await child.ready

    def kill(self, number: int = signal.SIGKILL) -> Deferred[None] | None:
        child, self.child = self.child, None
        if child is None or child.ended.called:
            return None
        self.transport.signalProcess(number)
        return child.ended

    async def kill_and_start(self) -> None:
        await (self.kill() or deferLater(reactor, 0))
        await self.start()

    def simulate(self) -> None:
        def now() -> int:
            # What comes from another time is not believed.
            real, made_up = self.clock
            return made_up + (time.time_ns() // 1_000_000 - real) * FACTOR

        self.edge = SimulatedEdge(0, seed=1, reactor=reactor, now=now, cycle=0.5, backfill_days=0)
        self.edge.start()
        self.addCleanup(self.edge.stop)
        self.client: ReconnectingClient | None = None
        self.addCleanup(self.disconnect)

    def connect(self) -> None:
        self.client = ReconnectingClient(
            f"ws://127.0.0.1:{8081 + self.offset}",
            {"apikey": self.apikeys["edge0"]},
            self.edge.endpoint,
            reactor=reactor,
            min_wait=0.2,
            max_wait=0.5,
            name="edge0",
        )
        self.client.start()

    def disconnect(self) -> Deferred[None] | None:
        client, self.client = self.client, None
        return None if client is None else ensureDeferred(client.stop())

    async def gone(self) -> None:
        await (self.disconnect() or deferLater(reactor, 0))

    async def until(self, what: Callable[[], Any], seconds: float, step: float = 0.02) -> None:
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                tail = "" if self.child is None else self.child.output[-3000:]
                self.fail(f"not within {seconds} s; the backend said:\n{tail}")
            await deferLater(reactor, step)

    async def online(self, edge_id: str, wanted: bool = True) -> None:
        ui = UiClient(f"ws://127.0.0.1:{8082 + self.offset}", reactor)
        await ui.connect()
        try:
            await ui.login("mia", "correct horse")
            for _ in range(200):
                status = await ui.request("getEdgesStatus", {"edgeIds": [edge_id]})
                if status[edge_id]["online"] is wanted:
                    return
                await deferLater(reactor, 0.05)
        finally:
            await ui.close()
        self.fail(f"{edge_id} does not change")

    def wait(self, seconds: float) -> Awaitable[None]:
        return deferLater(reactor, seconds)

    async def test_offline_fault_and_kills_in_between(self) -> None:
        smtpd = real("smtpd")
        forget(smtpd)
        info = smtpd.info
        self.configure({
            "host": "localhost", "port": info["starttls"], "username": info["user"], "password": info["password"],
            "ca": Path(info["ca"]).read_text(),
        })  # fmt: skip
        await self.start()
        self.simulate()
        self.connect()
        await self.online("edge0")

        # Away; the backend is killed during grace, once more while the alert is pending, and when the mail is there.
        await self.gone()
        await self.online("edge0", False)
        gone = time.monotonic()
        await self.wait(2)
        await self.kill_and_start()
        await self.wait(3)
        await self.kill_and_start()
        await self.until(lambda: mails(smtpd), 40, step=0.005)
        await self.kill_and_start()
        self.assertGreater(time.monotonic() - gone, 6)
        # Jan's delay is longer: told after mia, over one more kill.
        await self.until(lambda: len(mails(smtpd)) > 1, 50)
        await self.wait(2)
        await self.kill_and_start()
        await self.wait(9)
        # On a busy machine both may be due in one tick: in no order then.
        first, second = sorted(mails(smtpd), key=lambda mail: mail.to, reverse=True)
        self.assertEqual((first.to, first.subject), (["mia@example.org"], "edge0 (Haus 0) ist offline"))
        self.assertEqual((second.to, second.subject), (["jan@example.org"], "edge0 (Haus 0) is offline"))
        self.assertTrue(first.tls and first.login)
        self.assertIn("(Europe/Vienna)", first.text)
        self.assertIn("nach 8 Minuten", first.text)
        self.assertIn("na 20 minuten", second.text)
        self.assertIn("https://ems.example.org/device/edge0/settings/alerting", first.html)
        self.assertNotEqual(first.message["Message-ID"], second.message["Message-ID"])
        self.assertEqual(first.message["References"], second.message["References"])

        # Back; in fault; killed before and after the mail.
        self.connect()
        await self.online("edge0")
        self.edge.household.fault = True
        await self.wait(2)
        await self.kill_and_start()
        await self.until(lambda: len(mails(smtpd)) > 2, 40, step=0.005)
        await self.kill_and_start()
        await self.wait(9)
        self.assertEqual(
            [(m.to, m.subject) for m in mails(smtpd)[2:]], [(["mia@example.org"], "edge0 (Haus 0): Fehler")]
        )

        # Good again, then a new fault is a new mail.
        self.edge.household.fault = False
        await self.wait(2)
        self.edge.household.fault = True
        await self.until(lambda: len(mails(smtpd)) > 3, 40)
        await self.wait(2)
        stamps = json.loads((self.folder / "metadata-state.json").read_text())["alerting"]["edge0"]
        self.assertIn("lastOffline", stamps["jan@example.org"])
        self.assertIn("lastSumState", stamps["mia"])
        self.assertNotIn("gone@example.org", stamps)
        # A stop in order: nothing is said about edges that go with it.
        await (self.kill(signal.SIGTERM) or deferLater(reactor, 0))
        await self.start()
        await self.wait(8)
        self.assertEqual(len(mails(smtpd)), 4)
        self.assertEqual(len({m.message["Message-ID"] for m in mails(smtpd)}), 4)

    async def test_a_mail_server_that_is_away(self) -> None:
        """The mail waits on disk while the server is away and the backend is killed; it is dropped if the edge is back
        before it could go out."""
        smtpd = fresh("smtpd")
        self.addCleanup(smtpd.stop)
        ports = smtpd.info["ports"]
        self.configure({"port": ports[0], "security": "none"})
        await self.start()
        self.simulate()
        self.connect()
        await self.online("edge0")
        smtpd_folder = Path(tempfile.mkdtemp(prefix="openems-smtpd-"))
        self.addCleanup(shutil.rmtree, smtpd_folder, ignore_errors=True)
        smtpd.stop()
        queue = self.folder / "mail" / "queue"

        await self.gone()
        await self.until(lambda: list(queue.glob("*.json")), 40)
        await self.kill_and_start()
        self.assertGreaterEqual(len(list(queue.glob("*.json"))), 1)
        service = Smtpd()
        again = service.start_at(smtpd_folder, ports)
        self.addCleanup(again.stop)
        await self.until(lambda: ["mia@example.org"] in [mail.to for mail in mails(again)], 60)

        # Once more, and back in time.
        self.connect()
        await self.online("edge0")
        again.stop()
        before = [mail.to[0] for mail in mails(again)]
        self.assertEqual(len(before), len(set(before)))
        await self.wait(2)
        await self.gone()
        await self.until(lambda: list(queue.glob("*.json")), 40)
        self.connect()
        await self.online("edge0")
        third = service.start_at(smtpd_folder, ports)
        self.addCleanup(third.stop)
        await self.until(lambda: not list(queue.glob("*.json")), 40)
        await self.wait(2)
        self.assertEqual([mail.to[0] for mail in mails(third)], before)
