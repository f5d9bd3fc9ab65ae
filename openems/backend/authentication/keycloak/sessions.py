"""What a logout needs (auth.md S17): the refresh token of each login as long as somebody uses it, and which sessions
were ended here: their access tokens are good by themselves until they expire, so they have to be refused by name."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

MAX_SESSIONS = 20_000
MAX_ENDED = 20_000
#: Seconds: as long as a session lives at Keycloak, for the case that it did not hear of the end.
ENDED_FOR = 36_000.0


class Sessions:
    def __init__(self) -> None:
        self._refresh_tokens: OrderedDict[bytes, tuple[str, str]] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._refresh_tokens)

    def opened(self, access_token: str, oem: str, refresh_token: str) -> None:
        if not refresh_token:
            return
        key = _key(access_token)
        self._refresh_tokens[key] = oem, refresh_token
        self._refresh_tokens.move_to_end(key)
        if len(self._refresh_tokens) > MAX_SESSIONS:
            self._refresh_tokens.popitem(last=False)

    def take(self, access_token: str) -> tuple[str, str] | None:
        """OEM and refresh token, which is forgotten."""
        return self._refresh_tokens.pop(_key(access_token), None)

    def ended(self, session_id: str, now: float) -> None:
        """``now``: epoch seconds."""
        self._ended[session_id] = now + ENDED_FOR
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def revived(self, session_id: str) -> None:
        """Its user has logged in again at Keycloak, where its end was not heard of."""
        self._ended.pop(session_id, None)

    def is_ended(self, session_id: str, now: float) -> bool:
        until = self._ended.get(session_id)
        if until is not None and now > until:
            del self._ended[session_id]
            return False
        return until is not None


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
