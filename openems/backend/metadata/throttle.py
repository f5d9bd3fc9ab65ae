"""Slows wrong logins down (troubles of unprotected logins; auth.md S13). Pure: times are passed in.

An attempt counts as wrong from its begin, so that many at once do not slip through together; a right one is taken
back. Counted by the pair of login and address, by address alone, and by login alone. The last one only up to a
few seconds, otherwise a stranger could lock a user out by trying his name.

The stock UI repeats every refused login once (ui.md 15.7): the same attempt within two seconds of its answer is not
counted again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NamedTuple

#: seconds without an attempt after which wrong ones are forgotten.
FORGET = 900.0
#: seconds after the answer in which the same attempt is a repetition.
REPEAT = 2.0
#: entries a table holds; the oldest go first.
MAX_ENTRIES = 10_000


class Rule(NamedTuple):
    """The first ``free`` attempts do not wait; the next ones 0.5 s, 1 s, 2 s up to ``longest``."""

    free: int
    longest: float


_PAIR = Rule(3, 30.0)
_ADDRESS = Rule(10, 30.0)
_LOGIN = Rule(10, 5.0)
#: Seconds: whoever waits longer made wrong attempts himself; up to that it may be somebody whose name others try.
SUSPECT = _LOGIN.longest


class _Count:
    __slots__ = ("at", "wrong")

    def __init__(self) -> None:
        self.wrong = 0
        self.at = 0.0


class _Table:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def begin(self, key: str, now: float) -> float:
        count = self._counts.pop(key, None)
        if count is None or now - count.at > FORGET:
            count = _Count()
        self._counts[key] = count
        if len(self._counts) > MAX_ENTRIES:
            self._counts.popitem(last=False)
        over = count.wrong - self._rule.free
        count.wrong += 1
        count.at = now
        return 0.0 if over < 0 else min(self._rule.longest, 0.5 * 2.0 ** min(over, 16))

    def take_back(self, key: str, *, all_of_them: bool) -> None:
        count = self._counts.get(key)
        if count is not None:
            count.wrong = 0 if all_of_them else max(0, count.wrong - 1)

    def __len__(self) -> int:
        return len(self._counts)


class Places:
    """Where attempts wait: for the end of their delay, or for whoever verifies them. Those that wait for longer than
    :data:`SUSPECT` have places of their own, so that attackers who take them all keep out none but each other."""

    def __init__(self, most: int, most_of_address: int) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._addresses: Counter[str] = Counter()
        self._taken = {False: 0, True: 0}

    def is_full_for(self, address: str) -> bool:
        return self._addresses[address] >= self._most_of_address

    def take(self, address: str, *, suspect: bool) -> bool:
        """False: there is none. After True comes one :meth:`leave`."""
        if self.is_full_for(address) or self._taken[suspect] >= self._most:
            return False
        self._addresses[address] += 1
        self._taken[suspect] += 1
        return True

    def leave(self, address: str, *, suspect: bool) -> None:
        self._taken[suspect] -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def __len__(self) -> int:
        return sum(self._taken.values())


class Throttle:
    def __init__(self) -> None:
        self._pairs = _Table(_PAIR)
        self._addresses = _Table(_ADDRESS)
        self._logins = _Table(_LOGIN)
        self._refused: OrderedDict[bytes, float] = OrderedDict()

    def is_repetition(self, attempt: bytes, now: float) -> bool:
        """``attempt`` is a digest of login, address and password."""
        at = self._refused.get(attempt)
        return at is not None and now - at <= REPEAT

    def begin(self, login: str, address: str, now: float) -> float:
        """Seconds this attempt has to wait."""
        return max(
            self._pairs.begin(f"{login}\n{address}", now),
            self._addresses.begin(address, now),
            self._logins.begin(login, now),
        )

    def succeeded(self, login: str, address: str) -> None:
        self._pairs.take_back(f"{login}\n{address}", all_of_them=True)
        # Not all of them: who has one account must not buy attempts on others with it.
        self._addresses.take_back(address, all_of_them=False)
        self._logins.take_back(login, all_of_them=False)

    def unverified(self, login: str, address: str) -> None:
        """Nobody could tell: as if this attempt had not been made."""
        for table, key in (
            (self._pairs, f"{login}\n{address}"),
            (self._addresses, address),
            (self._logins, login),
        ):
            table.take_back(key, all_of_them=False)

    def refused(self, attempt: bytes, now: float) -> None:
        self._refused.pop(attempt, None)
        self._refused[attempt] = now
        if len(self._refused) > MAX_ENTRIES:
            self._refused.popitem(last=False)

    @property
    def size(self) -> int:
        return len(self._pairs) + len(self._addresses) + len(self._logins) + len(self._refused)
