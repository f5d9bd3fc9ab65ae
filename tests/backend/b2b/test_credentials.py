from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b import credentials as module
from openems.backend.b2b.credentials import TooMany, rest_credentials, websocket_credentials
from openems.backend.metadata.gate import Attempt, Gate, Wrong
from openems.backend.models import Authenticated, User
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.testing.services import now_of
from tests.backend.b2b.world import ALICE, World

B64 = base64.b64encode(b"alice:s3cret").decode()


class HeaderTest(SynchronousTestCase):
    def test_rest(self) -> None:
        """b2b.md 2.3"""
        good = ("alice", "s3cret")
        self.assertEqual(rest_credentials(f"bASIC {B64} extra"), good)
        self.assertEqual(rest_credentials("Basic " + B64.rstrip("=")), good)
        self.assertEqual(rest_credentials("Basic " + base64.b64encode(b"a:b:c").decode()), ("a", "b:c"))
        self.assertEqual(rest_credentials("Basic " + base64.b64encode(b":").decode()), ("", ""))
        # Python's requests takes no other encoding for texts.
        for encoding in ("utf-8", "latin-1"):
            header = "Basic " + base64.b64encode("jörg:ß".encode(encoding)).decode()
            self.assertEqual(rest_credentials(header), ("jörg", "ß"), encoding)
        for bad in (
            "",
            "Basic",
            "Bearer abc",
            f"Basic  {B64}",
            f"Basic{B64}",
            "Basic %%%",
            "Basic YWRtaW4=",
            "Basic A",
        ):
            self.assertIsNone(rest_credentials(bad), bad)
        self.assertIsNone(rest_credentials("Basic " + "QUFB" * 10_000))

    def test_websocket(self) -> None:
        """b2b.md 3.2"""
        for header in (f"Basic {B64}", f"basic{B64}", f"  BASIC   {B64} "):
            self.assertEqual(websocket_credentials(header), ("alice", "s3cret"))
        spaced = base64.b64encode(b" a : b ").decode()
        self.assertEqual(websocket_credentials(f"Basic {spaced}"), (" a ", " b "))
        for bad in ("", "Bearer x", "Basic %%%", "Basic YWRtaW4="):
            self.assertIsNone(websocket_credentials(bad), bad)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        rest_credentials(text)
        websocket_credentials("basic" + text)

    @given(st.text(), st.text())
    def test_round(self, username: str, password: str) -> None:
        username = username.replace(":", "")
        header = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        self.assertEqual(rest_credentials(header), (username, password))
        self.assertEqual(websocket_credentials(header), (username, password))


class CredentialsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.credentials = self.world.credentials

    def login(self, username: str = "alice", password: str = "s3cret", remote: str = "192.0.2.1:1") -> object:
        return now_of(self.credentials.user(username, password, remote))

    def refused(self, *arguments: str) -> int:
        return self.assertRaises(OpenemsError, self.login, *arguments).code

    def test_remembered_for_60_seconds(self) -> None:
        self.assertEqual(self.login(), ALICE)
        self.world.clock.advance(59.9)
        self.login(remote="192.0.2.2:1")
        self.assertEqual(len(self.world.passwords.asked), 1)
        self.world.clock.advance(0.2)
        self.login()
        self.assertEqual(len(self.world.passwords.asked), 2)

    def test_other_password_is_no_hit(self) -> None:
        self.login()
        self.assertEqual(self.refused("alice", "S3cret"), errors.COMMON_AUTHENTICATION_FAILED)
        # Where name and password meet does matter.
        self.assertEqual(self.refused("alices", "3cret"), errors.COMMON_AUTHENTICATION_FAILED)

    def test_no_password_is_kept(self) -> None:
        self.login()
        self.refused("alice", "another-one")
        kept = repr(vars(self.credentials))
        self.assertNotIn("s3cret", kept)
        self.assertNotIn("another-one", kept)
        # What is kept of the same login differs with each start: nobody has a table of it.
        kept_by = []
        for _ in range(2):
            self.credentials = module.Credentials(
                self.world.passwords,
                self.world.metadata,  # type: ignore[arg-type]
                reactor=self.world.clock,
            )
            self.login()
            kept_by.append(set(self.credentials._remembered))
        self.assertEqual(kept_by[0] & kept_by[1], set())

    def test_refusal_is_remembered_shortly(self) -> None:
        for _ in range(3):
            self.refused("alice", "wrong")
        self.assertEqual(len(self.world.passwords.asked), 1)
        self.assertEqual(self.credentials.refused, 3)
        self.world.passwords.passwords["alice"] = "wrong"
        self.world.clock.advance(module.DISTRUST)
        self.assertEqual(self.login("alice", "wrong"), ALICE)

    def test_forget(self) -> None:
        self.login()
        self.world.passwords.passwords["alice"] = "other"
        self.credentials.forget()
        self.assertEqual(self.refused("alice", "s3cret"), errors.COMMON_AUTHENTICATION_FAILED)

    def test_forget_while_verifying(self) -> None:
        self.world.passwords.wait = True
        waiting = Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", "192.0.2.1:1"))
        self.credentials.forget()
        self.world.passwords.waiting.pop().callback(None)
        self.assertEqual(self.successResultOf(waiting), ALICE)
        self.world.passwords.wait = False
        self.login()
        self.assertEqual(len(self.world.passwords.asked), 2)

    def test_limited_by_address(self) -> None:
        codes = [self.refused("alice", f"guess{n}") for n in range(int(module.BURST) + 10)]
        self.assertIn(errors.JSONRPC_TOO_MANY_REQUESTS, codes)
        self.assertLessEqual(len(self.world.passwords.asked), module.BURST + 1)
        self.assertIsInstance(self.assertRaises(OpenemsError, self.login), TooMany)
        self.assertEqual(self.login(remote="192.0.2.2:1"), ALICE)
        # Whoever is remembered is not limited.
        self.assertEqual(self.login(), ALICE)
        self.assertGreater(self.credentials.limited, 0)
        asked = len(self.world.passwords.asked)
        for n in range(50):
            self.world.clock.advance(0.1)
            self.refused("alice", f"another{n}")
        self.assertIn(len(self.world.passwords.asked) - asked, (9, 10, 11))

    def test_clients_of_an_address(self) -> None:
        """Equal logins are one verification, but not any number of clients."""
        self.patch(module, "MAX_CLIENTS_OF_ADDRESS", 3)
        self.world.passwords.wait = True
        some = [Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", "192.0.2.1:1")) for _ in range(4)]
        self.assertIsInstance(self.failureResultOf(some[3]).value, TooMany)
        self.assertEqual(self.credentials.limited, 1)
        some[0].cancel()
        self.failureResultOf(some[0], CancelledError)
        some[0] = Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", "192.0.2.1:1"))
        other = Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", "192.0.2.2:1"))
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual([self.successResultOf(one) for one in (*some[:3], other)], [ALICE] * 4)
        self.assertEqual(self.credentials._clients, {})

    def test_verifications_at_once(self) -> None:
        self.patch(module, "MAX_WAITING_FOR_ADDRESS", 2)
        self.patch(module, "MAX_WAITING", 3)
        self.world.passwords.wait = True
        outcomes = []
        for n, address in enumerate(("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3")):
            outcome: list[Any] = []
            waiting = Deferred.fromCoroutine(self.credentials.user("alice", f"guess{n}", f"{address}:1"))
            waiting.addBoth(outcome.append)
            outcomes.append([type(failure.value) for failure in outcome])
        self.assertEqual(outcomes, [[], [], [TooMany], [], [TooMany]])
        for waiting in self.world.passwords.waiting:
            waiting.callback(None)
        self.world.passwords.wait = False
        self.assertEqual(self.login(), ALICE)

    def test_not_too_many_are_remembered(self) -> None:
        self.patch(module, "MAX_REMEMBERED", 2)
        for password in ("s3cret", "a", "b"):
            if password != "s3cret":
                self.refused("alice", password)
            else:
                self.login()
        self.assertEqual(len(self.credentials._remembered), 2)
        self.login()
        self.assertEqual(len(self.world.passwords.asked), 4)

    def test_verified_once(self) -> None:
        self.world.passwords.wait = True
        both = [Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", f"192.0.2.{n}:1")) for n in (1, 2)]
        self.assertEqual(len(self.world.passwords.waiting), 1)
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual([self.successResultOf(one) for one in both], [ALICE, ALICE])

    def test_goes_on_when_its_clients_have_gone(self) -> None:
        self.world.passwords.wait = True
        for _ in range(3):
            waiting = Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", "192.0.2.1:1"))
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        (verifying,) = self.world.passwords.waiting
        verifying.callback(None)
        self.assertEqual(self.login(), ALICE)
        self.assertEqual(len(self.world.passwords.asked), 1)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        self.world.passwords.wait = True
        gone, there = (
            Deferred.fromCoroutine(self.credentials.user("alice", password, "192.0.2.1:1")) for password in "ab"
        )
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.credentials.stop()
        self.assertEqual([waiting.called for waiting in self.world.passwords.waiting], [True, False])
        self.world.passwords.waiting[1].callback(None)
        self.failureResultOf(there, OpenemsError)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_right_password_after_wrong_ones_gets_in(self) -> None:
        """A script with an old password runs until somebody corrects it: however long wrong attempts make a right one
        wait, and although the script gives up earlier each time."""
        clock, gate = self.world.clock, Gate(reactor=self.world.clock)

        async def authenticate_with_password(username: str, password: str, remote: str) -> Authenticated:
            async def verify() -> Authenticated:
                await deferLater(clock, 0.1)
                if password != "new":
                    raise Wrong
                return Authenticated(f"sub-{username}", username, "token")

            return await gate.verified(Attempt(b"", username, password, remote), verify)

        self.world.passwords.authenticate_with_password = authenticate_with_password  # type: ignore[method-assign]

        def attempt(password: str, patience: int) -> User | None:
            waiting = Deferred.fromCoroutine(self.credentials.user("alice", password, "192.0.2.1:1"))
            got: list[Any] = []
            waiting.addBoth(got.append)
            clock.pump([1.0] * patience)
            waiting.cancel()
            return got[0] if isinstance(got[0], User) else None

        self.assertEqual([attempt("old", 60) for _ in range(20)], [None] * 20)
        self.assertEqual([attempt("new", 10) for _ in range(5)], [None, None, None, ALICE, ALICE])

    def test_ends(self) -> None:
        self.world.passwords.wait = True
        waiting = Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", "192.0.2.1:1"))
        self.world.clock.advance(module.TIMEOUT)
        self.assertEqual(self.failureResultOf(waiting, OpenemsError).value.code, errors.COMMON_SERVICE_NOT_AVAILABLE)

    def test_unforeseen(self) -> None:
        self.world.passwords.error = RuntimeError("s3cret")
        self.assertEqual(self.refused(), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.world.passwords.error = None
        self.assertEqual(self.login(), ALICE)

    def test_not_initialised(self) -> None:
        self.world.metadata.initialized = False
        self.assertEqual(self.refused(), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.assertEqual(self.world.passwords.asked, [])

    def test_nobody_takes_passwords(self) -> None:
        self.world.passwords.error = OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, "authenticateWithPassword")
        self.assertEqual(self.refused(), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.credentials = module.Credentials(None, self.world.metadata, reactor=self.world.clock)  # type: ignore
        self.assertEqual(self.refused(), errors.COMMON_SERVICE_NOT_AVAILABLE)

    def test_rest_trims_but_takes_them_as_they_are_first(self) -> None:
        """b2b.md 7, 8"""
        rest = self.credentials.rest_user
        self.assertEqual(now_of(rest(" alice ", " s3cret ", "192.0.2.1:1")), ALICE)
        self.assertEqual(now_of(rest("bob", " blank ", "192.0.2.1:1")).id, "bob")
        self.assertRaises(OpenemsError, now_of, self.credentials.user(" alice ", " s3cret ", "192.0.2.1:1"))
