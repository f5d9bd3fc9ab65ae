"""What every password passes on its way to whoever verifies it (auth.md S13).

Wrong attempts get slower, and only so many wait (:mod:`openems.backend.metadata.throttle`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.task import deferLater

from openems.backend.metadata.throttle import SUSPECT, Places, Throttle
from openems.common import errors
from openems.common.digest import keyed
from openems.common.errors import OpenemsError
from openems.websocket.proxies import host_of

T = TypeVar("T")
#: Logins that wait for somebody to verify them, or for the end of their delay.
MAX_WAITING = 200
MAX_WAITING_FOR_ADDRESS = 20
MAX_LOGIN = 320
MAX_PASSWORD = 1024


class Wrong(Exception):
    """Verified: the password is not this user's, or there is no such user."""


class Unverified(Exception):
    """Whoever verifies is away: nothing is known about the password."""


class Attempt:
    """A login in lower case and the address it comes from. ``key`` tells whether it is the same again and has no
    secret in it."""

    __slots__ = ("address", "key", "login")

    def __init__(self, salt: bytes, username: str, password: str, remote: str) -> None:
        self.login, self.address = username.strip().lower(), host_of(remote)
        self.key = keyed(salt, self.login, self.address, password)


class Gate:
    """Metrics: ``refused`` logins, ``overloaded``: turned away because too many wait."""

    def __init__(self, *, reactor: Any) -> None:
        self.refused = 0
        self.overloaded = 0
        self._reactor = reactor
        self._throttle = Throttle()
        self._waiting = Places(MAX_WAITING, MAX_WAITING_FOR_ADDRESS)

    def refusal(self) -> OpenemsError:
        """To be raised: the same for whatever is wrong."""
        self.refused += 1
        return OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)

    async def verified(self, attempt: Attempt, verify: Callable[[], Awaitable[T]]) -> T:
        """What ``verify()`` gives, in its turn; it raises :class:`Wrong` or :class:`Unverified`.

        Raises OpenemsError: 1003 for what is wrong, 4005 where too many wait, 1006 where nobody can verify it."""
        now = self._reactor.seconds
        if self._throttle.is_repetition(attempt.key, now()):
            raise self.refusal()
        full = self._waiting.is_full_for(attempt.address)
        delay = 0.0 if full else self._throttle.begin(attempt.login, attempt.address, now())
        suspect = delay > SUSPECT
        if full or not self._waiting.take(attempt.address, suspect=suspect):
            self.overloaded += 1
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        try:
            if delay:
                await deferLater(self._reactor, delay)
            found = await verify()
        except Wrong:
            self._throttle.refused(attempt.key, now())
            raise self.refusal() from None
        except Unverified:
            self._throttle.unverified(attempt.login, attempt.address)
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
        finally:
            self._waiting.leave(attempt.address, suspect=suspect)
        self._throttle.succeeded(attempt.login, attempt.address)
        return found
