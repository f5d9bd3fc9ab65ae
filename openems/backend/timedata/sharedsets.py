"""Names of channels that many edges have alike, kept once.

An edge has hundreds of channels, and a set of 700 names takes 32 kB; edges of one kind have the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
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
        """``names`` and those in ``rows``, up to ``limit``.

        It costs a copy where there is something new: call it once for a notification, not for each of its rows.
        """
        new: dict[str, None] = {}
        for row in rows:
            if not names.issuperset(row):
                new.update(dict.fromkeys(row))
        if not new or len(names) >= limit:
            return names
        return self.one(names.union(islice((name for name in new if name not in names), limit - len(names))))
