"""Keycloak is not connected to any more for a while after it could not be several times in a row (auth.md S20): who
logs in then is refused at once, and does not wait for a host that is not there. Pure: times are passed in.

After the pause one request tries; the others are refused until it is known how that went.
"""

from __future__ import annotations

FAILURES = 5
PAUSE = 5.0


class Breaker:
    """After :meth:`admits` was True comes exactly one of :meth:`connected`, :meth:`failed` and :meth:`given_up`."""

    def __init__(self, failures: int = FAILURES, pause: float = PAUSE) -> None:
        #: Requests that were not sent.
        self.refused = 0
        self._failures = failures
        self._pause = pause
        self._in_a_row = 0
        self._until = 0.0
        self._trying = False

    def admits(self, now: float) -> bool:
        if self._in_a_row < self._failures:
            return True
        if self._trying or now < self._until:
            self.refused += 1
            return False
        self._trying = True
        return True

    def connected(self) -> None:
        self._in_a_row = 0
        self._trying = False

    def failed(self, now: float) -> None:
        self._in_a_row += 1
        self._until = now + self._pause
        self._trying = False

    def given_up(self) -> None:
        """It says nothing about Keycloak."""
        self._trying = False
