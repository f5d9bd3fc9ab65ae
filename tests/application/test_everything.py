"""Everything there is, at once: examples/everything.toml, and what a backend that runs it leaves lying about."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import msgspec
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from openems.application import config
from openems.application.backend import Backend
from openems.application.config import Configuration
from openems.application.service import now_milliseconds
from openems.backend.metadata.file.demo import create_demo_file
from openems.testing.uiclient import UiClient
from tests.application.ports import free_offset

EXAMPLE = Path(__file__).parents[2] / "examples" / "everything.toml"
SECRET = "topsecret-0123456789"
APIKEY = "key-of-edge-0-0123456789"
#: What something else excludes.
OTHERS = {"metadata_odoo", "metadata_dummy", "simulator_mailer"}


class Complete(SynchronousTestCase):
    def test_every_section(self) -> None:
        made = config.parse(EXAMPLE.read_text(), "everything", environ={"EVERYTHING_SECRET": SECRET})
        missing = {f.name for f in msgspec.structs.fields(Configuration) if not getattr(made, f.name)}
        self.assertEqual(missing, OTHERS)
        for field in ("core_jsonrpcrequesthandler", "core_timedatamanager", "authentication", "health", "backend"):
            self.assertIn(f"[{field.replace('_', '.')}]", EXAMPLE.read_text())
        self.assertNotIn(SECRET, repr(made))


class Running(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.root = Path(os.path.abspath(self.mktemp()))
        self.root.mkdir()
        self.state = self.root / "var"
        text = EXAMPLE.read_text()
        for old, new in (
            ('stateDir = "var"', f'stateDir = "{self.state}"\noffset = {free_offset()}'),
            ('path = "metadata.json"', f'path = "{self.root}/metadata.json"'),
            ("processes = 1", "processes = 0"),
            (":8086", ":1"),
            (":7900", ":1"),
            ('database = "openems"\n', 'database = "openems"\nport = 1\n'),
            ("baseKeycloakUrl", 'certsUrl = "http://localhost:1/certs"\nbaseKeycloakUrl'),
        ):
            self.assertIn(old, text)
            text = text.replace(old, new)
        create_demo_file(str(self.root / "metadata.json"), "secret", [("edge0", APIKEY)])
        old_mask = os.umask(0o022)
        self.addCleanup(os.umask, old_mask)
        configuration = config.parse(text, "everything", environ={"EVERYTHING_SECRET": SECRET})
        self.backend = Backend(configuration, reactor=reactor, now=now_milliseconds)
        self.pool = HTTPConnectionPool(reactor, persistent=False)

    async def get(self, port: int, path: str, token: str = "") -> bytes:
        agent = Agent(reactor, pool=self.pool)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"http://127.0.0.1:{port}{path}"
        response = await treq.get(url, agent=agent, headers=headers)
        body: bytes = await treq.content(response)
        return body

    async def test_what_lies_about(self) -> None:
        """Nothing for other users of the machine, and no secret on a page or in the log."""
        with capturedLogs() as events:
            await self.backend.start()
            try:
                await self.backend.listening()
                await self.visit()
            finally:
                await self.backend.stop()
            await self.pool.closeCachedConnections()
        lines = [formatEvent(event) for event in events]
        self.assertTrue(lines)
        for line in lines:
            for secret in (SECRET, APIKEY, "wrong-password", self.token):
                self.assertNotIn(secret, line)
        found = [self.state, *self.state.rglob("*")]
        self.assertGreater(len(found), 5)
        for path in found:
            mode = stat.S_IMODE(path.stat().st_mode)
            inside = any(not stat.S_IMODE(parent.stat().st_mode) & 0o077 for parent in [path, *path.parents][:-1])
            self.assertTrue(inside, f"{path} has mode {mode:o}")
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o700)
        for name in ("sqlite0.sqlite", "keycloak-sessions.sqlite"):
            self.assertEqual(stat.S_IMODE((self.state / name).stat().st_mode), 0o600, name)
        for name in ("spool-influxdb0", "spool-timescaledb0", "mail"):
            self.assertEqual(stat.S_IMODE((self.state / name).stat().st_mode), 0o700, name)

    async def visit(self) -> None:
        ports = self.backend.ports
        client = UiClient(f"ws://127.0.0.1:{ports['ui.websocket']}", reactor=reactor)
        await client.connect()
        try:
            login: Any = await client.request("authenticateWithPassword", {"username": "admin", "password": "secret"})
            self.token = login["token"]
            for method, params in (
                ("authenticateWithPassword", {"username": "admin", "password": "wrong-password"}),
                ("authenticateWithToken", {"token": SECRET}),
            ):
                asked: Deferred[Any] = Deferred.fromCoroutine(client.request(method, params))
                asked.addErrback(lambda failure: None)
                await asked
        finally:
            await client.close()
        await deferLater(reactor, 0.3)
        health = await self.get(ports["health"], "/")
        self.assertIn("status", json.loads(health))
        metrics = await self.get(ports["metrics.prometheus"], "/metrics", SECRET)
        self.assertIn(b"openems_version_info", metrics)
        ready = await self.get(ports["metrics.prometheus"], "/-/ready")
        self.assertIsNone(re.search(rb"localhost|openems@", ready), "reasons are for those with the token")
        for body in (health, metrics, ready):
            for secret in (SECRET, APIKEY, self.token):
                self.assertNotIn(secret.encode(), body)
