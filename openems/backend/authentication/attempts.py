"""How often somebody may try to log in (auth.md S13). Pure: times are passed in.

Counted by the pair of address and user name, and by address alone. Some failures are free; after each further one the
next attempt is refused for a time that doubles. What is under way counts, too, so that many at once do not slip through
together: of a pair as failed until it succeeds; of an address, behind which a whole office may log in, by number.
By user name alone nothing is refused, else a stranger could lock a user out: there Keycloak has its own protection, and
:class:`Spacing` keeps us from setting it off.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NamedTuple

#: Seconds without an attempt after which failures are forgotten.
FORGET = 900.0
#: Seconds of the first refusal; doubles up to the rule's longest.
FIRST = 6.0
MAX_ENTRIES = 20_000
#: Attempts from one address that may be under way.
AT_ONCE = 200
AT_ONCE_AFTER_FAILURES = 3


class Rule(NamedTuple):
    free: int
    longest: float


PAIR = Rule(5, 300.0)
#: People behind one address, and after a weekend all their stored tokens are dead.
ADDRESS = Rule(30, 60.0)


class _Count:
    __slots__ = ("at", "failed", "until")

    def __init__(self, now: float) -> None:
        self.failed = 0
        self.at = now
        self.until = now


class _Table:
    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.counts: OrderedDict[str, _Count] = OrderedDict()

    def blocked(self, key: str, now: float) -> bool:
        count = self.counts.get(key)
        return count is not None and now < count.until

    def is_over(self, key: str, now: float) -> bool:
        """No failure is free any more."""
        count = self.counts.get(key)
        return count is not None and count.failed >= self.rule.free and now - count.at <= FORGET

    def failed(self, key: str, now: float) -> None:
        count = self.counts.pop(key, None)
        if count is None or now - count.at > FORGET:
            count = _Count(now)
        self.counts[key] = count
        if len(self.counts) > MAX_ENTRIES:
            self.counts.popitem(last=False)
        count.failed += 1
        count.at = now
        over = count.failed - self.rule.free
        if over >= 0:
            count.until = now + min(self.rule.longest, FIRST * 2.0 ** min(over, 16))

    def take_back(self, key: str, *, all_of_them: bool) -> None:
        count = self.counts.get(key)
        if count is not None:
            count.failed = 0 if all_of_them else max(0, count.failed - 1)
            count.until = count.at if count.failed < self.rule.free else count.until
            if not count.failed:
                del self.counts[key]


class Attempts:
    """``name`` is the lower-cased user name; empty for tokens, which are counted by address alone. After a
    :meth:`begin` that was granted comes exactly one of :meth:`succeeded`, :meth:`failed` and :meth:`void`."""

    def __init__(self, pair: Rule = PAIR, address: Rule = ADDRESS) -> None:
        self.refused = 0
        self._pairs = _Table(pair)
        self._addresses = _Table(address)
        self._under_way: Counter[str] = Counter()

    @property
    def size(self) -> int:
        return len(self._pairs.counts) + len(self._addresses.counts) + len(self._under_way)

    def begin(self, address: str, name: str, now: float) -> bool:
        """False: too many; nothing is counted then."""
        at_once = AT_ONCE_AFTER_FAILURES if self._addresses.is_over(address, now) else AT_ONCE
        pair = f"{address}\n{name}"
        if (
            self._under_way[address] >= at_once
            or self._addresses.blocked(address, now)
            or (name and self._pairs.blocked(pair, now))
        ):
            self.refused += 1
            return False
        self._under_way[address] += 1
        if name:
            self._pairs.failed(pair, now)
        return True

    def succeeded(self, address: str, name: str) -> None:
        self._ended(address)
        if name:
            self._pairs.take_back(f"{address}\n{name}", all_of_them=True)

    def failed(self, address: str, name: str, now: float) -> None:
        # The pair's is counted already.
        self._ended(address)
        self._addresses.failed(address, now)

    def void(self, address: str, name: str) -> None:
        """Nobody could tell whether it was right."""
        self._ended(address)
        if name:
            self._pairs.take_back(f"{address}\n{name}", all_of_them=False)

    def _ended(self, address: str) -> None:
        self._under_way[address] -= 1
        if self._under_way[address] <= 0:
            del self._under_way[address]


class Spacing:
    """Failures of one user name are kept apart: two within a second make Keycloak lock the user for a minute,
    whatever its other settings (odoo-keycloak-verified.md 2.3)."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next: OrderedDict[str, float] = OrderedDict()

    def wait(self, name: str, now: float) -> float:
        """Seconds until the next attempt of this name."""
        return max(0.0, self._next.get(name, now) - now)

    def failed(self, name: str, now: float) -> None:
        self._next[name] = now + self._seconds
        self._next.move_to_end(name)
        if len(self._next) > MAX_ENTRIES:
            self._next.popitem(last=False)
