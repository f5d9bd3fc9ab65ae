"""Sessions of the UI that end (auth.md S16, S17), and who may connect (S25)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.backend.authentication.world import PASSWORD, WithKeycloak
from tests.backend.ui.world import ID, World


class Sessions(WithKeycloak):
    """The UI's server before Keycloak; the users are those of Keycloak's tests."""

    def open(self, **options: Any) -> None:
        self.world = World(
            password=self.keycloak, code_flow=self.keycloak, registration=self.keycloak, reactor=self.clock, **options
        )
        self.world.clock = self.clock
        self.patch(self.world.metadata, "get_user_by_external_id", self.metadata.get_user_by_external_id)
        self.world.start()
        self.addCleanup(self.close)

    def close(self) -> None:
        stopped = Deferred.fromCoroutine(self.world.server.stop())
        self.fake.advance(5)
        self.successResultOf(stopped)

    def log_in_ui(self) -> Any:
        ui = self.world.connect()
        started = self.start_login()
        code = self.fake.browser_login(started.login_url, self.mia)
        payload = {
            "jsonrpc": "2.0", "id": ID, "method": "getTokenByCode",
            "params": {"oem": "openems", "identifier": started.identifier, "code": code},
        }  # fmt: skip
        ui.send("authenticateWithOAuth", {"payload": payload})
        self.fake.pump()
        (reply,) = ui.connection.take()
        self.assertIn("result", reply)
        return ui

    def test_s16_a_disabled_user(self) -> None:
        self.open()
        ui = self.log_in_ui()
        self.fake.advance(1000, step=5)
        self.assertFalse(ui.connection.dropped)
        self.fake.users[self.mia]["enabled"] = False
        self.fake.advance(920, step=5)
        self.assertTrue(ui.connection.dropped)
        # Without a Close frame: the stock UI comes back only then.
        self.assertIsNone(ui.connection.close_code)

    def test_s16_keycloak_is_down(self) -> None:
        """That nobody can tell ends no session."""
        self.open()
        ui = self.log_in_ui()
        self.fake.answer = lambda asked: (503, {}, b"")
        self.fake.advance(2000, step=5)
        self.assertFalse(ui.connection.dropped)

    def test_s16_the_interval(self) -> None:
        self.open(revalidation=30)
        ui = self.log_in_ui()
        self.fake.users[self.mia]["enabled"] = False
        self.fake.advance(45)
        self.assertTrue(ui.connection.dropped)

    def test_s16_age(self) -> None:
        self.open(max_session_age=3600)
        ui = self.log_in_ui()
        self.fake.advance(3500, step=5)
        self.assertFalse(ui.connection.dropped)
        self.fake.advance(120, step=5)
        self.assertTrue(ui.connection.dropped)
        self.assertIsNone(ui.session.user)

    def test_s17_a_session_ended_elsewhere(self) -> None:
        self.open()
        ui = self.log_in_ui()
        token = ui.session.token
        other = self.world.connect()
        other.send("authenticateWithToken", {"token": token})
        other.send("logout", {})
        self.fake.advance(1000, step=5)
        self.assertTrue(ui.connection.dropped)

    def test_s17_somebody_whom_metadata_does_not_know(self) -> None:
        """Gets nothing, and no session is left at Keycloak."""
        self.open()
        self.metadata.known.clear()
        ui = self.world.connect()
        ui.send("authenticateWithPassword", {"username": "mia@example.com", "password": PASSWORD})
        self.fake.pump()
        (reply,) = ui.connection.take()
        self.assertEqual(reply["error"]["code"], 1003)
        self.assertEqual(self.fake.sessions, {})

    def test_s17_no_push_after_a_logout(self) -> None:
        self.open()
        ui = self.log_in_ui()
        ui.connection.take()
        ui.send("subscribeEdges", {"edges": ["edge0"]})
        self.fake.pump()
        ui.send("logout", {})
        self.fake.pump()
        ui.connection.take()
        self.assertEqual(self.world.server.subscriptions.watchers("edge0"), ())
        self.assertEqual(self.fake.sessions, {})

    def test_s17_refresh_tokens_do_not_outlive_the_socket(self) -> None:
        self.open()
        ui = self.log_in_ui()
        self.assertEqual(len(self.keycloak._users.table), 1)
        ui.connection.lost()
        self.assertEqual(len(self.keycloak._users.table), 0)


class Origins(SynchronousTestCase):
    def admits(self, origins: list[str], headers: dict[str, str]) -> bool:
        return World(origins=origins).server._admits(headers)

    def test_s25(self) -> None:
        ours = ["https://ui.example.com/", "http://localhost:4200"]
        for origin, good in (
            ("https://ui.example.com", True), ("HTTPS://UI.example.com", True), ("http://localhost:4200", True),
            ("https://evil.example", False), ("https://ui.example.com.evil.example", False), ("null", False),
            ("http://ui.example.com", False), ("", False),
        ):  # fmt: skip
            self.assertEqual(self.admits(ours, {"origin": origin}), good, origin)
            self.assertTrue(self.admits([], {"origin": origin}))
        # What is no browser.
        self.assertTrue(self.admits(ours, {}))
