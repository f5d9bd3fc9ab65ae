"""How the failures of a login become errors, counted and logged.

1003 when its credentials are not good, whatever exactly is wrong with them; :class:`LoginServiceUnreachable` while
nobody can tell (Keycloak down, slow, busy, or this server not accepted by it), which a UI sees as 1003, too; 4005 for
too many attempts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger

from openems.backend.authentication.keycloak.client import Denied, Unavailable
from openems.backend.authentication.keycloak.jwks import KeysUnavailable
from openems.backend.authentication.keycloak.passwords import TooMany
from openems.backend.authentication.keycloak.tokens import NotBelieved
from openems.backend.authentication.unreachable import LoginServiceUnreachable
from openems.common import errors
from openems.common.errors import OpenemsError

NAME = "Authentication.OAuth"
#: Seconds for a login with all its requests, and the wait for others of the same user: shorter than anybody waits.
LOGIN_TIMEOUT = 20.0
#: Log lines that peers can cause, in a minute.
LINES = 60

T = TypeVar("T")


class Answers:
    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self.refused = 0
        self.unavailable = 0
        self._reactor = reactor
        self._lines: deque[float] = deque()
        self._running: set[Deferred[Any]] = set()

    async def get(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work()``, or an OpenemsError."""

        async def run() -> T:
            return await work()

        running = Deferred.fromCoroutine(run())
        self._running.add(running)
        try:
            return await running.addTimeout(LOGIN_TIMEOUT, self._reactor)
        except (Denied, NotBelieved) as e:
            self.refused += 1
            self.line("{what} refused: {reason}", what=what, reason=str(e))
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED) from None
        except (Unavailable, KeysUnavailable, TimeoutError) as e:
            self.unavailable += 1
            reason = "took too long" if isinstance(e, TimeoutError) else str(e) or "signing keys are not available"
            self.line("{what}: Keycloak cannot be asked: {reason}", what=what, reason=reason)
            raise LoginServiceUnreachable() from None
        except TooMany:
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS) from None
        finally:
            self._running.discard(running)

    def stop(self) -> None:
        """Ends what is under way; who waits gets CancelledError."""
        for running in tuple(self._running):
            running.cancel()

    def line(self, text: str, **values: Any) -> None:
        """A line that peers can cause: so many a minute and no more."""
        now = self._reactor.seconds()
        while self._lines and now - self._lines[0] > 60.0:
            self._lines.popleft()
        if len(self._lines) < LINES:
            self._lines.append(now)
            self._log.info(f"{NAME}: {text}", **values)
