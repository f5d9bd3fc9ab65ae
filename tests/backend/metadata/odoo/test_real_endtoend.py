"""The whole backend with the real Odoo: an edge appears online, a user logs in, and Odoo goes away and comes back."""

from __future__ import annotations

import os
import secrets
import signal
import time
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openems.application import config
from openems.application.backend import Backend
from openems.backend.events import ConfigReceived
from openems.backend.metadata.odoo.provider import OdooMetadata
from openems.backend.models import PageRequest
from openems.common import jsonrpc
from openems.common.errors import OpenemsError
from openems.simulator.fleet import Fleet
from openems.testing.uiclient import UiClient
from services.odoo import SERVICE
from tests.application.ports import free_offset
from tests.backend.authentication.realserver import USERS, Admin, document, form_login
from tests.backend.metadata.odoo.world import Inside, OdooCase, pause, reactor
from tests.real import fresh, real

FIELDS = ("openems_is_connected", "lastmessage", "openems_version", "openems_sum_state_level", "openems_config")


def now() -> int:
    return int(time.time() * 1000)


class World(TestCase):
    timeout = 240

    async def begin(self, running: Any, edges: int, extra: str = "", odoo: str = "") -> None:
        """``extra``: sections; ``odoo``: lines of the one of Odoo."""
        self.running = running
        self.inside = Inside(running)
        self.devices = [self.inside.device() for _ in range(edges)]
        _, self.login = self.inside.user(role="owner", device=self.devices[0][0])
        folder = self.mktemp()
        os.makedirs(folder)
        offset = free_offset()
        info = running.info
        text = f"""
            [backend]
            stateDir = "{folder}"
            offset = {offset}
            interface = "127.0.0.1"
            [edge]
            [ui.websocket]
            [metadata.odoo]
            odooHost = "127.0.0.1"
            odooPort = {running.port}
            odooPassword = "{info["password"]}"
            odooUid = 2
            pgHost = "127.0.0.1"
            pgPort = {info["pg_port"]}
            pgPassword = "{info["pg_password"]}"
            database = "{info["database"]}"
            writeInterval = 0.3
            pollInterval = 0.5
            {odoo}
            [[timedata.dummy]]
            {extra}
            """
        self.backend = Backend(config.parse(text, "test"), reactor=reactor, now=now)
        self.addCleanup(lambda: ensureDeferred(self.backend.stop()))
        await self.backend.start()
        await self.backend.listening()
        self.metadata: OdooMetadata = self.backend.metadata
        keys = {name: f"key-{name}" for _, name in self.devices}
        url = f"ws://127.0.0.1:{self.backend.ports['edge']}"
        self.fleet = Fleet(url, keys, reactor=reactor, now=now, min_wait=0.1, max_wait=0.5)
        self.addCleanup(lambda: ensureDeferred(self.fleet.stop()))
        self.ui = UiClient(f"ws://127.0.0.1:{self.backend.ports['ui.websocket']}", reactor)
        self.addCleanup(lambda: ensureDeferred(self.ui.close()))
        await self.ui.connect()

    def keycloak(self, origin: str) -> str:
        """The section of a realm of this test; the redirects of its clients are below ``origin``."""
        keycloak = real("keycloak")
        self.admin = Admin(keycloak.info)
        self.realm = f"odoo-{secrets.token_hex(4)}"
        realm = document(self.realm)
        for client in realm["clients"]:
            client["redirectUris"] = [f"{origin}/*"]
        self.admin.ask("POST", "", realm)
        self.addCleanup(self.admin.remove_realm, self.realm)
        url = keycloak.info["url"]
        oidc = f"{url}/realms/{self.realm}/protocol/openid-connect"
        return f"""
            [authentication.oauth]
            realm = "{self.realm}"
            baseKeycloakUrl = "{url}"
            issuerUrl = "{url}/realms/{self.realm}"
            loginUrl = "{oidc}/auth"
            tokenUrl = "{oidc}/token"
            certsUrl = "{oidc}/certs"
            [[authentication.oauth.clientconfig]]
            clientSecret = "change-me-openems"
            redirectUri = "{origin}/"
            serviceAccount = true
            """

    until = OdooCase.until
    refused = OdooCase.refused

    async def watch(self, edge: str) -> None:
        await self.ui.request("subscribeEdges", {"edges": [edge]})
        await self.ui.edge_rpc(edge, "subscribeChannels", {"count": 0, "channels": ["_sum/GridActivePower"]})

    def shown(self, number: int = 0) -> dict[str, Any]:
        return self.inside.read("openems.device", self.devices[number][0], *FIELDS)


class EndToEnd(World):
    async def test_edge_and_user(self) -> None:
        """An edge connects and is online in Odoo; its owner sees it with his password of Odoo."""
        await self.begin(real("odoo"), 3)
        await self.fleet.start()
        edge = self.devices[0][1]
        await self.until(lambda: self.shown()["openems_is_connected"])
        await self.until(lambda: self.shown()["openems_config"])
        record = await self.until(lambda: self.shown() if self.shown()["openems_version"] else None)
        self.assertTrue(record["lastmessage"])
        done = await self.ui.login(self.login, "secret")
        self.assertEqual(done["user"]["id"], self.login)
        edges = (await self.ui.request("getEdges", {"page": 0}))["edges"]
        self.assertEqual([(e["id"], e["role"], e["isOnline"]) for e in edges], [(edge, "owner", True)])
        await self.ui.request("subscribeEdges", {"edges": [edge]})
        configuration = await self.ui.edge_rpc(edge, "getEdgeConfig")
        self.assertIn("_sum", configuration["components"])
        await self.ui.edge_rpc(edge, "subscribeChannels", {"count": 0, "channels": ["_sum/GridActivePower"]})
        await self.ui.push("currentData")
        error = await self.refused(self.ui.edge_rpc(self.devices[1][1], "getEdgeConfig"), 1005)
        self.assertIn(self.login, error.message)
        # By token, as after a reload.
        again = await self.ui.request("authenticateWithToken", {"token": done["token"]})
        self.assertEqual(again["user"]["id"], self.login)
        await self.refused(self.ui.login(self.login, "wrong"), 1003)
        await self.fleet.stop()
        await self.until(lambda: not self.shown()["openems_is_connected"])


class SameUser(World):
    timeout = 400

    async def test_by_keycloak_and_by_password(self) -> None:
        """One user of Odoo, by the subject of a token and by his password there."""
        origin = "http://127.0.0.1:4299"
        await self.begin(real("odoo"), 1, self.keycloak(origin))
        login = "mia@example.com"
        number, _ = self.inside.user(login=login, oauth_uid=USERS["mia"], role="installer", device=self.devices[0][0])
        self.addCleanup(self.inside.execute, "res.users", "write", [number], {"active": False, "oauth_uid": False})

        async def ask(method: str, params: dict[str, Any]) -> Any:
            payload = {"jsonrpc": "2.0", "method": method, "params": params, "id": jsonrpc.new_id()}
            return await self.ui.request("authenticateWithOAuth", {"payload": payload})

        async def seen() -> list[tuple[str, str]]:
            return [(e["id"], e["role"]) for e in (await self.ui.request("getEdges", {"page": 0}))["edges"]]

        start = await ask("initiateConnect", {"oem": "openems", "redirectUri": f"{origin}/"})
        back = await deferToThread(form_login, start["loginUrl"], login)
        params = {"oem": "openems", "identifier": start["identifier"], "code": back["code"]}
        done = await ask("getTokenByCode", params)
        self.assertEqual(done["user"]["id"], login)
        by_token = await seen()
        self.assertEqual(by_token, [(self.devices[0][1], "installer")])
        await self.ui.request("logout")
        done = await self.ui.login(login, "secret")
        self.assertEqual(done["user"]["id"], login)
        self.assertEqual(await seen(), by_token)


class Outage(World):
    async def test_odoo_away(self) -> None:
        """Odoo and its PostgreSQL stop under load and come back: edges and users go on, nothing is lost."""
        await self.begin(fresh("odoo"), 40)
        self.addCleanup(self.running.stop)
        await self.fleet.start()
        edge = self.devices[0][1]
        token = (await self.ui.login(self.login, "secret"))["token"]
        await self.watch(edge)
        await self.until(lambda: all(self.shown(n)["openems_config"] for n in (0, 39)))

        # Odoo alone.
        await deferToThread(SERVICE.stop_odoo, self.running)
        self.ui.forget_pushes()
        await self.ui.push("currentData")
        began = time.monotonic()
        edges = (await self.ui.request("getEdges", {"page": 0}))["edges"]
        self.assertEqual([(e["id"], e["role"], e["isOnline"]) for e in edges], [(edge, "owner", True)])
        self.assertEqual((await self.ui.request("getEdge", {"edgeId": edge}))["edge"]["id"], edge)
        await self.ui.edge_rpc(edge, "getEdgeConfig")
        again = await self.ui.request("authenticateWithToken", {"token": token})
        self.assertEqual(again["user"]["id"], self.login)
        # A login begins anew.
        await self.watch(edge)
        await self.refused(self.ui.request("getUserInformation"), 1, "not available at the moment")
        await self.refused(self.ui.login("other@example.com", "secret"), 1)
        self.assertLess(time.monotonic() - began, 5.0)
        self.assertIn("Odoo", " ".join(self.metadata.health()))

        # Then PostgreSQL, too; edges go on reporting.
        await deferToThread(SERVICE.stop_postgres, self.running)
        user = await self.metadata.get_user_by_external_id(self.login)
        self.metadata.log_generic_system_log(edge, user, "Systemcommand: away", {})
        changed = Raw(b'{"components":{"_sum":{"alias":"changed","properties":{"a":1}}},"factories":{}}')
        self.backend.events.publish(ConfigReceived(self.devices[1][1], changed))
        await self.fleet._clients[1].stop()
        await self.until(lambda: not self.metadata.get_edge(self.devices[1][1]).online)
        await pause(3)
        self.ui.forget_pushes()
        await self.ui.push("currentData")
        await self.ui.edge_rpc(edge, "getEdgeConfig")
        self.assertGreaterEqual(self.metadata.writer.waiting, 1)
        self.assertEqual(self.metadata.system_log.waiting, 1)

        # A cold answer of a server that hangs is no answer; then both come back.
        await deferToThread(SERVICE.resume_postgres, self.running)
        await deferToThread(SERVICE.resume_odoo, self.running)
        self.inside = Inside(self.running)
        await self.until(lambda: self.metadata.system_log.written == 1, 45)
        await self.until(lambda: not self.shown(1)["openems_is_connected"])
        await self.until(lambda: "changed" in self.shown(1)["openems_config"])
        self.assertTrue(self.shown(0)["openems_is_connected"])
        _, name = self.inside.device()
        await self.until(lambda: self.metadata.get_edge(name), 45)
        await self.ui.request("getUserInformation")
        await self.ui.login(self.login, "secret")
        await self.until(lambda: not self.metadata.health())
        self.assertEqual(self.metadata.writer.dropped + self.metadata.configs.dropped, 0)

    async def test_started_before_postgres(self) -> None:
        """Q19, T007: metadata is initialised when edges are known, not before."""
        running = fresh("odoo")
        self.addCleanup(running.stop)
        inside = Inside(running)
        _, name = inside.device()
        await deferToThread(SERVICE.stop_postgres, running)
        metadata = await OdooCase.begin(self, running)  # type: ignore[arg-type]
        self.assertFalse(metadata.initialized)
        self.assertTrue(metadata.health())
        with self.assertRaises(OpenemsError):
            await metadata.logins.authenticate_with_password("a", "b", "192.0.2.1:1")
        await deferToThread(SERVICE.resume_postgres, running)
        await self.until(lambda: metadata.initialized, 45)
        self.assertIsNotNone(metadata.get_edge(name))

    async def test_stop_while_postgres_hangs(self) -> None:
        """It takes its few seconds and no more, and leaves nothing behind."""
        metadata = await OdooCase.begin(self, real("odoo"))  # type: ignore[arg-type]
        _, name = self.inside.device()
        await self.until(lambda: metadata.get_edge(name))
        metadata.writer._execute = lambda sql, parameters: Deferred()
        metadata.get_edge(name).set_online(True)
        began = time.monotonic()
        await metadata.stop()
        self.assertLess(time.monotonic() - began, 4.0)

    async def test_frozen_odoo(self) -> None:
        """Odoo takes the connection and says nothing: one deadline for the call, and all others go on."""
        running = fresh("odoo")
        self.addCleanup(running.stop)
        metadata = await OdooCase.begin(self, running)  # type: ignore[arg-type]
        _, login = self.inside.user()
        user = await metadata.get_user_by_external_id(login)
        process = running.info["odoo_process"]
        process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            self.assertEqual(await metadata.get_page(user, PageRequest(page=0)), [])
            self.assertLess(time.monotonic() - began, 12.0)
            self.assertEqual(metadata.rpc.exchange.concurrency.active, 0)
        finally:
            process.send_signal(signal.SIGCONT)
        await pause(0.5)
        self.assertEqual(await metadata.get_page(user, PageRequest(page=0)), [])
