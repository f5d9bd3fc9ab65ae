from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.application import selftest
from openems.application.selftest import SelfTestFailed, self_test


class TestSelfTest(TestCase):
    def test_works_here(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self_test(reactor))

    async def test_failure_names_the_versions(self) -> None:
        async def broken(*_: object) -> int:
            raise AttributeError("onMessage")

        self.patch(selftest.WebSocketServer, "listen", broken)
        with self.assertRaisesRegex(SelfTestFailed, r"Twisted \d.*autobahn \d.*AttributeError: onMessage"):
            await self_test(reactor)
