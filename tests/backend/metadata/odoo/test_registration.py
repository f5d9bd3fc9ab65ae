"""A registration whose answer is lost, without a server. All else is in test_real_registration.py."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata.odoo.partners import Models, Partners
from openems.backend.metadata.odoo.registration import LOOKS, Registration
from openems.backend.metadata.odoo.replies import OdooUnavailable
from openems.http.exchange import ExchangeError
from tests.backend.metadata.odoo.fakes import FakeExchange, ok, rpc_of, xml

RECORD = {"email": "Max@Example.com", "firstname": "Max", "lastname": "Muster", "oauthUid": "u-1", "role": "guest"}
LOST = ExchangeError("connection", "Odoo", "lost", sent=True)


class LostAnswer(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.odoo = FakeExchange()
        self.odoo.answers |= {
            "res.users.search": [xml([])],
            "res.partner.fields_get": xml({"firstname": {}}),
            "ir.model.data.check_object_reference": xml(["res.groups", 9]),
            "res.users.create": LOST,
            "/openems_backend/sendRegistrationEmail": ok({}),
        }
        rpc = rpc_of(self.odoo, self.clock)
        models = Models(rpc)
        self.registration = Registration(rpc, models, Partners(models), reactor=self.clock)

    def register(self, **more: Any) -> Deferred[int]:
        return Deferred.fromCoroutine(self.registration.register({**RECORD, **more}, "openems"))

    def wait(self) -> None:
        for seconds in LOOKS:
            self.clock.advance(seconds)

    def test_it_was_made(self) -> None:
        self.odoo.answers["res.users.search"] += [LOST, xml([]), xml([17])]
        registered = self.register()
        self.assertNoResult(registered)
        self.wait()
        self.assertEqual(self.successResultOf(registered), 17)
        domain = [["login", "=", "max@example.com"], ["oauth_uid", "=", "u-1"]]
        searches = [asked for path, asked, _ in self.odoo.asked if path == "res.users.search"]
        self.assertEqual(searches[-1][0], [domain])
        # As any other new user he gets his mail.
        self.assertEqual(self.odoo.paths()[-1], "/openems_backend/sendRegistrationEmail")

    def test_it_was_not_made(self) -> None:
        self.odoo.answers["res.users.search"] += [xml([])] * len(LOOKS)
        registered = self.register()
        self.wait()
        self.failureResultOf(registered, OdooUnavailable)
        self.assertEqual(self.odoo.paths().count("res.users.create"), 1)

    def test_it_was_never_sent(self) -> None:
        self.odoo.answers["res.users.create"] = ExchangeError("connection", "Odoo", "refused", sent=False)
        self.failureResultOf(self.register(), OdooUnavailable)

    def test_without_a_link_nobody_can_tell(self) -> None:
        self.failureResultOf(self.register(oauthUid=None), OdooUnavailable)
