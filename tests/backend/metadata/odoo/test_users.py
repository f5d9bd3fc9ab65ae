"""Users, roles, logins and pages with a fake Odoo (metadata-odoo.md 11.1 to 11.3, 13, 20)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.events import EventBus
from openems.backend.metadata.odoo.edges import EdgeTable
from openems.backend.metadata.odoo.known import parse_user, settings_of
from openems.backend.metadata.odoo.logins import RENEW_AFTER, STALE, TRUST, OdooLogins
from openems.backend.metadata.odoo.pages import Pages, parameters, parse_device
from openems.backend.metadata.odoo.users import MISS, RENEW, Users
from openems.backend.models import OrderItem, PageRequest, User
from openems.common.errors import OpenemsError
from openems.common.role import Language, Level, Role
from openems.http.exchange import ExchangeError
from openems.testing.services import now_of
from tests.backend.metadata.odoo.fakes import (
    AUTHENTICATE,
    DENIED,
    EXPIRED,
    FakeExchange,
    failed,
    fault,
    ok,
    rpc_of,
    xml,
)
from tests.backend.metadata.odoo.test_edges import values

INFO = "/openems_backend/info"
GET_EDGES = "/openems_backend/get_edges"
SESSION_INFO = "/web/session/get_session_info"
UNKNOWN = failed("x.UserNotFoundOpenemsException", "User not found")
AWAY = ExchangeError("connection", "POST /x", "ConnectionRefusedError")


def user(login: str = "max@example.com", **more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "login": login,
        "name": "Max",
        "language": "EN",
        "global_role": "owner",
        "has_multiple_edges": False,
        "settings": "{}",
        "default_role": None,
        "roles": {"edge1": "owner"},
        **more,
    }


class World(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = FakeExchange()
        self.rpc = rpc_of(self.exchange, self.clock)
        self.table = EdgeTable(EventBus())
        self.table.replace([values(1), values(2)])
        self.users = Users(self.rpc, edge_name=self.table.name, reactor=self.clock)
        self.people = {"max@example.com": user()}

        def info(asked: Any) -> Any:
            found = self.people.get(asked["params"]["external_uid"])
            return UNKNOWN if found is None else ok({"user": found, "devices": []})

        self.exchange.answers[INFO] = info

    def max(self) -> User:
        return now_of(self.users.by_external_id("max@example.com")).user

    def count(self, path: str = INFO) -> int:
        return self.exchange.paths().count(path)


class Answers(SynchronousTestCase):
    def test_settings(self) -> None:
        """20, Q14."""
        for told, wanted in (
            (None, {}),
            ("{}", {}),
            ('{"a":1}', {"a": 1}),
            ("[]", {}),
            ("x{", {}),
            (False, {}),
            ({"a": 1}, {"a": 1}),
        ):
            self.assertEqual(settings_of(told), wanted)

    def test_lenient(self) -> None:
        known = parse_user("sub", user(language="JA", global_role="boss", settings=False, id="7"), 0.0)
        self.assertEqual((known.odoo_id, known.user.user_id, known.user.id), (7, "sub", "max@example.com"))
        self.assertEqual((known.user.language, known.user.global_role), (Language.DE, Role.GUEST))
        for told in (None, {}, {"id": 7}, {"login": "x"}, {"id": True, "login": "x"}):
            with self.assertRaises(OpenemsError):
                parse_user("sub", told, 0.0)

    def test_devices(self) -> None:
        """20."""
        device = {"id": 1, "name": "edge0", "comment": False, "producttype": "", "role": "guest"}
        found = parse_device({**device, "openems_sum_state_level": "ok"})
        self.assertEqual((found.name, found.comment, found.role, found.sum_state), ("edge0", "", Role.GUEST, Level.OK))
        self.assertEqual((found.lastmessage, found.first_setup_protocol, found.settings), (None, None, None))
        self.assertIs(parse_device({**device, "openems_sum_state_level": False}).sum_state, Level.OK)
        self.assertIs(parse_device({**device, "openems_sum_state_level": "fault"}).sum_state, Level.FAULT)
        self.assertEqual(parse_device({**device, "lastmessage": "2020-01-01 10:10:10"}).lastmessage, 1577873410000)
        for name, value in (("settings", False), ("first_setup_protocol_date", False), ("lastmessage", False)):
            parse_device({**device, name: value})
        for bad in ({}, None, {"name": "edge0"}, {"name": "edge0", "role": "boss"}):
            with self.assertRaises(ValueError):
                parse_device(bad)

    def test_parameters(self) -> None:
        """20: filters that are not set are left out."""
        self.assertEqual(
            parameters("u", PageRequest(page=0)), {"external_uid": "u", "page": 0, "limit": 20, "searchParams": {}}
        )
        asked = parameters("u", PageRequest(page=0, is_online=False, order=[OrderItem("id", True)], producttype=[]))
        self.assertEqual(
            asked["searchParams"], {"orderState": [{"field": "id", "sortOrder": "DESC"}], "isOnline": False}
        )


class Roles(World):
    def test_role_cache(self) -> None:
        """20: no I/O, whoever asks."""
        owner = self.max()
        before = len(self.exchange.asked)
        self.assertIs(self.users.role(owner, "edge1"), Role.OWNER)
        self.assertIsNone(self.users.role(owner, "edge2"))
        self.assertEqual(len(self.exchange.asked), before)

    def test_renewed_in_the_background(self) -> None:
        owner = self.max()
        self.people["max@example.com"] = user(roles={"edge1": "guest", "edge2": "owner"})
        self.clock.advance(RENEW - 1)
        self.assertIs(self.users.role(owner, "edge1"), Role.OWNER)
        self.clock.advance(2)
        self.assertIs(self.users.role(owner, "edge1"), Role.OWNER)
        self.assertIs(self.users.role(owner, "edge1"), Role.GUEST)

    def test_new_role_is_found_by_a_miss(self) -> None:
        """But not asked for again and again."""
        owner = self.max()
        self.people["max@example.com"] = user(roles={"edge1": "owner", "edge2": "owner"})
        self.clock.advance(MISS + 1)
        self.assertIsNone(self.users.role(owner, "edge2"))
        self.assertIs(self.users.role(owner, "edge2"), Role.OWNER)
        asked = self.count()
        for _ in range(100):
            self.users.role(owner, "edge9")
        self.assertEqual(self.count(), asked)

    def test_away(self) -> None:
        """What is known stays in force; nobody waits."""
        owner = self.max()
        self.exchange.answers[INFO] = AWAY
        self.clock.advance(RENEW + 1)
        for _ in range(3):
            self.assertIs(self.users.role(owner, "edge1"), Role.OWNER)
            self.clock.advance(60)
        self.assertEqual(now_of(self.users.by_external_id("max@example.com")).user.id, "max@example.com")

    def test_disabled_user(self) -> None:
        owner = self.max()
        del self.people["max@example.com"]
        self.clock.advance(RENEW + 1)
        self.users.role(owner, "edge1")
        self.assertIsNone(self.users.role(owner, "edge1"))
        with self.assertRaises(OpenemsError) as caught:
            now_of(self.users.by_external_id("max@example.com"))
        self.assertEqual(caught.exception.code, 1003)

    def test_a_wait_never_holds_a_lock(self) -> None:
        """Q2: a role is asked for while the user's answer is under way."""
        owner = self.max()
        waiting: Deferred = Deferred()
        self.exchange.answers[INFO] = waiting
        self.clock.advance(RENEW + 1)
        asking = Deferred.fromCoroutine(self.users.by_external_id("max@example.com"))
        self.assertIs(self.users.role(owner, "edge1"), Role.OWNER)
        waiting.callback(ok({"user": user(roles={"edge1": "guest"}), "devices": []}))
        self.successResultOf(asking)
        self.assertIs(self.users.role(owner, "edge1"), Role.GUEST)

    def test_notified(self) -> None:
        owner = self.max()
        self.people["max@example.com"] = user(roles={})
        self.users.roles_changed(99)
        self.assertIs(self.users.role(owner, "edge1"), Role.OWNER)
        self.users.roles_changed(7)
        self.assertIsNone(self.users.role(owner, "edge1"))

    def test_notified_while_asking(self) -> None:
        """The answer that is under way may be older than the change."""
        owner = self.max()
        waiting: Deferred = Deferred()
        answers, self.exchange.answers[INFO] = self.exchange.answers[INFO], waiting
        self.users.roles_changed(7)
        self.users.roles_changed(7)
        self.exchange.answers[INFO] = answers
        self.people["max@example.com"] = user(roles={})
        waiting.callback(ok({"user": user(), "devices": []}))
        self.users.role(owner, "edge1")
        self.assertIsNone(self.users.role(owner, "edge1"))

    def test_renamed(self) -> None:
        """His login changed in Odoo while he was logged in by a token: his roles, and no others', go on to be his."""
        self.people["subject"] = user()
        old = now_of(self.users.by_external_id("subject")).user
        self.people["subject"] = user("moritz@example.com")
        self.people["max@example.com"] = user(id=8, roles={"edge2": "owner"})
        self.clock.advance(RENEW + 1)
        self.assertIs(self.users.role(old, "edge1"), Role.OWNER)
        self.assertEqual(self.max().id, "max@example.com")
        self.assertIs(self.users.role(old, "edge1"), Role.OWNER)
        self.assertIsNone(self.users.role(old, "edge2"))
        self.assertEqual(now_of(self.users.odoo_id(old)), 7)
        self.people["subject"] = user("moritz@example.com", roles={})
        self.clock.advance(RENEW + 1)
        self.users.role(old, "edge1")
        self.assertIsNone(self.users.role(old, "edge1"))
        self.assertEqual((len(self.users), len(self.users._ids)), (2, 2))

    def test_old_addon(self) -> None:
        """Q3: it answers for the administrator whoever is asked about; nobody must become him."""
        self.exchange.answers[INFO] = ok({"user": user("admin", id=2, global_role="admin")})
        records = {
            "res.users.search_read": lambda asked: (
                fault(1, "Invalid field 'oauth_uid'")
                if asked[0][0][0][0] == "oauth_uid"
                else xml([{"id": 7, "login": "max@example.com", "name": "Max", "global_role": "owner"}])
            ),
            "openems.device_user_role.search_read": xml([{"id": 1, "device_id": [1, "edge1"], "role": "owner"}]),
            "ir.model.data.check_object_reference": xml(["res.groups", 5]),
            "res.users.search": xml([]),
        }
        self.exchange.answers.update(records)
        owner = self.max()
        self.assertEqual((owner.id, owner.global_role), ("max@example.com", Role.OWNER))
        self.assertIs(self.users.role(owner, "edge1"), Role.OWNER)
        self.assertIs(self.users.addon_answers, False)

    def test_bounded(self) -> None:
        from openems.backend.metadata.odoo import users as module

        self.patch(module, "MAX_USERS", 5)
        for number in range(20):
            login = f"u{number}@example.com"
            self.people[login] = user(login, id=number)
            now_of(self.users.by_external_id(login))
        self.assertEqual((len(self.users), len(self.users._ids)), (5, 5))


class Logins(World):
    def setUp(self) -> None:
        super().setUp()
        self.logins = OdooLogins(self.rpc, self.users, reactor=self.clock)
        self.exchange.answers[AUTHENTICATE] = self.authenticate
        self.sessions = {"1" * 40: "max@example.com"}
        self.exchange.answers[SESSION_INFO] = lambda asked: ok(self.session())
        self.exchange.answers["/web/session/destroy"] = ok({})

    def session(self, **more: Any) -> dict[str, Any]:
        return {"uid": 7, "username": "max@example.com", "openems": user(), **more}

    def authenticate(self, asked: Any) -> Any:
        params = asked["params"]
        if params["login"] == "admin":
            return ok({"uid": 2, "username": "admin"}, "session_id=" + "a" * 40)
        return ok(self.session(), "session_id=" + "1" * 40) if params["password"] == "secret" else DENIED

    def login(self, password: str = "secret", name: str = "max@example.com") -> Deferred:
        return Deferred.fromCoroutine(self.logins.authenticate_with_password(name, password, "192.0.2.1:7"))

    def test_one_request(self) -> None:
        done = self.successResultOf(self.login())
        self.assertEqual((done.user_id, done.token), ("max@example.com", "1" * 40))
        self.max()
        self.assertEqual(self.exchange.paths(), [AUTHENTICATE])

    def test_answer_about_another(self) -> None:
        """The session's uid counts, not what somebody says."""
        self.exchange.answers[AUTHENTICATE] = ok(self.session(openems=user("admin", id=2)), "session_id=" + "1" * 40)
        failure = self.failureResultOf(self.login())
        self.assertEqual(failure.value.code, 1003)

    def test_addon_without_session_info(self) -> None:
        self.exchange.answers[AUTHENTICATE] = ok({"uid": 7, "username": "max@example.com"}, "session_id=" + "1" * 40)
        self.successResultOf(self.login())
        # Asked about nobody, once, and about him, with the administrator's session.
        self.assertEqual(self.count(), 2)
        self.assertEqual(self.max().id, "max@example.com")

    def test_throttled(self) -> None:
        """S13: a repetition is no attempt, further ones wait longer and longer."""
        self.assertEqual(self.failureResultOf(self.login("wrong")).value.code, 1003)
        self.assertEqual(self.failureResultOf(self.login("wrong")).value.code, 1003)
        self.assertEqual(self.count(AUTHENTICATE), 1)
        for number in range(2):
            self.failureResultOf(self.login(f"wrong{number}"))
        waiting = self.login("wrong9")
        self.assertNoResult(waiting)
        self.clock.advance(60)
        self.failureResultOf(waiting)

    def test_success_in_between(self) -> None:
        """Before Odoo refuses everybody, the administrator logs in."""
        for number in range(RENEW_AFTER):
            self.failureResultOf(
                Deferred.fromCoroutine(
                    self.logins.authenticate_with_password(f"u{number}", "wrong", f"192.0.2.{number}:1")
                )
            )
        self.assertEqual([a[1]["params"]["login"] for a in self.exchange.asked][-1], "admin")

    def test_away(self) -> None:
        """No verdict: 1006, and a token that was good just now still is."""
        token = self.successResultOf(self.login()).token
        self.exchange.answers[AUTHENTICATE] = self.exchange.answers[SESSION_INFO] = AWAY
        self.assertEqual(self.failureResultOf(self.login("other")).value.code, 1006)
        self.clock.advance(TRUST + 1)
        self.assertEqual(now_of(self.logins.authenticate_with_token(token)).user_id, "max@example.com")
        self.clock.advance(STALE)
        with self.assertRaises(OpenemsError) as caught:
            now_of(self.logins.authenticate_with_token(token))
        self.assertEqual(caught.exception.code, 1006)

    def test_client_that_sends_its_password_each_time(self) -> None:
        """One session of Odoo, whatever the time; a changed password is noticed."""
        uid: list[Any] = [7]
        self.exchange.answers["/xmlrpc/2/common"] = lambda asked: xml(uid[0])
        token = self.successResultOf(self.login()).token
        for _ in range(5):
            self.clock.advance(TRUST + 1)
            self.assertEqual(self.successResultOf(self.login()).token, token)
        self.assertEqual(self.count(AUTHENTICATE), 1)
        self.clock.advance(TRUST + 1)
        uid[0] = False
        self.assertEqual(self.failureResultOf(self.login()).value.code, 1003)
        # The session ended: a new one.
        self.clock.advance(TRUST + 1)
        self.successResultOf(self.login())
        uid[0] = 7
        self.exchange.answers[SESSION_INFO] = EXPIRED
        self.clock.advance(TRUST + 1)
        self.successResultOf(self.login())
        self.assertEqual(self.count(AUTHENTICATE), 3)

    def test_logout(self) -> None:
        """Q5: the session itself ends; the user's other ones go on."""
        token = self.successResultOf(self.login()).token
        now_of(self.logins.logout(token))
        self.assertEqual(self.exchange.asked[-1], ("/web/session/destroy", {}, f"session_id={token}"))
        self.assertIs(self.users.role(self.max(), "edge1"), Role.OWNER)
        before = len(self.exchange.asked)
        now_of(self.logins.logout("x\r\ny"))
        self.assertEqual(len(self.exchange.asked), before)


class ListOfEdges(World):
    def setUp(self) -> None:
        super().setUp()
        self.wanted: list[int] = []
        self.pages = Pages(self.rpc, self.users, self.table, wanted=lambda: self.wanted.append(1))
        self.owner = self.max()

    def page(self, **more: Any) -> list[dict[str, Any]]:
        return now_of(self.pages.page(self.owner, PageRequest(page=0, **more)))

    def test_unknown_and_bad_devices(self) -> None:
        """Q1, T035: they spoil nothing, and a new one is looked for."""
        devices = [{"name": "edge1", "role": "owner"}, {"name": "edge99", "role": "guest"}, {"name": "x"}, None]
        self.exchange.answers[GET_EDGES] = ok({"devices": devices})
        self.assertEqual([(e["id"], e["isOnline"]) for e in self.page()], [("edge1", False), ("edge99", False)])
        self.assertEqual(self.wanted, [1])

    def test_fresher_here(self) -> None:
        """Q34."""
        edge = self.table.edges["edge1"]
        edge.set_online(True)
        edge.set_sum_state(Level.FAULT)
        edge.set_lastmessage(1577873460000)
        device = {"name": "edge1", "role": "owner", "lastmessage": "2020-01-01 10:00:00"}
        device["openems_sum_state_level"] = "ok"
        self.exchange.answers[GET_EDGES] = ok({"devices": [device]})
        shape = self.page()[0]
        self.assertEqual((shape["sumState"], shape["isOnline"]), ("FAULT", True))
        self.assertEqual(shape["lastmessage"], "2020-01-01T10:11:00Z")

    def test_roles_are_learnt(self) -> None:
        self.exchange.answers[GET_EDGES] = ok({"devices": [{"name": "edge2", "role": "installer"}]})
        self.page()
        self.assertIs(self.users.role(self.owner, "edge2"), Role.INSTALLER)
        self.exchange.answers["/openems_backend/get_edge_with_role"] = ok({})
        with self.assertRaises(OpenemsError) as caught:
            now_of(self.pages.edge(self.owner, "edge2"))
        self.assertEqual(caught.exception.message, "Unable to find edge with id [edge2]")
        self.assertIsNone(self.users.role(self.owner, "edge2"))

    def test_from_memory(self) -> None:
        self.exchange.answers[GET_EDGES] = AWAY
        self.assertEqual([(e["id"], e["role"]) for e in self.page()], [("edge1", "owner")])
        self.users.forget("max@example.com")
        with self.assertRaises(OpenemsError):
            self.page()
