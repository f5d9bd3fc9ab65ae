"""A real Keycloak that is stopped and started while people log in; and the realm that is deployed."""

from __future__ import annotations

import signal
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openems.backend.authentication.keycloak.service import Keycloak
from openems.common import errors
from openems.common.errors import OpenemsError
from services.keycloak import SERVICE
from tests.backend.authentication.realserver import OEMS, PASSWORD, Admin, document, token_request
from tests.backend.authentication.world import Metadata
from tests.real import fresh, real

reactor: Any = _reactor
MIA = "mia@example.com"
REMOTE = "192.0.2.1:4711"


class Outage(TestCase):
    """A Keycloak of its own, which is stopped and started."""

    timeout = 600

    async def test_stopped_and_started_under_load(self) -> None:
        running = fresh("keycloak")
        self.addCleanup(running.stop)
        admin = Admin(running.info)
        realm = admin.make_realm("outage", **{"bruteForceProtected": False})
        metadata = Metadata()
        keycloak = Keycloak(
            realm, OEMS, metadata, reactor=reactor, now=time.time, user_registry=metadata, keys_refresh=1
        )
        keycloak.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(keycloak.stop()))
        token = (await keycloak.authenticate_with_password(MIA, PASSWORD, REMOTE)).token or ""
        # What the reactor's thread worked between two beats: everybody else waits as long.
        most, used = 0.0, time.thread_time()

        def beat() -> None:
            nonlocal most, used
            most, used = max(most, time.thread_time() - used), time.thread_time()

        heart = LoopingCall(beat)
        heart.start(0.01)
        counts = {"token": 0, "password": 0, "unavailable": 0, "other": 0}
        longest = 0.0
        going = True

        async def tokens() -> None:
            while going:
                await keycloak.authenticate_with_token(token)
                counts["token"] += 1
                await deferLater(reactor, 0.02)

        async def passwords(number: int) -> None:
            nonlocal longest
            while going:
                begun = time.monotonic()
                try:
                    await keycloak.authenticate_with_password("jan@example.com", PASSWORD, f"192.0.2.{number}:1")
                    keycloak._passwords._logins._kept.clear()
                    counts["password"] += 1
                except OpenemsError as e:
                    counts["unavailable" if e.code == errors.COMMON_SERVICE_NOT_AVAILABLE else "other"] += 1
                longest = max(longest, time.monotonic() - begun)
                await deferLater(reactor, 0.1)

        load = [Deferred.fromCoroutine(tokens()), *(Deferred.fromCoroutine(passwords(n)) for n in range(5))]

        async def until(name: str, more: int, patience: float = 120.0) -> None:
            wanted, end = counts[name] + more, time.monotonic() + patience
            while counts[name] < wanted:
                self.assertLess(time.monotonic(), end, f"{name}: {counts}")
                await deferLater(reactor, 0.1)

        try:
            await until("password", 5)
            # Not killed: the realm was made a moment ago, and may not be on the disk yet.
            running.signal(signal.SIGTERM)
            await until("unavailable", 20)
            # Those whose token is known go on.
            await until("token", 50)
            while not keycloak.problems():
                await deferLater(reactor, 0.2)
            await deferToThread(SERVICE.resume, running)
            await until("password", 5)
            while keycloak.problems():
                await deferLater(reactor, 0.2)
        finally:
            going = False
            heart.stop()
            await gatherResults(load)
        self.assertEqual(counts["other"], 0)
        self.assertLess(most, 0.25)
        self.assertLess(longest, 12.0)


class Deployment(TestCase):
    def test_the_realm_of_deploy_is_there(self) -> None:
        """Imported at the start, with its secrets as the documentation says."""
        running = real("keycloak")
        reply = token_request(
            running.info["url"], "openems", grant_type="client_credentials", client_id="openems",
            client_secret="change-me-openems",
        )  # fmt: skip
        self.assertTrue(reply["access_token"])
        self.assertEqual(document("x")["realm"], "x")
