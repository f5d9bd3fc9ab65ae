"""Logins by password (auth.md 4.3, S13, Q22, Q24).

- A password that was right is taken for ``TRUST`` seconds from the same address without asking again: each question
  would open one more session at Keycloak.
  A check (:meth:`Passwords.check`) is not taken again: whoever asks for it remembers it himself.
- One that was refused is refused again for ``REPEAT`` seconds without asking: the stock UI repeats every refused login.
- Attempts of one user name run one after the other, failures with a pause between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater

from openems.backend.authentication.attempts import Attempts, Spacing
from openems.backend.authentication.keycloak.client import Denied, KeycloakClient, TokenReply
from openems.backend.authentication.keycloak.inputs import MAX_PASSWORD, MAX_USERNAME, is_plain
from openems.backend.authentication.keycloak.settings import Oem
from openems.backend.authentication.keycloak.shared import Shared
from openems.common.digest import keyed

TRUST = 60.0
REPEAT = 5.0
#: Seconds before a token's end at which it is not handed out again.
MARGIN = 10.0
#: Seconds between two failures of one user name.
PAUSE = 1.2
#: Attempts of one user name that may wait.
MAX_QUEUE = 10


class TooMany(Exception):
    """Too many attempts."""


class Passwords:
    def __init__(
        self,
        client: KeycloakClient,
        attempts: Attempts,
        *,
        reactor: Any,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.refused = 0
        self._client = client
        self._attempts = attempts
        self._reactor = reactor
        self._salt = random_bytes(16)
        self._spacing = Spacing(PAUSE)
        self._logins: Shared[TokenReply] = Shared(
            # Not longer than the token that is handed out again is good for.
            reactor, lambda reply: min(TRUST, reply.expires_in - MARGIN), failures=(Denied,), keep_failures=REPEAT,
        )  # fmt: skip
        self._checks: Shared[TokenReply] = Shared(
            reactor, lambda _: 0.0, failures=(Denied,), keep_failures=REPEAT
        )  # fmt: skip
        self._locks: dict[str, DeferredLock] = {}

    async def log_in(self, oem: Oem, username: str, password: str, address: str) -> TokenReply:
        """Raises :class:`Denied`, :class:`TooMany`, :class:`~.client.Unavailable`."""
        name = self._name(username, password)

        async def ask() -> TokenReply:
            return await self._in_turn(oem, name, username, password, address)

        return await self._logins.result(keyed(self._salt, address, name, password), ask)

    async def check(
        self, oem: Oem, username: str, password: str, address: str, checked: Callable[[TokenReply], None]
    ) -> TokenReply:
        """As :meth:`log_in`; ``checked`` gets the reply also if nobody waits for it any more."""
        name = self._name(username, password)

        async def ask() -> TokenReply:
            reply = await self._in_turn(oem, name, username, password, address)
            checked(reply)
            return reply

        return await self._checks.result(keyed(self._salt, address, name, password), ask)

    def _name(self, username: str, password: str) -> str:
        name = username.strip().lower()
        if not is_plain(username, MAX_USERNAME) or not name or not is_plain(password, MAX_PASSWORD):
            self.refused += 1
            raise Denied("input")
        return name

    def forget(self, access_token: str) -> None:
        """Its session was ended: the login is not remembered any more."""
        self._logins.forget_where(lambda kept: kept.access_token == access_token)

    def stop(self) -> None:
        self._logins.stop()
        self._checks.stop()

    async def _in_turn(self, oem: Oem, name: str, username: str, password: str, address: str) -> TokenReply:
        if not self._attempts.begin(address, name, self._reactor.seconds()):
            raise TooMany()
        outcome = "void"
        try:
            lock = self._locks.setdefault(name, DeferredLock())
            if len(lock.waiting) >= MAX_QUEUE:
                raise TooMany()
            await lock.acquire()
            try:
                wait = self._spacing.wait(name, self._reactor.seconds())
                if wait:
                    await deferLater(self._reactor, wait)
                reply = await self._client.by_password(oem, username, password)
                outcome = "succeeded"
                return reply
            except Denied:
                outcome = "failed"
                self.refused += 1
                self._spacing.failed(name, self._reactor.seconds())
                raise
            finally:
                lock.release()
                if not lock.locked and not lock.waiting:
                    self._locks.pop(name, None)
        finally:
            if outcome == "succeeded":
                self._attempts.succeeded(address, name)
            elif outcome == "failed":
                self._attempts.failed(address, name, self._reactor.seconds())
            else:
                self._attempts.void(address, name)
