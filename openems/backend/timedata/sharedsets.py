"""Names of channels that many edges have alike, kept once.

An edge has hundreds of channels, and a set of 700 names takes 32 kB; edges of one kind have the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakValueDictionary

Names = frozenset[str]
NONE: Names = frozenset()


class SharedSets:
    """Equal sets that come from here are one object, as long as anybody has it."""

    def __init__(self) -> None:
        self._sets: WeakValueDictionary[int, Names] = WeakValueDictionary()

    def one(self, names: Names) -> Names:
        found = self._sets.setdefault(hash(names), names)
        return found if found == names else names

    def plus(self, names: Names, rows: Iterable[Iterable[str]], limit: int) -> Names:
        """``names`` and those in ``rows``; ``names`` alone where that would be more than ``limit``.

        It costs a copy where there is something new: call it once for a notification, not for each of its rows.
        """
        new: set[str] = set()
        for row in rows:
            if not names.issuperset(row):
                new.update(row)
        new -= names
        return self.one(names | new) if new and len(names) + len(new) <= limit else names
