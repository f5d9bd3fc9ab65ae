"""A Keycloak that cannot be connected to (auth.md S20)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.authentication.keycloak.breaker import FAILURES, PAUSE, Breaker
from openems.common import errors
from openems.http.exchange import ExchangeError
from tests.backend.authentication.world import PASSWORD, WithKeycloak


class Rules(SynchronousTestCase):
    def setUp(self) -> None:
        self.breaker = Breaker(3, 5.0)

    def ask(self, now: float, good: bool = False) -> bool:
        admitted = self.breaker.admits(now)
        if admitted and good:
            self.breaker.connected()
        elif admitted:
            self.breaker.failed(now)
        return admitted

    def test_after_failures_in_a_row(self) -> None:
        self.assertTrue(self.ask(0) and self.ask(0) and self.ask(0, good=True))
        self.assertEqual([self.ask(1) for _ in range(5)], [True, True, True, False, False])
        self.assertEqual(self.breaker.refused, 2)

    def test_one_tries(self) -> None:
        for _ in range(3):
            self.ask(0)
        self.assertFalse(self.breaker.admits(4.9))
        self.assertTrue(self.breaker.admits(5))
        self.assertFalse(self.breaker.admits(5))
        self.breaker.failed(6)
        self.assertFalse(self.breaker.admits(10.9))
        self.assertTrue(self.breaker.admits(11))
        self.breaker.connected()
        self.assertEqual([self.ask(11) for _ in range(4)], [True, True, True, False])

    def test_one_that_is_given_up(self) -> None:
        for _ in range(3):
            self.ask(0)
        self.assertTrue(self.breaker.admits(5))
        self.breaker.given_up()
        self.assertTrue(self.breaker.admits(5))


class Logins(WithKeycloak):
    def log_in(self, number: int) -> Any:  # type: ignore[override]
        return self.keycloak.authenticate_with_password("mia@example.com", PASSWORD, f"192.0.2.{number}:1")

    def test_refused_at_once_and_back_by_itself(self) -> None:
        asked: list[str] = []
        request = self.keycloak._client._exchange.request
        failure: BaseException | None = ExchangeError("connection", "POST /token", ConnectionRefusedError.__name__)

        async def broken(method: str, url: str, **options: Any) -> Any:
            asked.append(url)
            if failure is not None:
                raise failure
            return await request(method, url, **options)

        self.patch(self.keycloak._client._exchange, "request", broken)
        for number in range(FAILURES + 20):
            self.refused(self.log_in(number), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.assertEqual(len(asked), FAILURES)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/NotConnected"], 20)
        # One tries; it is cancelled, so the next one does.
        self.fake.advance(PAUSE)
        failure = CancelledError()
        self.failureResultOf(self.begin(self.log_in(0)), CancelledError)
        failure = None
        self.get(self.log_in(0))
        self.assertEqual(len(asked), FAILURES + 2)
        # All others, too.
        self.get(self.log_in(1))

    def test_replies_that_are_no_use_are_connections(self) -> None:
        self.fake.answer = lambda asked: (503, {}, b"") if asked.form else None
        for number in range(30):
            self.refused(self.log_in(number), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.assertEqual(len(self.fake.posts("password")), 30)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/NotConnected"], 0)
