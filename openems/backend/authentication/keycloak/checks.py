"""Passwords that are only checked (auth.md Q24).

Clients of REST and of the B2B WebSocket send theirs with each request or connection and never log out. Keycloak opens a
session for each check; it is ended at once, whatever becomes of who asked, so that none stays there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from openems.backend.authentication.keycloak.client import Denied, KeycloakClient, TokenReply, Unavailable
from openems.backend.authentication.keycloak.passwords import Passwords
from openems.backend.authentication.keycloak.settings import Oem
from openems.backend.authentication.keycloak.tokens import Claims, Tokens, session_of

#: Sessions that are being ended; of more the rest is left to Keycloak's own limits.
MAX_ENDING = 200


class Checks:
    """``line(text, **values)`` writes a limited log."""

    def __init__(
        self, client: KeycloakClient, tokens: Tokens, passwords: Passwords, *, line: Callable[..., None]
    ) -> None:
        #: Sessions ended, and those that could not be.
        self.ended = 0
        self.left = 0
        self._client = client
        self._tokens = tokens
        self._passwords = passwords
        self._line = line
        self._ending: set[Deferred[Any]] = set()

    async def check(self, account: Oem, username: str, password: str, address: str) -> Claims:
        """Raises :class:`Denied`, :class:`~.tokens.NotBelieved`, :class:`~.passwords.TooMany`, :class:`Unavailable`,
        :class:`~.jwks.KeysUnavailable`."""
        reply = await self._passwords.check(
            account, username, password, address, lambda reply: self._end(account, reply)
        )
        # The token is not shown to Keycloak again: that its session is over does not matter.
        return await self._tokens.access_token(reply.access_token, trusted=True)

    def stop(self) -> None:
        for ending in tuple(self._ending):
            ending.cancel()

    def _end(self, account: Oem, reply: TokenReply) -> None:
        if len(self._ending) >= MAX_ENDING:
            self.left += 1
            return
        ending = Deferred.fromCoroutine(self._log_out(account, reply))
        if not ending.called:
            self._ending.add(ending)
            ending.addBoth(lambda _: self._ending.discard(ending))

    async def _log_out(self, account: Oem, reply: TokenReply) -> None:
        try:
            if reply.refresh_token:
                await self._client.logout(account, reply.refresh_token)
            elif session_id := session_of(reply.access_token)[0]:
                # A client may be set not to get refresh tokens.
                await self._client.end_session(session_id)
            else:
                return
        except (Denied, Unavailable, CancelledError) as e:
            self.left += 1
            self._line("the session of a password check stays at Keycloak: {reason}", reason=str(e) or "stopped")
        else:
            self.ended += 1
