"""The sessions of users from their login to their end (auth.md S16, S17, Q13).

A session is known by the token that the UI has of it: Keycloak's access token, or after a login by password one of ours
(:mod:`.stored`), which stands for it longer.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping

from openems.backend.authentication.keycloak.client import Denied, KeycloakClient, Unavailable
from openems.backend.authentication.keycloak.inputs import is_token
from openems.backend.authentication.keycloak.jwks import OUTAGE, KeysUnavailable
from openems.backend.authentication.keycloak.sessions import Sessions
from openems.backend.authentication.keycloak.settings import Oem
from openems.backend.authentication.keycloak.stored import Stored, StoredSessions, is_stored
from openems.backend.authentication.keycloak.tokens import Claims, NotBelieved, Tokens, session_of

#: Seconds for which it is not asked again whether the user of a stored session may log in.
CONFIRMED = 60.0
MAX_ISSUED = 1000


class UserSessions:
    """``forget(access_token)`` is called for sessions that end; ``line(text, **values)`` writes a limited log."""

    def __init__(
        self,
        client: KeycloakClient,
        tokens: Tokens,
        oems: Mapping[str, Oem],
        stored: StoredSessions | None,
        *,
        now: Callable[[], float],
        forget: Callable[[str], None],
        line: Callable[..., None],
    ) -> None:
        self.table = Sessions()
        self._client = client
        self._tokens = tokens
        self._oems = oems
        self._stored = stored
        self._now = now
        self._forget = forget
        self._line = line
        #: Access token -> our token for it: a login that is remembered is one session.
        self._issued: OrderedDict[str, str] = OrderedDict()

    def start(self) -> str:
        """What is wrong, if sessions cannot be stored: then the UI gets Keycloak's tokens."""
        try:
            if self._stored is not None:
                self._stored.start()
        except (OSError, sqlite3.Error) as e:
            self._stored = None
            return f"sessions of passwords cannot be stored: {e}"
        return ""

    def stop(self) -> None:
        if self._stored is not None:
            self._stored.close()

    def opened_by_password(self, access_token: str, claims: Claims, oem: str, refresh_token: str) -> str:
        """The token for the UI."""
        token = self._token_for(access_token, claims)
        self.table.opened(token, oem, refresh_token)
        return token

    def _token_for(self, access_token: str, claims: Claims) -> str:
        if self._stored is None:
            return access_token
        now = self._now()
        try:
            token = self._issued.get(access_token)
            if token is None or self._stored.find(token, now) is None:
                token = self._stored.open(claims.subject, claims.session_id, claims.email, now)
                self._issued[access_token] = token
                if len(self._issued) > MAX_ISSUED:
                    self._issued.popitem(last=False)
        except sqlite3.Error as e:
            self._line("sessions cannot be stored: {kind}", kind=type(e).__name__)
            return access_token
        return token

    async def by_token(self, token: str) -> tuple[str, str]:
        """Subject and email. Raises :class:`Denied`, :class:`NotBelieved`, :class:`Unavailable`,
        :class:`KeysUnavailable`."""
        if not is_token(token):
            raise Denied("token")
        if is_stored(token):
            stored = await self._by_stored(token)
            return stored.subject, stored.email
        claims = await self._tokens.access_token(token)
        if self.table.is_ended(claims.session_id, self._now()):
            raise Denied("session ended")
        return claims.subject, claims.email

    async def _by_stored(self, token: str) -> Stored:
        stored = self._find(token)
        if stored is None:
            raise Denied("session unknown or too old")
        now = self._now()
        confirmed = False
        # The clock may have been set back since.
        if not 0 <= now - stored.confirmed < CONFIRMED:
            try:
                confirmed = await self._client.is_enabled(stored.subject)
            except Unavailable:
                # As with signing keys: who was known goes on for a day.
                if not -OUTAGE <= now - stored.confirmed <= OUTAGE:
                    raise
            else:
                if not confirmed:
                    self._end_all_of(stored.subject)
                    raise Denied("user disabled")
        try:
            if self._stored is not None:
                self._stored.used(token, now, confirmed=confirmed)
        except sqlite3.Error as e:
            self._line("sessions cannot be stored: {kind}", kind=type(e).__name__)
        return stored

    async def still_valid(self, token: str) -> bool:
        """True also for tokens of others."""
        stored = self._find(token) if is_stored(token) else None
        session_id, subject = session_of(token) if stored is None else (stored.session_id, stored.subject)
        if is_stored(token) and stored is None:
            return False
        if not session_id:
            return True
        if self.table.is_ended(session_id, self._now()):
            return False
        return await self.is_enabled(subject)

    async def is_enabled(self, subject: str) -> bool:
        """True also while nobody can tell."""
        if self._client.service_account is None:
            return True
        try:
            enabled = await self._client.is_enabled(subject)
        except Unavailable:
            return True
        if not enabled:
            self._end_all_of(subject)
        return enabled

    async def logout(self, token: str) -> None:
        """At Keycloak, too, whichever way it was begun; a token of others is none of our business."""
        stored = self._find(token) if is_stored(token) else None
        session_id = session_of(token)[0] if stored is None else stored.session_id
        if session_id and self.table.is_ended(session_id, self._now()):
            return
        known = self.table.take(token)
        self._forget(token)
        for access_token in [access for access, ours in self._issued.items() if ours == token]:
            del self._issued[access_token]
            self._forget(access_token)
        ours = known is not None or stored is not None or await self._believed(token)
        if not session_id or not ours:
            return
        self.table.ended(session_id, self._now())
        if stored is not None and self._stored is not None:
            self._stored.end(token)
        if known is not None:
            await self.end(self._oems[known[0]], known[1])
        elif self._client.service_account is not None:
            await self.end(None, session_id)

    async def _believed(self, token: str) -> bool:
        try:
            await self._tokens.access_token(token)
        except (NotBelieved, KeysUnavailable):
            return False
        return True

    async def end(self, oem: Oem | None, session: str) -> None:
        """At Keycloak, by an OEM's refresh token, or by the session's id."""
        try:
            if oem is None:
                await self._client.end_session(session)
            else:
                await self._client.logout(oem, session)
        except (Denied, Unavailable) as e:
            self._line("logout at Keycloak failed: {reason}", reason=str(e))

    def _find(self, token: str) -> Stored | None:
        if self._stored is None:
            return None
        try:
            return self._stored.find(token, self._now())
        except sqlite3.Error as e:
            raise Unavailable(f"stored sessions: {type(e).__name__}") from None

    def _end_all_of(self, subject: str) -> None:
        try:
            if self._stored is not None:
                self._stored.end_all_of(subject)
        except sqlite3.Error as e:
            self._line("sessions cannot be stored: {kind}", kind=type(e).__name__)
