"""Which tokens are believed (auth.md S7 to S10, Part D)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.authentication.keycloak.jwks import Jwks
from openems.backend.authentication.keycloak.keyset import read_keys
from openems.backend.authentication.keycloak.tokens import NotBelieved, Tokens
from openems.testing.keycloak import FakeKeycloak, ec_key, public_jwk, rsa_key
from tests.backend.authentication.world import WithKeycloak

NOW = 1_000_000_000


class WithTokens(SynchronousTestCase):
    """Two keys for signatures, RS256 and ES256, and one for encryption; only RS256 is believed unless said."""

    algorithms: tuple[str, ...] = ("RS256",)

    def setUp(self) -> None:
        self.clock = Clock()
        self.now = NOW
        self.fake = FakeKeycloak(self.clock, now=lambda: self.now)
        self.fake.keys["kid-ec"] = ec_key()
        self.fetched = 0
        self.entries = [
            public_jwk(rsa_key(), "kid-1", alg="RS256"),
            public_jwk(ec_key(), "kid-ec", alg="ES256"),
            {**public_jwk(rsa_key(99), "kid-enc", alg="RSA-OAEP"), "use": "enc"},
        ]

        def fetch() -> Any:
            self.fetched += 1
            return succeed(read_keys({"keys": self.entries}, frozenset(self.algorithms)))

        self.jwks = Jwks(fetch, reactor=self.clock)
        self.tokens = Tokens(
            self.fake.issuer, self.jwks, now=lambda: self.now, clients=["openems", "acme"], algorithms=self.algorithms
        )

    def believed(self, token: str) -> bool:
        outcome = Deferred.fromCoroutine(self.tokens.access_token(token))
        result: list[Any] = []
        outcome.addBoth(result.append)
        if getattr(result[0], "type", None) is NotBelieved:
            return False
        self.assertEqual(result[0].subject, "mia")
        return True

    def token(self, **claims: Any) -> str:
        return self.fake.access_token("mia", **claims)


class Vectors(WithTokens):
    """Part D; where it says "S..: refused", that."""

    def test_accepted(self) -> None:
        self.assertTrue(self.believed(self.token(exp=NOW + 1, iat=NOW)))
        self.assertTrue(self.believed(self.token(aud="account")))
        self.assertTrue(self.believed(self.token(azp="acme")))

    def test_s9_times(self) -> None:
        for claims, good in (
            ({"exp": NOW}, True), ({"exp": NOW - 29}, True), ({"exp": NOW - 30}, False), ({"exp": NOW - 31}, False),
            ({"iat": NOW + 1}, True), ({"iat": NOW + 5}, True), ({"iat": NOW + 31}, False),
            ({"nbf": NOW + 1}, True), ({"nbf": NOW + 31}, False),
            ({"exp": None}, False), ({"iat": None}, False), ({"exp": "1"}, False), ({"exp": True}, False),
            ({"exp": 1e30}, False), ({"iat": [1]}, False), ({"nbf": {}}, False),
        ):  # fmt: skip
            self.assertEqual(self.believed(self.token(**claims)), good, claims)

    def test_s8_claims(self) -> None:
        for claims in (
            {"typ": "ID"}, {"typ": "Refresh"}, {"typ": None}, {"azp": "foreign"}, {"azp": None}, {"azp": 5},
            {"sub": None}, {"sub": ""}, {"sub": 7}, {"sid": None}, {"sid": ""},
            {"preferred_username": "service-account-openems"},
            {"iss": f"{self.fake.issuer}/"}, {"iss": "http://localhost:7900/realms/other"}, {"iss": None},
        ):  # fmt: skip
            self.assertFalse(self.believed(self.token(**claims)), claims)

    def test_s8_audience(self) -> None:
        self.tokens._audience = "backend"
        self.assertTrue(self.believed(self.token(aud="backend")))
        self.assertTrue(self.believed(self.token(aud=["account", "backend"])))
        for audience in (None, "account", ["account"], {"backend": 1}):
            self.assertFalse(self.believed(self.token(aud=audience)))

    def test_s7_algorithms(self) -> None:
        """Refused before any key is fetched."""
        pem = rsa_key().public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )  # fmt: skip
        payload = self.payload()
        for token in (
            raw({"alg": "none", "kid": "kid-1"}, payload, b""),
            raw({"alg": "None", "kid": "kid-1"}, payload, b""),
            raw({"kid": "kid-1"}, payload, b""),
            hs256({"alg": "HS256", "kid": "kid-1"}, payload, pem),
            self.fake.signed(payload, kid="kid-ec", algorithm="ES256"),
            self.fake.signed(payload, algorithm="RS512"),
            self.fake.signed(payload, algorithm="PS256"),
        ):
            self.assertFalse(self.believed(token))
        for name in ("crit", "jwk", "jku", "x5u", "x5c"):
            token = raw({"alg": "RS256", "kid": "kid-1", name: ["x"]}, payload, b"x" * 256)
            self.assertFalse(self.believed(token))
        self.assertEqual(self.fetched, 0)

    def test_s7_an_hmac_with_the_public_key_under_a_believed_name(self) -> None:
        self.algorithms = ("RS256", "HS256")
        pem = rsa_key().public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )  # fmt: skip
        self.tokens._algorithms = frozenset(self.algorithms)
        self.assertFalse(self.believed(hs256({"alg": "HS256", "kid": "kid-1"}, self.payload(), pem)))

    def test_s7_keys_for_something_else(self) -> None:
        """The encryption key is no key of the set; and it was fetched only because its id is unknown."""
        self.assertFalse(self.believed(self.fake.signed(self.payload(), key=rsa_key(99), kid="kid-enc")))

    def test_shapes(self) -> None:
        good = self.token()
        head, payload, signature = good.split(".")
        for token in (
            "", "abc", ".", "..", "...", f"{head}.{payload}", f"{good}.x", f"{head}..{signature}",
            f".{payload}.{signature}",
            f"{head}.{payload}.", good + "A", "A" + good, good + "=", good.replace(".", ",", 1), "x" * 20_000, "ä.b.c",
            f"{encode([])}.{payload}.{signature}", f"{head}.{encode([])}.{signature}",
            raw_text(b"[" * 5000, payload, signature),
        ):  # fmt: skip
            self.assertFalse(self.believed(token), token[:40])
        self.assertTrue(self.believed(good))

    def test_one_changed_bit(self) -> None:
        head, payload, signature = self.token().split(".")
        changed = bytearray(base64.urlsafe_b64decode(payload + "=="))
        changed[changed.index(b"mia")] ^= 1
        self.assertFalse(self.believed(f"{head}.{unpadded(bytes(changed))}.{signature}"))
        bits = bytearray(base64.urlsafe_b64decode(signature + "=="))
        bits[10] ^= 1
        self.assertFalse(self.believed(f"{head}.{payload}.{unpadded(bytes(bits))}"))

    def test_kids(self) -> None:
        self.assertTrue(self.believed(self.token()))
        self.assertEqual(self.fetched, 1)
        payload = self.payload()
        no_kid = raw({"alg": "RS256"}, payload, b"x" * 256)
        self.assertFalse(self.believed(no_kid))
        self.assertFalse(self.believed(raw({"alg": "RS256", "kid": 5}, payload, b"x" * 256)))
        self.assertEqual(self.fetched, 1)
        self.clock.advance(11)
        self.assertFalse(self.believed(raw({"alg": "RS256", "kid": "who"}, payload, b"x" * 256)))
        self.assertEqual(self.fetched, 2)

    def test_another_algorithm_can_be_configured(self) -> None:
        self.algorithms = ("RS256", "ES256")
        self.tokens._algorithms = frozenset(self.algorithms)
        self.assertTrue(self.believed(self.fake.signed(self.payload(), kid="kid-ec", algorithm="ES256")))
        # Bound to the key: an EC key verifies no RS256, whatever the header says.
        self.assertFalse(self.believed(raw({"alg": "RS256", "kid": "kid-ec"}, self.payload(), b"x" * 256)))

    def test_s7_a_key_is_good_for_its_own_algorithm(self) -> None:
        self.algorithms = ("RS256", "PS256")
        self.tokens._algorithms = frozenset(self.algorithms)
        self.assertTrue(self.believed(self.token()))
        self.assertFalse(self.believed(self.fake.signed(self.payload(), algorithm="PS256")))
        del self.entries[0]["alg"]
        self.jwks._begin()
        self.assertTrue(self.believed(self.fake.signed(self.payload(), algorithm="PS256")))

    def test_remembered(self) -> None:
        token = self.token()
        for _ in range(3):
            self.assertTrue(self.believed(token))
        self.assertEqual(self.tokens.verified, 1)
        self.now += 331
        self.assertFalse(self.believed(token))

    def test_not_remembered_beyond_its_key(self) -> None:
        token = self.token()
        self.assertTrue(self.believed(token))
        self.entries = [public_jwk(rsa_key(1), "kid-2", alg="RS256")]
        self.jwks._begin()
        self.assertFalse(self.believed(token))

    def payload(self, **claims: Any) -> dict[str, Any]:
        text = self.token(**claims).split(".")[1]
        payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=="))
        return payload


class Garbage(SynchronousTestCase):
    @settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(st.one_of(st.text(max_size=300), st.lists(st.binary(max_size=60), min_size=2, max_size=4)))
    def test_never_anything_but_a_refusal(self, made: Any) -> None:
        token = made if isinstance(made, str) else ".".join(unpadded(part) for part in made)
        jwks = Jwks(lambda: succeed(read_keys({"keys": []}, frozenset({"RS256"}))), reactor=Clock())
        tokens = Tokens("http://localhost", jwks, now=lambda: NOW, clients=["openems"])
        self.failureResultOf(Deferred.fromCoroutine(tokens.access_token(token)), NotBelieved)


class Floods(WithKeycloak):
    def test_s10_random_kids(self) -> None:
        good = self.fake.access_token(self.mia)
        self.get(self.keycloak.authenticate_with_token(good))
        begun = self.fake.fetches()
        self.fake.advance(20)
        payload = json.loads(base64.urlsafe_b64decode(good.split(".")[1] + "=="))
        outcomes = []
        for number in range(10_000):
            token = raw({"alg": "RS256", "kid": f"kid-{number * 7919}-x"}, payload, b"x" * 256)
            outcome = Deferred.fromCoroutine(self.keycloak.authenticate_with_token(token))
            outcome.addErrback(lambda failure: failure.value.code)
            outcomes.append(outcome)
            if number % 1000 == 0:
                self.clock.advance(0.1)
                self.fake.pump()
                self.get(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)))
        self.fake.pump()
        self.assertEqual({self.successResultOf(outcome) for outcome in outcomes}, {1003})
        self.assertLessEqual(self.fake.fetches() - begun, 1)
        self.assertLessEqual(len(self.keycloak._jwks._unknown), 256)

    def test_s11_a_key_set_that_never_comes(self) -> None:
        good = self.fake.access_token(self.mia)
        self.get(self.keycloak.authenticate_with_token(good))
        self.fake.advance(20)
        self.fake.answer = lambda asked: None
        self.fake.delay = None
        self.fake.keys["kid-2"] = rsa_key(1)
        self.fake.signing_kid = "kid-2"
        new = self.fake.access_token(self.mia)
        waiting = self.begin(self.keycloak.authenticate_with_token(new))
        self.assertNoResult(waiting)
        self.fake.signing_kid = "kid-1"
        self.get(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)))
        self.fake.advance(5)
        self.assertEqual(self.failureResultOf(waiting).value.code, 1006)
        self.assertIn("signing keys", self.keycloak.problems()[0])

    def test_s11_known_keys_last_a_day(self) -> None:
        self.fake.answer = lambda asked: (503, {"content-type": "text/plain"}, b"")
        self.fake.advance(86_000, step=60.0)
        self.get(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)))
        self.fake.advance(700, step=60.0)
        self.refused(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)), 1006)
        self.fake.answer = lambda asked: None
        self.fake.advance(20)
        self.get(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)))
        self.assertEqual(self.keycloak.problems(), [])

    def test_s11_rotation_and_withdrawal(self) -> None:
        old = self.fake.access_token(self.mia)
        self.get(self.keycloak.authenticate_with_token(old))
        self.fake.keys["kid-2"] = rsa_key(1)
        self.fake.signing_kid = "kid-2"
        # By browser at once: the token came from the issuer itself.
        self.assertEqual(self.log_in().user_id, self.mia)
        self.get(self.keycloak.authenticate_with_token(old))
        del self.fake.keys["kid-1"]
        self.fake.advance(610, step=10)
        self.refused(self.keycloak.authenticate_with_token(old))

    def test_s11_nothing_is_waited_for_at_the_start(self) -> None:
        self.fake.delay = None
        self.remake()
        self.fake.advance(6)
        self.refused(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)), 1006)
        self.fake.delay = 0.0
        self.fake.advance(20)
        self.get(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)))

    def test_an_empty_key_set_takes_nothing_away(self) -> None:
        for text in (b'{"keys":[]}', b"[]", b'{"keys":5}', b'{"keys":[{"kid":"x"}]}', b"{}"):
            self.fake.answer = lambda asked, text=text: (200, {"content-type": "application/json"}, text)
            self.fake.advance(620, step=10)
            self.get(self.keycloak.authenticate_with_token(self.fake.access_token(self.mia)))
            self.assertTrue(self.keycloak.problems())


class KeySets(SynchronousTestCase):
    def test_what_is_left_out(self) -> None:
        good = public_jwk(rsa_key(), "kid-1", alg="RS256")
        for changes in (
            {"use": "enc"}, {"kid": ""}, {"kid": 5}, {"kty": "oct"}, {"n": "AQAB"}, {"n": None}, {"alg": "RSA-OAEP"},
            {"key_ops": ["encrypt"]}, {"kty": "EC"}, {"e": "!"},
        ):  # fmt: skip
            self.assertEqual(read_keys({"keys": [{**good, **changes}]}, frozenset({"RS256"})), {}, changes)
        self.assertEqual(list(read_keys({"keys": ["x", None, good]}, frozenset({"RS256"}))), ["kid-1"])
        self.assertEqual(read_keys({"keys": [good]}, frozenset({"ES256"})), {})
        self.assertEqual(
            len(read_keys({"keys": [{**good, "kid": str(n)} for n in range(500)]}, frozenset({"RS256"}))), 100
        )


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode(value: Any) -> str:
    return unpadded(json.dumps(value).encode())


def raw(header: dict[str, Any], payload: dict[str, Any], signature: bytes) -> str:
    return f"{encode(header)}.{encode(payload)}.{unpadded(signature)}"


def raw_text(head: bytes, payload: str, signature: str) -> str:
    return f"{unpadded(head)}.{payload}.{signature}"


def hs256(header: dict[str, Any], payload: dict[str, Any], key: bytes) -> str:
    text = f"{encode(header)}.{encode(payload)}"
    return f"{text}.{unpadded(hmac.new(key, text.encode(), hashlib.sha256).digest())}"
