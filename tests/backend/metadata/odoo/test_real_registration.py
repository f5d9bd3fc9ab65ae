"""A new user in both real services: an account at Keycloak, linked in Odoo, or in neither (auth.md 8.6, 9, S15)."""

from __future__ import annotations

import secrets
from typing import Any

from twisted.internet.threads import deferToThread

from openems.common import jsonrpc
from tests.backend.authentication.realserver import form_login
from tests.backend.authentication.test_registration import record
from tests.backend.metadata.odoo.test_real_endtoend import World
from tests.backend.metadata.odoo.world import Inside
from tests.real import real

ORIGIN = "http://127.0.0.1:4298"
PASSWORD = "correct horse"


class Registration(World):
    timeout = 400

    async def start(self, provider: str) -> None:
        """``provider``: which auth.oauth.provider the configuration names."""
        odoo = f'authOAuthProviderName = "{provider}"\nenablePasswordAuthentication = false'
        await self.begin(real("odoo"), 1, self.keycloak(ORIGIN), odoo)

    def new_provider(self) -> tuple[int, str]:
        name = f"Keycloak {secrets.token_hex(4)}"
        values = {"name": name, "auth_endpoint": ORIGIN, "validation_endpoint": ORIGIN, "body": name}
        return Inside(real("odoo")).execute("auth.oauth.provider", "create", values), name

    def accounts(self, email: str) -> list[dict[str, Any]]:
        """At Keycloak."""
        found: list[dict[str, Any]] = self.admin.ask("GET", f"/{self.realm}/users?email={email}&exact=true")
        return found

    def linked(self, email: str) -> list[dict[str, Any]]:
        """In Odoo."""
        fields = ["login", "oauth_uid", "oauth_provider_id", "global_role"]
        found: list[dict[str, Any]] = self.inside.execute(
            "res.users", "search_read", [["login", "=", email]], fields=fields
        )
        return found

    async def oauth(self, method: str, **params: Any) -> Any:
        payload = {"jsonrpc": "2.0", "method": method, "params": {"oem": "openems", **params}, "id": jsonrpc.new_id()}
        return await self.ui.request("authenticateWithOAuth", {"payload": payload})

    async def edges(self) -> list[tuple[str, str]]:
        return [(e["id"], e["role"]) for e in (await self.ui.request("getEdges", {"page": 0}))["edges"]]

    async def test_registered_logged_in_and_at_work(self) -> None:
        provider, name = self.new_provider()
        await self.start(name)
        email = f"neu-{secrets.token_hex(4)}@example.com"
        user = {**record(email=email.capitalize(), password=PASSWORD), "confirmPassword": PASSWORD}
        self.assertEqual(await self.ui.request("registerUser", {"user": user, "oem": "OpenEMS"}), {})
        (account,), (linked,) = self.accounts(email), self.linked(email)
        self.assertEqual((account["firstName"], account["enabled"]), ("Jan", True))
        self.assertEqual((linked["oauth_uid"], linked["oauth_provider_id"][0]), (account["id"], provider))
        self.assertEqual(linked["global_role"], "installer")

        started = await self.oauth("initiateConnect", redirectUri=f"{ORIGIN}/")
        back = await deferToThread(form_login, started["loginUrl"], email, PASSWORD)
        done = await self.oauth("getTokenByCode", identifier=started["identifier"], code=back["code"])
        self.assertEqual(done["user"]["id"], email)
        self.assertEqual(await self.edges(), [])
        # Whoever has the setup password of an edge gets it.
        edge = self.devices[0][1]
        added = await self.ui.request("addEdgeToUser", {"setupPassword": f"setup-{edge}"})
        self.assertEqual(added["edge"]["id"], edge)
        self.assertEqual(await self.edges(), [(edge, "installer")])
        # The same by password: it is Keycloak's, Odoo keeps none.
        await self.ui.request("logout")
        self.assertEqual((await self.ui.login(email, PASSWORD))["user"]["id"], email)
        self.assertEqual(await self.edges(), [(edge, "installer")])
        # A second time: nothing changes.
        error = await self.refused(self.ui.request("registerUser", {"user": user, "oem": "OpenEMS"}), 1)
        self.assertEqual(error.message, "Http 409 Conflict")
        self.assertEqual([each["id"] for each in self.accounts(email)], [account["id"]])

    async def test_odoo_refuses(self) -> None:
        """Whatever its reason, no account stays at Keycloak."""
        await self.start("There is no such provider")
        email = f"neu-{secrets.token_hex(4)}@example.com"
        user = record(email=email, password=PASSWORD)
        error = await self.refused(self.ui.request("registerUser", {"user": user, "oem": "OpenEMS"}), 1)
        self.assertIn("OAuth Provider not found", error.message)
        self.assertEqual((self.accounts(email), self.linked(email)), ([], []))
        # Odoo has a user of that name already, who is nobody's at Keycloak.
        user = record(email=self.login, password=PASSWORD)
        error = await self.refused(self.ui.request("registerUser", {"user": user, "oem": "OpenEMS"}), 1)
        self.assertIn("User already exists", error.message)
        self.assertEqual(self.accounts(self.login), [])
        assert self.backend.oauth is not None
        figures = self.backend.oauth.debug_metrics()
        self.assertEqual((figures["auth0/Undone"], figures["auth0/LeftOver"]), (2, 0))
