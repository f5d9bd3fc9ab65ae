"""Sessions of the UI that end (auth.md S16, S17), and who may connect (S25)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.backend.authentication.world import PASSWORD, WithUi
from tests.backend.ui.world import World


class Sessions(WithUi):
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

    def test_s16_keycloak_does_not_answer(self) -> None:
        self.open(revalidation=30)
        ui = self.log_in_ui()
        self.fake.delay = None
        self.fake.advance(200)
        self.assertFalse(ui.connection.dropped)

        async def never(token: str) -> bool:
            await Deferred()
            return False

        self.patch(self.keycloak._users, "still_valid", never)
        self.fake.advance(200)
        self.assertFalse(ui.connection.dropped)
        ui.connection.lost()
        self.fake.advance(30)

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
