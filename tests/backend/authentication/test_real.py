"""The rows of auth.md B that a real Keycloak has to show, and what it does when it changes, slows or stops."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.backend.authentication.keycloak.service import Keycloak
from openems.common import errors
from openems.common.errors import OpenemsError
from tests.backend.authentication.realserver import (
    OEMS,
    PASSWORD,
    USERS,
    Admin,
    form_login,
    token_request,
)
from tests.backend.authentication.test_registration import record
from tests.backend.authentication.world import CALLBACK, Metadata
from tests.real import real

reactor: Any = _reactor
MIA = "mia@example.com"
REMOTE = "192.0.2.1:4711"


class WithRealm(TestCase):
    """A realm of its own for each test, and the service against it."""

    #: The first one waits for Keycloak to start.
    timeout = 400
    changes: dict[str, Any] = {}

    def setUp(self) -> None:
        self.running = real("keycloak")
        self.admin = Admin(self.running.info)
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.realm = self.admin.make_realm(self.name, **self.changes)
        self.addCleanup(self.admin.remove_realm, self.name)
        self.metadata = Metadata()
        self.metadata.known |= {USERS["mia"], USERS["jan"]}
        self.exchanges: list[str] = []
        self.keycloak = self.make()

    def make(self, **options: Any) -> Keycloak:
        keycloak = Keycloak(
            self.realm, OEMS, self.metadata, reactor=reactor, now=time.time, user_registry=self.metadata,
            observe=lambda path, status, seconds: self.exchanges.append(f"{path.rpartition('/')[2]} {status}"),
            **options,
        )  # fmt: skip
        keycloak.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(keycloak.stop()))
        return keycloak

    async def code(self, oem: str = "openems", login: str = "mia") -> tuple[str, str]:
        """Identifier and code of a browser's login."""
        redirect = CALLBACK if oem == "openems" else "http://localhost:4300/oauthcallback"
        started = await self.keycloak.initiate_connect(oem, redirect, REMOTE)
        back = form_login(started.login_url, f"{login}@example.com")
        self.assertEqual(back["state"], started.state)
        return started.identifier, back["code"]

    async def log_in(self, oem: str = "openems", login: str = "mia") -> Any:
        identifier, code = await self.code(oem, login)
        return await self.keycloak.token_by_code(oem, identifier, code)

    async def refused(self, work: Any, code: int = errors.COMMON_AUTHENTICATION_FAILED) -> str:
        try:
            await work
        except OpenemsError as e:
            self.assertEqual(e.code, code)
            return f"{e.code} {e.message} {e.data}"
        raise AssertionError("not refused")


class Logins(WithRealm):
    async def test_s2_s3_the_stock_flow(self) -> None:
        identifier, code = await self.code()
        tokens = await self.keycloak.token_by_code("openems", identifier, code)
        self.assertEqual(tokens.user_id, USERS["mia"])
        await self.refused(self.keycloak.token_by_code("openems", identifier, code))
        again = await self.keycloak.token_by_refresh_token("openems", tokens.refresh_token)
        authenticated = await self.keycloak.authenticate_with_token(again.access_token)
        self.assertEqual((authenticated.user_id, authenticated.login), (USERS["mia"], MIA))

    async def test_s4_another_logins_code(self) -> None:
        identifier, _ = await self.code()
        _, code = await self.code(login="jan")
        await self.refused(self.keycloak.token_by_code("openems", identifier, code))

    async def test_s5_two_oems(self) -> None:
        self.assertEqual((await self.log_in("acme")).user_id, USERS["mia"])
        identifier, code = await self.code("acme")
        await self.refused(self.keycloak.token_by_code("openems", identifier, code))
        tokens = await self.log_in("acme")
        await self.refused(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        again = await self.keycloak.token_by_refresh_token("acme", tokens.refresh_token)
        self.assertEqual((await self.keycloak.authenticate_with_token(again.access_token)).user_id, USERS["mia"])

    async def test_s6_fragments_that_keycloak_would_take(self) -> None:
        await self.refused(self.keycloak.initiate_connect("openems", f"{CALLBACK}#x", REMOTE), 1)

    async def test_s8_tokens_that_are_none_of_ours(self) -> None:
        url = self.running.info["url"]
        given = {"grant_type": "password", "username": MIA, "password": PASSWORD, "scope": "openid"}
        foreign = token_request(url, self.name, client_id="foreign", client_secret="foreign-secret", **given)
        own = token_request(url, self.name, client_id="openems", client_secret="change-me-openems", **given)
        elliptic = token_request(url, self.name, client_id="foreign-es", client_secret="foreign-secret", **given)
        account = token_request(
            url, self.name, client_id="openems", client_secret="change-me-openems", grant_type="client_credentials"
        )
        other_realm = token_request(
            url, "master", client_id="admin-cli", username=self.running.info["admin"],
            password=self.running.info["password"], grant_type="password",
        )  # fmt: skip
        for token in (
            foreign["access_token"], elliptic["access_token"], own["id_token"], own["refresh_token"],
            account["access_token"], other_realm["access_token"],
        ):  # fmt: skip
            await self.refused(self.keycloak.authenticate_with_token(token))
        self.assertEqual((await self.keycloak.authenticate_with_token(own["access_token"])).user_id, USERS["mia"])

    async def test_s14_all_refusals_are_alike(self) -> None:
        told = set()
        for login, password in (
            ("mia", "wrong"), ("nobody", PASSWORD), ("disabled", PASSWORD), ("update", PASSWORD), ("noemail", "wrong"),
        ):  # fmt: skip
            told.add(
                await self.refused(self.keycloak.authenticate_with_password(f"{login}@example.com", password, REMOTE))
            )
        self.assertEqual(told, {"1003 Authentication failed []"})

    async def test_password(self) -> None:
        authenticated = await self.keycloak.authenticate_with_password("MIA@example.com", PASSWORD, REMOTE)
        self.assertEqual((authenticated.user_id, authenticated.login), (USERS["mia"], MIA))

    async def test_s17_logout(self) -> None:
        tokens = await self.log_in()
        await self.keycloak.logout(tokens.access_token)
        self.assertIn("logout 204", self.exchanges)
        # Another backend, which has not heard of it: Keycloak itself says no.
        other = self.make()
        await self.refused(other.token_by_refresh_token("openems", tokens.refresh_token))
        # The browser has to log in again.
        sessions = self.admin.ask("GET", f"/{self.name}/users/{USERS['mia']}/sessions")
        self.assertEqual(sessions, [])

    async def test_s17_logout_by_the_access_token_alone(self) -> None:
        tokens = await self.log_in()
        other = self.make()
        await other.logout(tokens.access_token)
        self.assertIn("{id} 204", self.exchanges)
        await self.refused(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))

    async def test_registration(self) -> None:
        new = record(email="Neu@example.com", password=PASSWORD)
        await self.keycloak.register_user(new)
        ((known, oem),) = self.metadata.registered
        self.assertEqual(oem, "openems")
        authenticated = await self.keycloak.authenticate_with_password("neu@example.com", PASSWORD, REMOTE)
        self.assertEqual(authenticated.user_id, known["oauthUid"])
        self.assertIn("Http 409 Conflict", await self.refused(self.keycloak.register_user(new), 1))
        await self.keycloak.register_user_if_not_exist(new)
        self.metadata.known.clear()
        await self.keycloak.register_user_if_not_exist(new)
        self.assertEqual(self.metadata.registered[-1][0]["oauthUid"], known["oauthUid"])

    async def test_s15_nothing_is_left_of_a_registration_that_fails(self) -> None:
        self.metadata.fail = ValueError("database")
        await self.refused(self.keycloak.register_user(record()), 1)
        self.assertEqual(
            self.admin.ask("GET", f"/{self.name}/users?email=jan@example.com&exact=true")[0]["id"], USERS["jan"]
        )
        await self.refused(
            self.keycloak.register_user(record(email="neu@example.com")), errors.COMMON_SERVICE_NOT_AVAILABLE
        )
        self.assertEqual(self.admin.ask("GET", f"/{self.name}/users?email=neu@example.com"), [])


class Locks(WithRealm):
    async def test_s13_one_mistyped_password_locks_nobody(self) -> None:
        """The stock UI sends it twice at once; Keycloak would lock the user for a minute."""
        for _ in range(2):
            await self.refused(self.keycloak.authenticate_with_password(MIA, "mistyped", REMOTE))
        await self.keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE)

    async def test_s13_two_different_ones_at_once_do_not_either(self) -> None:
        both = [Deferred.fromCoroutine(self.refused(
            self.keycloak.authenticate_with_password(MIA, f"wrong {n}", REMOTE))) for n in range(2)]  # fmt: skip
        await gatherResults(both)
        await deferLater(reactor, 1.2)
        await self.keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE)

    async def test_s13_a_locked_user_is_alone(self) -> None:
        status = f"/{self.name}/attack-detection/brute-force/users/{USERS['mia']}"
        for number in range(7):
            if self.admin.ask("GET", status)["disabled"]:
                break
            await self.refused(self.keycloak.authenticate_with_password(MIA, f"w{number}", f"192.0.2.{number}:1"))
        self.assertTrue(self.admin.ask("GET", status)["disabled"])
        locked = await self.refused(self.keycloak.authenticate_with_password(MIA, PASSWORD, "198.51.100.1:1"))
        self.assertEqual(locked, "1003 Authentication failed []")
        await self.keycloak.authenticate_with_password("jan@example.com", PASSWORD, REMOTE)


class Rotation(WithRealm):
    changes = {"revokeRefreshToken": True, "refreshTokenMaxReuse": 0}

    async def test_s19_parallel_refreshes(self) -> None:
        tokens = await self.log_in()
        self.exchanges.clear()
        both = [
            Deferred.fromCoroutine(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
            for _ in range(2)
        ]
        one, other = await gatherResults(both)
        self.assertEqual(one, other)
        late = await self.keycloak.token_by_refresh_token("openems", tokens.refresh_token)
        self.assertEqual(late, one)
        self.assertEqual([text for text in self.exchanges if "refresh" in text], ["token_refresh_token 200"])
        # And what they got is alive.
        await self.keycloak.token_by_refresh_token("openems", one.refresh_token)


class Addresses(WithRealm):
    """T093: browsers know Keycloak by another address than the backend."""

    changes = {"attributes": {"frontendUrl": "https://id.example.org"}}

    async def test_issuer_of_the_outside(self) -> None:
        error = await self.refused(self.keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE))
        self.assertEqual(error, "1003 Authentication failed []")
        self.realm = msgspec.structs.replace(self.realm, issuer=f"https://id.example.org/realms/{self.name}")
        self.keycloak = self.make()
        authenticated = await self.keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE)
        await self.keycloak.authenticate_with_token(authenticated.token)
        await self.keycloak.logout(authenticated.token)
        self.assertEqual(self.admin.ask("GET", f"/{self.name}/users/{USERS['mia']}/sessions"), [])


class Keys(WithRealm):
    async def test_s11_rotation(self) -> None:
        tokens = await self.log_in()
        old_key = self.admin.key_providers(self.name)[0]["id"]
        self.admin.add_key(self.name)
        fetched = self.exchanges.count("certs 200")
        new = await self.log_in()
        self.assertEqual(self.exchanges.count("certs 200"), fetched + 1)
        await self.keycloak.authenticate_with_token(new.access_token)
        await self.keycloak.authenticate_with_token(tokens.access_token)
        self.admin.ask("DELETE", f"/{self.name}/components/{old_key}")
        self.keycloak._jwks._begin()
        while self.keycloak._jwks._running is not None:
            await deferLater(reactor, 0.05)
        await self.refused(self.keycloak.authenticate_with_token(tokens.access_token))
        await self.keycloak.authenticate_with_token(new.access_token)
        # What the browser kept goes on, with the new key.
        again = await self.keycloak.token_by_refresh_token("openems", tokens.refresh_token)
        await self.keycloak.authenticate_with_token(again.access_token)


class Users(WithRealm):
    async def test_s16_disabled(self) -> None:
        tokens = await self.log_in()
        self.assertTrue(await self.keycloak.still_valid(tokens.access_token, "x"))
        path = f"/{self.name}/users/{USERS['mia']}"
        self.admin.ask("PUT", path, {**self.admin.ask("GET", path), "enabled": False})
        self.assertFalse(await self.keycloak.still_valid(tokens.access_token, "x"))
        await self.refused(self.keycloak.token_by_refresh_token("openems", tokens.refresh_token))
        self.admin.ask("DELETE", path)
        self.assertFalse(await self.keycloak.still_valid(tokens.access_token, "x"))


class Lifetimes(WithRealm):
    changes = {"accessTokenLifespan": 2}

    async def test_expiry(self) -> None:
        self.keycloak._tokens._leeway = 0
        tokens = await self.log_in()
        await self.keycloak.authenticate_with_token(tokens.access_token)
        await deferLater(reactor, 2.1)
        await self.refused(self.keycloak.authenticate_with_token(tokens.access_token))
        await self.keycloak.token_by_refresh_token("openems", tokens.refresh_token)
