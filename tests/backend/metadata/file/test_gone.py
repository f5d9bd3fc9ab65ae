"""What is kept, and for how long, of edges and users that leave the metadata file (metadata.md 20.8)."""

import os
from typing import Any

from twisted.internet.defer import Deferred, execute

from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.file.state import TokenState
from openems.backend.models import User, UserAlertingSettings
from openems.common.role import Role
from tests.backend.metadata.file.test_model import EXAMPLE
from tests.backend.metadata.file.test_provider import NOW, ProviderTestCase

PROTOCOL = {"edge": {"id": "edge0"}, "customer": {"email": "somebody@example.org"}}


class TestGone(ProviderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(self.example(lambda body: body["edges"]["edge1"].update(setuppassword="open sesame, please")))
        self.provider = self.start()
        ops: User = self.user(self.provider, "ops@example.org")
        self.get(self.provider.submit_setup_protocol(ops, PROTOCOL))
        settings = [UserAlertingSettings(edge_id="edge0", user_login="ops@example.org", offline_delay=5)]
        self.get(self.provider.set_user_alerting_settings(ops, "edge0", settings))
        self.provider.users.state_of("mia@example.org").grants["edge0"] = "admin"
        self.protocol = os.path.join(self.provider.protocols.directory, "1.json")

    def after_a_quarter(self) -> None:
        self.clock.advance(91 * 86_400)
        self.get(self.provider.reload())

    def test_nothing_is_left_of_an_edge_after_90_days(self) -> None:
        self.write(self.example(lambda body: body["edges"].pop("edge0")))
        self.look()
        self.assertTrue(os.path.exists(self.protocol))
        self.after_a_quarter()
        state = self.provider.state
        self.assertEqual((state.edges, state.alerting, state.protocols), ({}, {}, {}))
        self.assertEqual(state.users["mia@example.org"].grants, {})
        self.assertFalse(os.path.exists(self.protocol))

    def test_that_left_while_nobody_looked(self) -> None:
        self.get(self.provider.stop())
        self.write(self.example(lambda body: body["edges"].pop("edge0")))
        self.provider = self.start()
        self.assertIn("edge0", self.provider.state.alerting)
        self.after_a_quarter()
        self.assertEqual(self.provider.state.alerting, {})
        self.assertFalse(os.path.exists(self.protocol))

    def test_disabled_is_not_gone(self) -> None:
        self.write(self.example(lambda body: body["edges"]["edge0"].update(enabled=False)))
        self.look()
        self.after_a_quarter()
        self.assertIn("edge0", self.provider.state.alerting)
        self.assertTrue(os.path.exists(self.protocol))


class TestUsers(ProviderTestCase):
    def provider_of(self, body: Any, **options: Any) -> tuple[FileMetadata, list[set[str]]]:
        self.write(body)
        provider = self.start(**options)
        ended: list[set[str]] = []
        provider.on_users_changed = ended.append
        return provider, ended

    def test_whoever_came_in_unchecked_goes_when_there_are_users(self) -> None:
        provider, ended = self.provider_of({"edges": EXAMPLE["edges"]}, allow_any_login=True)
        provider.state.tokens["x"] = TokenState(login="admin", created=NOW, used=NOW)
        users = {"admin": {"name": "A", "globalRole": "admin", "roles": {"*": "admin"}}}
        self.write({**EXAMPLE, "users": users})
        self.look()
        self.assertEqual(ended, [{"admin"}])
        self.assertEqual(provider.state.tokens, {})

    def test_sessions_of_a_checked_admin_survive_a_restart(self) -> None:
        users = {"admin": {"name": "A", "globalRole": "admin", "roles": {"*": "admin"}}}
        provider, _ = self.provider_of({**EXAMPLE, "users": users}, allow_any_login=True)
        provider.state.tokens["x"] = TokenState(login="admin", created=NOW, used=NOW)
        self.get(provider.stop())
        self.assertIn("x", self.start(allow_any_login=True).state.tokens)

    def test_a_grant_takes_nothing_away(self) -> None:
        provider, _ = self.provider_of(EXAMPLE)
        ops = self.user(provider, "ops@example.org")
        provider.users.state_of("ops@example.org").grants["edge0"] = "installer"
        self.assertIs(provider.get_user_role(ops, "edge0"), Role.ADMIN)

    def test_a_role_for_the_edge_goes_before_the_one_for_all(self) -> None:
        users = {"ops@example.org": {**EXAMPLE["users"]["ops@example.org"], "roles": {"*": "admin", "edge0": "guest"}}}
        provider, _ = self.provider_of({**EXAMPLE, "users": users})
        ops = self.user(provider, "ops@example.org")
        self.assertEqual([provider.get_user_role(ops, edge) for edge in ("edge0", "edge1")], [Role.GUEST, Role.ADMIN])
        provider.users.state_of("ops@example.org").grants["edge0"] = "installer"
        self.assertIs(provider.get_user_role(ops, "edge0"), Role.INSTALLER)


class TestAuditAtTheEnd(ProviderTestCase):
    def test_stop_waits_for_the_last_lines(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        disk: list[tuple[Any, Deferred[Any]]] = []

        def slow(f: Any) -> "Deferred[Any]":
            done: Deferred[Any] = Deferred()
            disk.append((f, done))
            return done

        provider.audit._in_thread = slow
        for number in range(3):
            provider.log_generic_system_log("edge0", self.user(provider), f"t{number}", {})
        stopping = Deferred.fromCoroutine(provider.stop())
        while disk:
            self.assertNoResult(stopping)
            write, done = disk.pop()
            done.callback(write())
        self.successResultOf(stopping)
        with open(provider.audit.path) as file:
            self.assertEqual(len(file.read().splitlines()), 3)

    def test_a_full_disk_is_said_once(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()

        def full(f: Any) -> "Deferred[Any]":
            return execute(_no_space)

        provider.audit._in_thread = full
        for _ in range(5):
            provider.log_generic_system_log("edge0", self.user(provider), "t", {})
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(provider.audit.dropped, 5)


def _no_space() -> None:
    raise OSError(28, "No space left on device")
