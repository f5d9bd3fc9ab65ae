"""When the next mail may go: so many a minute, so many at once, and none while the server is away. Pure.

All times are epoch milliseconds of a clock that somebody may set: what lies in the future has not happened, and no
pause is longer than it was meant.
"""

from __future__ import annotations

from collections import deque

MINUTE = 60_000
HOUR = 60 * MINUTE
#: Minutes between tries of a server that cannot be used.
SERVER_MINUTES = (1, 2, 5)
#: The server is away for that long: this does not work.
FAILING = 15 * MINUTE


class Pace:
    def __init__(self, *, per_minute: int, parallel: int) -> None:
        #: Tries in a row without a word about a mail.
        self.failures = 0
        #: Why the server cannot be used, or None.
        self.problem: str | None = None
        self._per_minute = per_minute
        self._parallel = parallel
        self._begun: deque[int] = deque()
        self._pause_until = 0
        self._failing_since = 0

    @property
    def at_once(self) -> int:
        """A server that did not answer is tried with one mail."""
        return 1 if self.failures else self._parallel

    def free_at(self, now: int) -> int:
        """When the next mail may begin; not after ``now``: at once."""
        _forget(self._begun, now - MINUTE, now)
        slot = self._begun[0] + MINUTE if len(self._begun) >= self._per_minute else now
        self._pause_until = min(self._pause_until, now + SERVER_MINUTES[-1] * MINUTE)
        return max(slot, self._pause_until)

    def begins(self, now: int) -> None:
        self._begun.append(now)

    def fails(self, now: int, problem: str) -> bool:
        """No word about a mail. True: worth a line in the log."""
        self._pause_until = now + SERVER_MINUTES[min(self.failures, len(SERVER_MINUTES) - 1)] * MINUTE
        self.failures += 1
        self._failing_since = self._failing_since or now
        self.problem = problem
        return self.failures == 1 or self.failures % 12 == 0

    def answers(self) -> bool:
        """The server said something. True: for the first time since it failed."""
        if not self.failures:
            return False
        self.failures = self._failing_since = self._pause_until = 0
        self.problem = None
        return True

    def is_failing(self, now: int) -> bool:
        return bool(self._failing_since) and now - self._failing_since > FAILING


def _forget(times: deque[int], until: int, now: int) -> None:
    """Those up to ``until``, and those after ``now``."""
    while times and times[0] <= until:
        times.popleft()
    while times and times[-1] > now:
        times.pop()


class Budget:
    """So many mails an hour for each reader; what is more goes together. Bounded by the readers of an hour."""

    def __init__(self, per_hour: int) -> None:
        self._per_hour = per_hour
        self._sent: dict[str, deque[int]] = {}

    def _recent(self, login: str, now: int) -> deque[int]:
        recent = self._sent.get(login)
        if recent is None:
            return deque()
        _forget(recent, now - HOUR, now)
        if not recent:
            del self._sent[login]
        return recent

    def free(self, login: str, now: int) -> int:
        """How many more he may get now."""
        return self._per_hour - len(self._recent(login, now))

    def free_at(self, login: str, now: int) -> int:
        """When he may get one more."""
        recent = self._recent(login, now)
        return recent[0] + HOUR if len(recent) >= self._per_hour else now

    def sent(self, login: str, now: int) -> None:
        self._recent(login, now)
        self._sent.setdefault(login, deque()).append(now)
