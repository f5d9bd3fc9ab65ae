"""The whole backend with a real Keycloak: a browser logs in on Keycloak's own page, an edge gets tokens."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from openems.application import config
from openems.application.backend import Backend
from openems.application.service import now_milliseconds
from openems.backend.authentication.keycloak.pending import code_challenge
from openems.common import jsonrpc
from openems.common.errors import OpenemsError
from openems.testing.uiclient import UiClient
from openems.websocket.client import ReconnectingClient
from tests.application.ports import free_offset
from tests.backend.authentication.browser import Browser
from tests.backend.authentication.realserver import PASSWORD, USERS, Admin, document, form_login
from tests.real import real

reactor: Any = _reactor
PAGE = Path(__file__).with_name("page.html")


class Page(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.port = 0

    def render_GET(self, request: Any) -> bytes:
        if request.path == b"/favicon.ico":
            request.setResponseCode(404)
            return b""
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return PAGE.read_bytes().replace(b"@PORT@", str(self.port).encode())


class WithBackend(TestCase):
    #: The first one waits for Keycloak to start.
    timeout = 400

    async def start(self, extra: str = "", **changes: Any) -> None:
        self.running = real("keycloak")
        self.admin = Admin(self.running.info)
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.page = Page()
        site = Site(self.page)
        site.noisy = False
        site.log = lambda request: None
        listener = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(listener.stopListening)
        self.origin = f"http://127.0.0.1:{listener.getHost().port}"
        realm = document(self.name, **changes)
        for client in realm["clients"]:
            client["redirectUris"] = [f"{self.origin}/*"]
        self.admin.ask("POST", "", realm)
        self.addCleanup(self.admin.remove_realm, self.name)
        self.state = os.path.abspath(self.mktemp())
        os.makedirs(self.state)
        users = {
            "mia": {
                "name": "Mia Müller", "externalIds": [USERS["mia"]], "globalRole": "owner", "language": "DE",
                "roles": {"edge0": "owner"},
            },
            "jan": {"name": "Jan", "externalIds": [USERS["jan"]], "globalRole": "guest", "roles": {"edge1": "guest"}},
        }  # fmt: skip
        metadata = {
            "version": 2,
            "users": users,
            "edges": {
                f"edge{n}": {
                    "comment": f"Edge {n}",
                    "producttype": "",
                    "setuppassword": "",
                    "apikey": f"key-{n}-{'0' * 20}",
                }
                for n in range(2)
            },
        }
        Path(self.state, "metadata.json").write_text(json.dumps(metadata))
        url, oidc = self.running.info["url"], f"{self.running.info['url']}/realms/{self.name}/protocol/openid-connect"
        text = f"""
            [backend]
            stateDir = "{self.state}"
            offset = {free_offset()}
            interface = "127.0.0.1"
            [edge]
            [ui.websocket]
            origins = ["{self.origin}"]
            revalidation = 10
            [metadata.file]
            path = "{self.state}/metadata.json"
            [authentication.oauth]
            realm = "{self.name}"
            baseKeycloakUrl = "{url}"
            issuerUrl = "{url}/realms/{self.name}"
            loginUrl = "{oidc}/auth"
            tokenUrl = "{oidc}/token"
            certsUrl = "{oidc}/certs"
            [[authentication.oauth.clientconfig]]
            clientSecret = "change-me-openems"
            redirectUri = "{self.origin}/"
            serviceAccount = true
            [[authentication.oauth.clientconfig]]
            oem = "acme"
            clientId = "acme"
            clientSecret = "change-me-acme"
            redirectUri = "{self.origin}/"
            {extra.format(oidc=oidc, origin=self.origin)}
        """
        self.backend = Backend(config.parse(text, "test"), reactor=reactor, now=now_milliseconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.backend.stop()))
        await self.backend.start()
        await self.backend.listening()
        self.page.port = self.backend.ports["ui.websocket"]

    async def until(self, condition: Any, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "waited in vain")
            await deferLater(reactor, 0.05)

    async def ui(self) -> UiClient:
        client = UiClient(f"ws://127.0.0.1:{self.page.port}", reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        await client.connect()
        return client


class InTheBrowser(WithBackend):
    async def test_login(self) -> None:
        real("chromium")
        await self.start()
        browser = await deferToThread(Browser)
        self.addCleanup(deferToThread, browser.close)
        await deferToThread(browser.open, f"{self.origin}/")
        await deferToThread(browser.wait, "#kc-login")
        await deferToThread(browser.type, "#username", "mia@example.com")
        await deferToThread(browser.type, "#password", PASSWORD)
        await deferToThread(browser.click, "#kc-login")
        await deferToThread(browser.wait, "#state", "authenticated")
        result = json.loads(await deferToThread(browser.text, "#result"))
        self.assertEqual(result["edges"], ["edge0"])
        self.assertEqual((result["user"]["id"], result["user"]["globalRole"]), ("mia", "owner"))
        # The second OEM of the same realm knows her already.
        await deferToThread(browser.open, f"{self.origin}/?oem=acme")
        await deferToThread(browser.wait, "#state", "authenticated")
        # S16: she is disabled, and her session ends without a Close frame.
        path = f"/{self.name}/users/{USERS['mia']}"
        await deferToThread(lambda: self.admin.ask("PUT", path, {**self.admin.ask("GET", path), "enabled": False}))
        await deferToThread(browser.wait, "#state", "closed false", 40.0)


class WithoutBrowser(WithBackend):
    def oauth(self, ui: UiClient, method: str, params: dict[str, Any]) -> Any:
        payload = {"jsonrpc": "2.0", "method": method, "params": params, "id": jsonrpc.new_id()}
        return ui.request("authenticateWithOAuth", {"payload": payload})

    async def test_messages(self) -> None:
        await self.start()
        first = await self.ui()
        redirect = f"{self.origin}/oauthcallback"
        started = await self.oauth(first, "initiateConnect", {"oem": "openems", "redirectUri": redirect})
        code = form_login(started["loginUrl"], "mia@example.com")["code"]
        second = await self.ui()
        params = {"identifier": started["identifier"], "code": code, "oem": "openems"}
        login = await self.oauth(second, "getTokenByCode", params)
        self.assertEqual(sorted(login), ["accessToken", "refreshToken", "user"])
        self.assertEqual((await second.request("getEdge", {"edgeId": "edge0"}))["edge"]["id"], "edge0")
        # Two tabs with the same cookie.
        refresh = {"oem": "openems", "refreshToken": login["refreshToken"]}
        third = await self.ui()
        again = await self.oauth(third, "getTokenByRefreshToken", refresh)
        self.assertEqual(again["user"], login["user"])
        self.assertEqual((await third.request("authenticateWithToken", {"token": again["accessToken"]}))["edges"], [])
        # S17: nothing is left of it.
        await third.request("logout")
        await self.until(lambda: not self.admin.ask("GET", f"/{self.name}/users/{USERS['mia']}/sessions"))
        with self.assertRaises(OpenemsError) as caught:
            await self.oauth(second, "getTokenByRefreshToken", {**refresh, "refreshToken": again["refreshToken"]})
        self.assertEqual(caught.exception.code, 1003)
        self.assertTrue(all(part.ok for part in self.backend.health().values()), self.backend.health())
        self.assertNotIn("change-me", repr(self.backend.configuration))

    async def test_passwords(self) -> None:
        await self.start()
        ui = await self.ui()
        login = await ui.login("jan@example.com", PASSWORD)
        self.assertEqual(login["user"]["id"], "jan")
        # S14: all refusals are the same; "unknown" is known to Keycloak and not to metadata.
        for login, password in (
            ("jan", "wrong"), ("nobody", PASSWORD), ("disabled", PASSWORD), ("update", PASSWORD), ("unknown", PASSWORD),
        ):  # fmt: skip
            with self.assertRaises(OpenemsError) as caught:
                await ui.login(f"{login}@example.com", password)
            error = caught.exception
            self.assertEqual((error.code, error.message, error.data), (1003, "Authentication failed", []), login)
        # And no session is left of the one whose password was right.
        path = f"/{self.name}/users/{USERS['unknown']}/sessions"
        await self.until(lambda: not self.admin.ask("GET", path))

    async def test_an_edge_gets_tokens(self) -> None:
        """The registry with Keycloak as the third party (auth.md 8.7, 14); the edge makes verifier and state."""
        await self.start(
            """
            [[oauthregistry.client]]
            identifier = "luox_prod"
            authenticationUrl = "{oidc}/auth"
            tokenUrl = "{oidc}/token"
            clientId = "acme"
            clientSecret = "change-me-acme"
            redirectUri = "{origin}/"
            edges = ["edge0"]
            scopes = ["openid", "profile"]
            """
        )
        edge = await self.edge(0)
        start = await self.registry(edge, "getInitMetadata", identifier="luox_prod")
        self.assertEqual(sorted(start), ["authenticationUrl", "clientId", "redirectUrl"])
        verifier = "v" * 43
        query = {
            "client_id": start["clientId"], "redirect_uri": start["redirectUrl"], "response_type": "code",
            "scope": "openid profile", "state": "s", "code_challenge": code_challenge(verifier),
            "code_challenge_method": "S256",
        }  # fmt: skip
        code = form_login(f"{start['authenticationUrl']}?{urlencode(query)}", "mia@example.com")["code"]
        scopes = ["openid", "profile"]
        params = {"identifier": "luox_prod", "code": code, "codeVerifier": verifier, "scopes": scopes}
        tokens = await self.registry(edge, "getTokenByCode", **params)
        again = await self.registry(
            edge, "getTokenByRefreshToken", identifier="luox_prod", refreshToken=tokens["refreshToken"], scopes=scopes
        )
        self.assertEqual(sorted(again), ["accessToken", "refreshToken"])
        with self.assertRaises(OpenemsError) as caught:
            await self.registry(edge, "getTokenByCode", **params)
        self.assertEqual(caught.exception.message, "Http 400 Bad Request")
        other = await self.edge(1)
        with self.assertRaises(OpenemsError) as caught:
            await self.registry(other, "getInitMetadata", identifier="luox_prod")
        self.assertIn("Unable to find OAuth client", caught.exception.message)

    async def edge(self, number: int) -> ReconnectingClient:
        client = ReconnectingClient(
            f"ws://127.0.0.1:{self.backend.ports['edge']}", {"apikey": f"key-{number}-{'0' * 20}"}, lambda _: Edge(),
            reactor=reactor, min_wait=60, max_wait=60, name="Edge",
        )  # fmt: skip
        client.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(client.stop()))
        await self.until(
            lambda: client.connection is not None and self.backend.edge_manager.is_connected(f"edge{number}")
        )
        return client

    async def registry(self, edge: ReconnectingClient, method: str, **params: Any) -> Any:
        payload = {"jsonrpc": "2.0", "method": method, "params": params, "id": jsonrpc.new_id()}
        assert edge.connection is not None
        return jsonrpc.loads(await edge.connection.request("oauthRegistry", {"payload": payload}))


class Edge:
    def opened(self) -> None: ...

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Any) -> None: ...

    def notification(self, notification: Any) -> None: ...

    def closed(self) -> None: ...
