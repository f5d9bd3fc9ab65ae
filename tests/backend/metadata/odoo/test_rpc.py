"""The client of Odoo: one session, one deadline (metadata-odoo.md 7.3, 8; odoo-keycloak-verified.md 1.3)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata.odoo.replies import OdooUnavailable, Refused, RouteMissing
from openems.backend.metadata.odoo.rpc import FIRST_PAUSE, WEB_SECONDS
from openems.http.exchange import ExchangeError, Reply
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

INFO = "/openems_backend/info"


class Rpc(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = FakeExchange()
        self.rpc = rpc_of(self.exchange, self.clock)

    def call(self) -> Deferred:
        return Deferred.fromCoroutine(self.rpc.call(INFO, {"external_uid": "x"}))

    def test_login_body(self) -> None:
        """20: the login in lower case, nothing else in the body."""
        now_of(self.rpc.log_in("Max@Example.com", "x"))
        body = {
            "jsonrpc": "2.0",
            "method": "call",
            "params": {"db": "prod", "login": "max@example.com", "password": "x"},
        }
        self.assertEqual(self.exchange.asked, [(AUTHENTICATE, body, None)])

    def test_one_session(self) -> None:
        self.exchange.answers[INFO] = ok({"a": 1})
        for _ in range(3):
            self.assertEqual(now_of(self.rpc.call(INFO, {"external_uid": "x"})), {"a": 1})
        self.assertEqual(self.exchange.paths(), [AUTHENTICATE, INFO, INFO, INFO])
        self.assertEqual(self.exchange.asked[1][1:], ({"params": {"external_uid": "x"}}, "session_id=" + "a" * 40))

    def test_login_is_shared(self) -> None:
        """Also when who began it gives up."""
        waiting: Deferred = Deferred()
        self.exchange.answers.update({AUTHENTICATE: waiting, INFO: ok({"a": 1})})
        calls = [self.call() for _ in range(5)]
        calls[0].cancel()
        self.failureResultOf(calls[0])
        waiting.callback(ok({"uid": 2}, "session_id=" + "b" * 40))
        for call in calls[1:]:
            self.assertEqual(self.successResultOf(call), {"a": 1})
        self.assertEqual(self.exchange.paths().count(AUTHENTICATE), 1)

    def test_expired(self) -> None:
        """20: one new login and one repetition, a second failure is final, the next request works again."""
        self.exchange.answers[INFO] = [EXPIRED, ok({"a": 1})]
        self.assertEqual(self.successResultOf(self.call()), {"a": 1})
        self.exchange.answers[INFO] = [EXPIRED, EXPIRED, ok({"a": 2})]
        self.failureResultOf(self.call())
        self.assertEqual(self.successResultOf(self.call()), {"a": 2})

    def test_cookie_proves_nothing(self) -> None:
        """A refusal sets one, too; a user with a second factor has no uid."""
        self.exchange.answers[AUTHENTICATE] = DENIED
        self.failureResultOf(Deferred.fromCoroutine(self.rpc.log_in("a", "b")), Refused)
        self.exchange.answers[AUTHENTICATE] = ok({"uid": None}, "session_id=" + "e" * 40)
        self.failureResultOf(Deferred.fromCoroutine(self.rpc.log_in("a", "b")), Refused)
        before = len(self.exchange.asked)
        for login, password in (("", "x"), (" ", "x"), ("x", "")):
            self.failureResultOf(Deferred.fromCoroutine(self.rpc.log_in(login, password)), Refused)
        self.assertEqual(len(self.exchange.asked), before)

    def test_refused_administrator_is_not_hammered(self) -> None:
        self.exchange.answers[AUTHENTICATE] = DENIED
        for _ in range(5):
            self.failureResultOf(self.call(), OdooUnavailable)
        self.assertEqual(len(self.exchange.asked), 1)
        self.assertIn("refuses login and password of admin", self.rpc.down)
        self.clock.advance(FIRST_PAUSE)
        self.exchange.answers.update({AUTHENTICATE: ok({"uid": 2}), INFO: ok({"a": 1})})
        self.assertEqual(self.successResultOf(self.call()), {"a": 1})
        self.assertIsNone(self.rpc.down)

    def test_one_deadline(self) -> None:
        """For login, call and repetition together."""
        login: Deferred = Deferred()
        self.exchange.answers.update({AUTHENTICATE: login, INFO: Deferred()})
        call = self.call()
        self.clock.advance(WEB_SECONDS - 1)
        login.callback(ok({"uid": 2}, "session_id=" + "b" * 40))
        self.assertNoResult(call)
        self.clock.advance(1.1)
        self.failureResultOf(call, OdooUnavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hanging_login_does_not_stay(self) -> None:
        self.exchange.answers[AUTHENTICATE] = Deferred()
        call = self.call()
        self.clock.advance(WEB_SECONDS + 1)
        self.failureResultOf(call, OdooUnavailable)
        self.exchange.answers.update({AUTHENTICATE: ok({"uid": 2}), INFO: ok({"a": 1})})
        self.assertEqual(self.successResultOf(self.call()), {"a": 1})

    def test_gone(self) -> None:
        for answer in (
            ExchangeError("connection", "POST /x", "ConnectionRefusedError"),
            ExchangeError("busy", "POST /x", sent=False),
            Reply(502, {"content-type": "text/html"}, b"<html>", "POST"),
            Reply(200, {"content-type": "text/html"}, b"<html>", "POST"),
        ):
            self.exchange.answers[INFO] = answer
            error = self.failureResultOf(self.call(), OdooUnavailable).value
            self.assertEqual(error.message, "Odoo is not available at the moment")
        self.exchange.answers[INFO] = failed("werkzeug.exceptions.NotFound", code=404, status=404)
        self.failureResultOf(self.call(), RouteMissing)

    def test_xml_rpc(self) -> None:
        self.exchange.answers["res.users.search"] = xml([7])
        self.assertEqual(now_of(self.rpc.execute("p", "res.users", "search", [[]], {})), [7])
        self.assertEqual(self.exchange.asked, [("res.users.search", ([[]], {}), None)])
        self.exchange.answers["res.users.search"] = fault(4, "not allowed")
        self.assertEqual(self.failureResultOf(self.search()).value.message, "p: not allowed [4]")

    def search(self) -> Deferred:
        return Deferred.fromCoroutine(self.rpc.execute("p", "res.users", "search", [[]], {}))

    def test_refused_by_xml_rpc(self) -> None:
        """Each such call is a failed login: after ten Odoo would refuse the logins of all users."""
        self.exchange.answers["res.users.search"] = fault(3, "Access Denied")
        for _ in range(20):
            self.failureResultOf(self.search(), OdooUnavailable)
        self.assertEqual(self.exchange.paths(), ["res.users.search"])
        self.assertIn("refuses user 2", self.rpc.down or "")
        # That something else is answered does not mean that all is well.
        self.exchange.answers[INFO] = ok({"a": 1})
        self.assertEqual(self.successResultOf(self.call()), {"a": 1})
        self.assertIn("refuses user 2", self.rpc.down or "")
        self.clock.advance(FIRST_PAUSE)
        self.exchange.answers["res.users.search"] = xml([7])
        self.assertEqual(self.successResultOf(self.search()), [7])
        self.assertIsNone(self.rpc.down)

    def test_not_odoo(self) -> None:
        """A proxy's page or redirect in the place of an answer: Odoo is away."""
        for answer in (
            Reply(200, {"content-type": "text/html"}, b"<html>We are back soon", "POST"),
            Reply(502, {"content-type": "text/html"}, b"<html>", "POST"),
            ExchangeError("redirect", "POST /x", "status 302"),
        ):
            for path, ask in ((INFO, self.call), ("res.users.search", self.search)):
                self.exchange.answers[path] = answer
                self.failureResultOf(ask(), OdooUnavailable)
                self.assertIsNotNone(self.rpc.down)
                self.rpc.down = None

    def test_uid_of_the_administrator(self) -> None:
        """1 is Odoo's technical user, who cannot log in: the id is asked for."""
        rpc = rpc_of(self.exchange, self.clock, uid=1)
        self.exchange.answers.update({"/web/session/get_session_info": ok({"uid": 9}), "a.b": xml(True)})
        for _ in range(2):
            now_of(rpc.execute("p", "a", "b", []))
        self.assertEqual(self.exchange.paths(), [AUTHENTICATE, "/web/session/get_session_info", "a.b", "a.b"])

    def test_report(self) -> None:
        """1.6: HTML is no PDF, a redirect is an ended session."""
        path = "/report/pdf/openems.r/7"
        pdf = Reply(200, {}, b"%PDF-1.4", "GET")
        self.exchange.answers[path] = [ExchangeError("redirect", "GET"), pdf]
        self.assertEqual(now_of(self.rpc.report("openems.r", 7)), b"%PDF-1.4")
        self.assertEqual(self.exchange.paths(), [AUTHENTICATE, path, AUTHENTICATE, path])
        self.exchange.answers[path] = Reply(200, {}, b"<html>", "GET")
        failure = self.failureResultOf(Deferred.fromCoroutine(self.rpc.report("openems.r", 7)))
        self.assertEqual(failure.value.message, "Odoo could not make the report of [7]")
