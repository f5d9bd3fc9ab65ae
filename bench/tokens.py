"""Access tokens of Keycloak's kind: verified as a login does it, beside bare PyJWT, on the same tokens in turns.

``ratio`` is per second of one processor; each token is another, so that none is remembered. The longest pause of the
reactor is taken while all of them come at once, as after a restart of the backend: by the clock, which on a machine
with other work says little, and in time of the processor.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from openems.application.running import in_reactor
from openems.backend.authentication.keycloak.jwks import Jwks
from openems.backend.authentication.keycloak.keyset import Key, read_keys
from openems.backend.authentication.keycloak.pace import Pace
from openems.backend.authentication.keycloak.tokens import Tokens

reactor: Any = _reactor
ISSUER = "http://localhost:7900/realms/openems"
BEAT = 0.005


def measure(*, tokens: int, rounds: int) -> dict[str, Any]:
    return in_reactor(lambda _: _measure(tokens, rounds))


async def _measure(count: int, rounds: int) -> dict[str, Any]:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    entry = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
    entry.update(kid="kid-1", use="sig", alg="RS256")
    entry.pop("key_ops", None)
    keys = read_keys({"keys": [entry]}, frozenset({"RS256"}))
    texts = [_token(private, number) for number in range(count)]
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        bare.append(_bare(texts, private.public_key()))
        ours.append(_ours(texts, await _tokens(keys, None)))
    pauses, works, seconds = [], [], []
    for _ in range(rounds):
        verifier = await _tokens(keys, Pace(reactor))
        pause, work, took = await _at_once(texts, verifier)
        pauses.append(pause)
        works.append(work)
        seconds.append(took)
    return {
        "ratio": round(statistics.median(ours) / statistics.median(bare), 3),
        "ratios_of_rounds": [round(a / b, 3) for a, b in zip(ours, bare, strict=True)],
        "verified_per_second": round(statistics.median(ours)),
        "bare_pyjwt_per_second": round(statistics.median(bare)),
        "remembered_per_second": round(_ours(texts, verifier)),
        "at_once_seconds": round(statistics.median(seconds), 3),
        "longest_reactor_pause_ms": round(statistics.median(pauses) * 1000, 1),
        "longest_work_ms": round(statistics.median(works) * 1000, 1),
        "longest_work_ms_of_rounds": [round(work * 1000, 1) for work in works],
        "tokens": count,
        "bytes": len(texts[0]),
    }


def _token(private: Any, number: int) -> str:
    now = int(time.time())
    claims = {
        "exp": now + 3600, "iat": now, "auth_time": now, "jti": f"onrtac:{number:032x}", "iss": ISSUER,
        "aud": "account",
        "sub": f"7c9e6679-7425-40de-944b-{number:012d}", "typ": "Bearer", "azp": "openems", "sid": f"{number:024d}",
        "acr": "1", "allowed-origins": ["http://localhost:4200"],
        "realm_access": {"roles": ["default-roles-openems", "offline_access", "uma_authorization"]},
        "resource_access": {"account": {"roles": ["manage-account", "manage-account-links", "view-profile"]}},
        "scope": "openid email profile", "email_verified": True, "name": "Mia Berg",
        "preferred_username": f"mia{number}@example.com", "given_name": "Mia", "family_name": "Berg",
        "email": f"mia{number}@example.com",
    }  # fmt: skip
    return jwt.encode(claims, private, algorithm="RS256", headers={"kid": "kid-1"})


async def _tokens(keys: dict[str, Key], pace: Pace | None) -> Tokens:
    async def fetch() -> dict[str, Key]:
        return keys

    jwks = Jwks(fetch, reactor=reactor)
    await jwks.key("kid-1")
    return Tokens(ISSUER, jwks, now=time.time, clients=["openems"], pace=pace)


def _bare(texts: list[str], key: Any) -> float:
    begun = time.process_time()
    for text in texts:
        jwt.decode(text, key, algorithms=["RS256"], issuer=ISSUER, audience="account", leeway=30)
    return len(texts) / (time.process_time() - begun)


def _ours(texts: list[str], tokens: Tokens) -> float:
    begun = time.process_time()
    for text in texts:
        verified: Deferred[Any] = Deferred.fromCoroutine(tokens.access_token(text))
        if not verified.called:
            raise RuntimeError("a verification waited")
        verified.addErrback(_raise)
    return len(texts) / (time.process_time() - begun)


async def _at_once(texts: list[str], tokens: Tokens) -> tuple[float, float, float]:
    """The longest pause between two beats beyond their distance, by the clock and in time of the processor, which is
    ours alone; and how long all of it took."""
    gc.collect()
    longest, last = 0.0, time.perf_counter()
    most, used = 0.0, time.process_time()

    def beat() -> None:
        nonlocal longest, last, most, used
        now, spent = time.perf_counter(), time.process_time()
        longest, last = max(longest, now - last - BEAT), now
        most, used = max(most, spent - used), spent

    heart = LoopingCall(beat)
    heart.start(BEAT)
    begun = time.perf_counter()
    arrived, verified = 0, 0
    done: Deferred[None] = Deferred()

    def ended(_: Any) -> None:
        nonlocal verified
        verified += 1
        if verified == len(texts):
            done.callback(None)

    def arrive() -> None:
        # As sockets bring them: some with each turn of the reactor.
        nonlocal arrived
        for text in texts[arrived : arrived + 100]:
            Deferred.fromCoroutine(tokens.access_token(text)).addCallbacks(ended, done.errback)
        arrived += 100
        if arrived >= len(texts):
            arriving.stop()

    arriving = LoopingCall(arrive)
    arriving.start(0)
    await done
    seconds = time.perf_counter() - begun
    heart.stop()
    return longest, most, seconds


def _raise(failure: Any) -> None:
    failure.raiseException()
