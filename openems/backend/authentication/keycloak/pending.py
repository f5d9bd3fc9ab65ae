"""Logins that a browser has begun (auth.md 5, S1, S2, S5). Pure: times and random bytes are passed in.

An entry is taken out at the first attempt to use it, whatever becomes of that. Entries end by time; of too many the
oldest goes, of one address's too many that address's oldest.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable

import msgspec

LIFETIME = 600.0
MAX_PENDING = 10_000
MAX_OF_ADDRESS = 20


class Pending(msgspec.Struct, frozen=True):
    oem: str
    redirect_uri: str
    code_verifier: str
    nonce: str
    address: str
    until: float

    def __repr__(self) -> str:
        return f"Pending(oem={self.oem!r})"


class PendingLogins:
    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        *,
        lifetime: float = LIFETIME,
        limit: int = MAX_PENDING,
        limit_of_address: int = MAX_OF_ADDRESS,
    ) -> None:
        self.dropped = 0
        self._random_bytes = random_bytes
        self._lifetime = lifetime
        self._limit = limit
        self._limit_of_address = limit_of_address
        # In the order of their ends, as all live equally long.
        self._entries: OrderedDict[str, Pending] = OrderedDict()
        self._of_address: dict[str, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, oem: str, redirect_uri: str, address: str, now: float) -> tuple[str, str, Pending]:
        """The new entry with its identifier and state, which tell nothing about each other."""
        self.expire(now)
        own = self._of_address.get(address)
        if own is not None and len(own) >= self._limit_of_address:
            self._drop(next(iter(own)))
        elif len(self._entries) >= self._limit:
            self._drop(next(iter(self._entries)))
        identifier = str(uuid.UUID(bytes=self._random_bytes(16), version=4))
        pending = Pending(oem, redirect_uri, self._text(), self._text(), address, now + self._lifetime)
        self._entries[identifier] = pending
        self._of_address.setdefault(address, OrderedDict())[identifier] = None
        return identifier, self._text(), pending

    def take(self, identifier: str, now: float) -> Pending | None:
        """The entry, which is gone then."""
        self.expire(now)
        return self._remove(identifier)

    def expire(self, now: float) -> None:
        while self._entries:
            identifier, pending = next(iter(self._entries.items()))
            if pending.until > now:
                return
            self._remove(identifier)

    def _drop(self, identifier: str) -> None:
        self.dropped += 1
        self._remove(identifier)

    def _remove(self, identifier: str) -> Pending | None:
        pending = self._entries.pop(identifier, None)
        if pending is not None:
            own = self._of_address[pending.address]
            del own[identifier]
            if not own:
                del self._of_address[pending.address]
        return pending

    def _text(self) -> str:
        return unpadded(self._random_bytes(32))


def unpadded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def code_challenge(code_verifier: str) -> str:
    """PKCE's S256 (RFC 7636).

    >>> code_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'
    """
    return unpadded(hashlib.sha256(code_verifier.encode("ascii")).digest())
