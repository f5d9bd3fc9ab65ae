from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b import credentials as module
from openems.backend.b2b.credentials import TooMany, rest_credentials, websocket_credentials
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

    def test_verified_once(self) -> None:
        self.world.passwords.wait = True
        both = [Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", f"192.0.2.{n}:1")) for n in (1, 2)]
        self.assertEqual(len(self.world.passwords.waiting), 1)
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual([self.successResultOf(one) for one in both], [ALICE, ALICE])

    def test_cancelled_with_the_last_that_waits(self) -> None:
        self.world.passwords.wait = True
        first, second = (
            Deferred.fromCoroutine(self.credentials.user("alice", "s3cret", "192.0.2.1:1")) for _ in range(2)
        )
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertFalse(self.world.passwords.waiting[0].called)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertTrue(self.world.passwords.waiting[0].called)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.world.passwords.wait = False
        self.assertEqual(self.login(), ALICE)

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
