"""A JSON Web Key Set, read once into keys that are bound to their algorithms (auth.md 6.3, S7). Pure."""

from __future__ import annotations

from typing import Any

import jwt
import msgspec

#: Entries of a set that are looked at; Keycloak has two and, after rotations, a few more.
MAX_KEYS = 100
MAX_KID = 200
MIN_RSA_BITS = 2048
#: Algorithm -> key type, and curve where it must be a certain one.
ALGORITHMS: dict[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}


class Key(msgspec.Struct, frozen=True):
    """``key`` verifies signatures of ``algorithms`` and of no others; ``material`` tells two keys apart."""

    kid: str
    algorithms: frozenset[str]
    material: tuple[str, ...]
    key: Any

    @property
    def identity(self) -> tuple[Any, ...]:
        return self.kid, self.algorithms, self.material


def read_keys(document: Any, allowed: frozenset[str]) -> dict[str, Key]:
    """kid -> key, of those that verify signatures by an ``allowed`` algorithm; others (encryption keys, unknown types,
    weak or malformed ones) are left out. Raises ValueError for what is no key set."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no key set")
    keys: dict[str, Key] = {}
    for entry in entries[:MAX_KEYS]:
        key = _read_key(entry, allowed) if isinstance(entry, dict) else None
        if key is not None:
            keys[key.kid] = key
    return keys


def _read_key(entry: dict[str, Any], allowed: frozenset[str]) -> Key | None:
    kid = entry.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return None
    named = entry.get("alg")
    algorithms = [
        algorithm
        for algorithm, (kind, curve) in ALGORITHMS.items()
        if algorithm in allowed
        and entry.get("kty") == kind
        and (curve is None or entry.get("crv") == curve)
        and (named is None or named == algorithm)
    ]
    if not algorithms:
        return None
    try:
        # Only the public part, should a set hold more.
        public = {name: value for name, value in entry.items() if name in ("kty", "crv", "n", "e", "x", "y")}
        key = jwt.PyJWK.from_dict(public, algorithms[0]).key
    except (jwt.exceptions.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if entry.get("kty") == "RSA" and key.key_size < MIN_RSA_BITS:
        return None
    return Key(kid, frozenset(algorithms), tuple(str(public[name]) for name in sorted(public)), key)
