"""A Keycloak that is slow, full or away, as UIs see it (auth.md S20, D)."""

from __future__ import annotations

from typing import Any

from openems.backend.authentication.keycloak.answers import LOGIN_TIMEOUT
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.testing.keycloak import rsa_key
from tests.backend.authentication.test_registration import record
from tests.backend.authentication.world import PASSWORD, WithUi
from tests.backend.ui.world import ID, failed

REFUSED = failed(1003, "Authentication failed")
LATER = failed(1006, "This service is currently not available. Please try again later")


class Slow(WithUi):
    def password(self, number: int) -> Any:
        """A connection from an address of its own that logs in by password."""
        self.fake.add_user(f"user{number}@example.com", PASSWORD)
        ui = self.world.connect(remote=f"198.51.{number // 250}.{number % 250}:1")
        ui.send("authenticateWithPassword", {"username": f"user{number}@example.com", "password": PASSWORD})
        return ui

    def oauth(self, ui: Any, method: str, **params: Any) -> None:
        payload = {"jsonrpc": "2.0", "id": ID, "method": method, "params": {"oem": "openems", **params}}
        ui.send("authenticateWithOAuth", {"payload": payload})

    def know_everybody(self) -> None:
        self.metadata.known |= set(self.fake.users)

    def answers(self, uis: list[Any]) -> list[Any]:
        """What came: True for a login, the reply for a refusal."""
        replies = [ui.connection.take() for ui in uis]
        return [reply if "error" in reply else True for (reply,) in replies]

    def test_s20_fifty_logins(self) -> None:
        """A Keycloak that answers after 1 s, after 4 s: all in about that time. Not one after the other."""
        self.open()
        for begun, delay in ((0, 1.0), (50, 4.0)):
            self.fake.delay = delay
            uis = [self.password(begun + number) for number in range(50)]
            self.know_everybody()
            self.fake.advance(delay - 0.1, step=0.1)
            self.assertEqual([ui.connection.take() for ui in uis], [[]] * 50)
            self.fake.advance(0.3, step=0.1)
            self.assertEqual(self.answers(uis), [True] * 50)

    def test_s20_five_hundred(self) -> None:
        """50 are asked for, 200 wait, the rest is refused at once."""
        self.open()
        self.fake.delay = 4.0
        uis = [self.password(number) for number in range(500)]
        self.know_everybody()
        self.fake.pump()
        self.assertEqual(self.answers(uis[250:]), [REFUSED] * 250)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/Rejected"], 250)
        # Those who wait have ten seconds, two rounds of four.
        self.fake.advance(8)
        self.assertEqual(self.answers(uis[:100]), [True] * 100)
        self.fake.advance(2)
        self.assertEqual(self.answers(uis[100:250]), [REFUSED] * 150)

    def test_s20_every_way_to_log_in(self) -> None:
        """Part D: 500, a page, an empty body, a redirect; no answer at all; too many."""
        self.open()
        html, json = {"content-type": "text/html"}, {"content-type": "application/json"}
        ways: list[Any] = [
            (500, json, b'{"error":"unknown_error"}'), (503, {}, b""), (200, html, b"<html>"), (200, json, b""),
            (302, {"location": "http://localhost:7900/"}, b""), (401, json, b'{"error":"unauthorized_client"}'), None,
        ]  # fmt: skip
        for number, way in enumerate(ways):
            self.fake.answer = lambda asked: None
            self.fake.delay = 0.0
            started = self.start_login(remote=f"203.0.113.{number}:1")
            code = self.fake.browser_login(started.login_url, self.mia)
            # A key that is not known yet: its set is not to be had either.
            self.fake.keys[f"new-{number}"] = rsa_key(1)
            self.fake.signing_kid = f"new-{number}"
            token = self.fake.access_token(self.mia)
            self.fake.signing_kid = "kid-1"
            self.fake.advance(20)
            if way is None:
                self.fake.delay = None
            else:
                self.fake.answer = lambda asked, way=way: way
            uis = [self.world.connect(remote=f"192.0.2.{number}:{port}") for port in range(5)]
            uis[0].send("authenticateWithPassword", {"username": "mia@example.com", "password": PASSWORD})
            uis[1].send("authenticateWithToken", {"token": token})
            self.oauth(uis[2], "getTokenByCode", identifier=started.identifier, code=code)
            self.oauth(uis[3], "getTokenByRefreshToken", refreshToken="r")
            user = record(email=f"new{number}@example.com")
            uis[4].send("registerUser", {"user": user, "oem": "openems"})
            self.fake.advance(LOGIN_TIMEOUT + 10)
            self.assertEqual(self.answers(uis), [REFUSED] * 4 + [LATER], way)
            self.assertTrue(self.keycloak.problems())

    def test_s20_is_no_wrong_attempt(self) -> None:
        """What nobody could judge keeps nobody out afterwards."""
        self.open()
        self.fake.answer = lambda asked: (503, {}, b"")
        for number in range(100):
            ui = self.world.connect()
            self.oauth(ui, "getTokenByRefreshToken", refreshToken=f"r{number}")
            self.fake.pump()
            self.assertEqual(self.answers([ui]), [REFUSED])
        self.fake.answer = lambda asked: None
        ui = self.world.connect()
        ui.send("authenticateWithPassword", {"username": "mia@example.com", "password": PASSWORD})
        self.fake.pump()
        self.assertEqual(self.answers([ui]), [True])

    def test_s20_one_deadline_for_a_login(self) -> None:
        """Attempts of one user come one after the other; nobody waits for all of them."""
        self.open()
        self.fake.delay = 9.0
        uis = []
        for number in range(6):
            ui = self.world.connect(remote=f"192.0.2.{number}:1")
            ui.send("authenticateWithPassword", {"username": "mia@example.com", "password": f"wrong {number}"})
            uis.append(ui)
        self.fake.advance(LOGIN_TIMEOUT)
        self.assertEqual(self.answers(uis), [REFUSED] * 6)
        self.fake.delay = 0.0
        self.fake.advance(60)

    def test_metadata_that_is_away_is_something_else(self) -> None:
        """ui.md 19, 6: the UI keeps its cookies."""
        self.open()
        self.metadata.fail = OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        ui = self.world.connect()
        ui.send("authenticateWithToken", {"token": self.fake.access_token(self.mia)})
        self.fake.pump()
        ((reply,),) = [ui.connection.take()]
        self.assertEqual(reply["error"]["code"], 1)
