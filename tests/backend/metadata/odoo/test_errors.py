"""Answers of Odoo that are not what was agreed (metadata-odoo.md 16, its last rows)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata.odoo.appcenter import OdooAppCenter
from openems.backend.metadata.odoo.pages import Pages
from openems.backend.models import PageRequest, User
from openems.common.errors import OpenemsError
from openems.common.role import Role
from openems.http.exchange import Reply
from tests.backend.metadata.odoo.fakes import JSON, FakeExchange, ok, rpc_of
from tests.backend.metadata.odoo.test_users import GET_EDGES, World

ROUTE = "/openems_app_center/"


class ListsOfEdges(World):
    """Code 1 with a text, or the list from memory; never an exception of another kind, never half a page."""

    def test_get_edges_that_cannot_be_read(self) -> None:
        known = self.max()
        pages = Pages(self.rpc, self.users, self.table, wanted=lambda: None)
        for answer in (
            Reply(200, JSON, b"<html>Bad Gateway</html>", "POST"),
            Reply(200, JSON, b'{"jsonrpc":"2.0","id":null,"result":', "POST"),
            Reply(200, JSON, b"[]", "POST"),
            ok([]),
            ok("text"),
            ok({}),
            ok({"devices": None}),
            ok({"devices": {"edge1": {}}}),
            ok({"devices": [None]}),
            ok({"devices": [{"id": "x", "name": 5}]}),
            ok({"devices": [{"id": 1}]}),
        ):
            self.exchange.answers[GET_EDGES] = answer
            page = Deferred.fromCoroutine(pages.page(known, PageRequest(page=0)))
            self.assertTrue(page.called, answer)
            outcome: list[Any] = []
            page.addBoth(outcome.append)
            if isinstance(outcome[0], list):
                self.assertTrue(all(isinstance(edge, dict) and "id" in edge for edge in outcome[0]), answer)
                continue
            error = outcome[0].value
            self.assertIsInstance(error, OpenemsError, answer)
            self.assertEqual(error.code, 1, answer)
            self.assertTrue(error.message, answer)
            self.assertNotIn("Traceback", error.message)


class AppCenter(SynchronousTestCase):
    """A missing member: the JSON error that names it."""

    def setUp(self) -> None:
        self.exchange = FakeExchange()
        self.center = OdooAppCenter(rpc_of(self.exchange, Clock()), role=lambda user, edge_id: Role.OWNER)

    def code(self, route: str, answer: Any, call: Any) -> tuple[int, list[Any]]:
        self.exchange.answers[ROUTE + route] = ok(answer)
        error = self.failureResultOf(Deferred.fromCoroutine(call), OpenemsError).value
        return error.code, error.data

    def test_missing_members(self) -> None:
        center = self.center
        more = {"keyId": "k", "bundles": [], "registrations": [], "usages": []}
        for info, code, member in (
            (None, 5003, "additionalInfo"),
            ({**more, "keyId": None}, 5010, "keyId"),
            ({name: value for name, value in more.items() if name != "bundles"}, 5007, "bundles"),
            ({**more, "usages": {}}, 5007, "usages"),
        ):
            answer = {"isKeyApplicable": True} if info is None else {"isKeyApplicable": True, "additionalInfo": info}
            got, data = self.code("is_key_applicable", answer, center.is_key_applicable("key", "edge0", None))
            self.assertEqual(got, code, info)
            self.assertIn(member, str(data), info)
        for route, call, member in (
            ("get_possible_apps", lambda: center.get_possible_apps("key", "edge0"), "bundles"),
            ("get_installed_apps", lambda: center.get_installed_apps("edge0"), "installedApps"),
        ):
            got, data = self.code(route, {"other": 1}, call())
            self.assertEqual((got, data[0]), (5007, member))
            self.assertEqual(self.code(route, [], call())[0], 5002)

    def test_registered_keys_may_be_missing(self) -> None:
        self.exchange.answers[f"{ROUTE}get_registered_key"] = ok({})
        self.assertEqual(
            self.successResultOf(Deferred.fromCoroutine(self.center.get_registered_keys("edge0", None))), []
        )

    def test_nothing_of_it_reaches_an_unknown_user(self) -> None:
        center = OdooAppCenter(rpc_of(self.exchange, Clock()), role=lambda user, edge_id: None)
        user_ = User(id="x", user_id="x", name="X")
        work = Deferred.fromCoroutine(center.add_register_key_history("edge0", None, "key", user_))
        self.assertEqual(self.failureResultOf(work, OpenemsError).value.code, 1005)
        self.assertEqual(self.exchange.asked, [])
