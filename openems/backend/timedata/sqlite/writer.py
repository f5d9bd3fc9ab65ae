"""When the embedded history is written: the thread around the store.

A notification is taken as it is on the reactor's side; everything that looks at single values happens in the thread.

- A commit at least each second: a killed process loses no more than that.
- If the file cannot be written (disk full, read-only), what was taken is kept and tried again; what comes meanwhile
  waits up to ``queue_rows`` values; then it is dropped and counted.
- A corrupt file is moved aside and a new one begun.
- A stop has an end: what is not written by then goes to a file beside (leftover.py) and is written at the next start.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import Logger

from openems.backend.timedata.spoolfile import size_of
from openems.backend.timedata.sqlite import leftover, schema
from openems.backend.timedata.sqlite.store import Item, Store
from openems.backend.timedata.writes import Writes
from openems.common.data import Row


class Writer:
    """The thread around a :class:`Store`. ``put`` and ``flush`` are called from one other thread, the reactor's.

    ``open_store`` makes the store (in the thread); ``call`` brings a call to the reactor's thread.
    """

    COMMIT_DELAY = 0.5
    BATCH = 20_000
    #: Of a stopping one: it looks at the time after each.
    LAST_BATCH = 4_000
    #: When more wait at a stop, it does not begin to write them: they go to the file beside, which is quick.
    LAST_VALUES = 40_000
    MAX_RETRY = 30.0
    LOG_EVERY = 60.0
    _log = Logger()

    def __init__(
        self,
        id: str,
        path: str,
        open_store: Callable[[], Store],
        *,
        now: Callable[[], int],
        queue_rows: int,
        call: Callable[..., Any],
        first_retry: float = 1.0,
    ) -> None:
        self._id = id
        self._path = path
        self._open_store = open_store
        self._now = now
        self._queue_rows = queue_rows
        self._call = call
        self._first_retry = first_retry
        self.writes = Writes(clock.monotonic, now)
        self._condition = threading.Condition()
        self._queue: deque[tuple[Item, int]] = deque()
        self._first_waiting = 0.0
        self._accepted = 0
        self._written = 0
        self._flushes: list[tuple[int, Callable[[], None]]] = []
        self._stop_at: float | None = None
        self._ended: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None
        self._store: Store | None = None
        self._logged_at = -self.LOG_EVERY
        self._failing = False
        self._full_logged_at = -self.LOG_EVERY
        self._logged_reasons: set[str] = set()
        self._opened: Callable[[], None] | None = None
        self._leftover: Iterator[list[Item]] | None = None
        self._taken_over = 0
        #: Something of the last run is not written yet.
        self._behind = os.path.exists(leftover.path_of(path))
        # Counters of closed stores; read from the other thread, written by this one only.
        self._rows = 0
        self._store_dropped: dict[str, int] = {}
        self.waiting = 0
        self.batches = 0
        self.failures = 0
        self.corrupt_files = 0
        self._dropped: dict[str, int] = {}
        #: Told to readers: another number means another file at the same path.
        self.generation = 0

    @property
    def rows(self) -> int:
        store = self._store
        return self._rows + (store.rows if store is not None else 0)

    @property
    def series(self) -> int:
        store = self._store
        return store.series if store is not None else 0

    @property
    def dropped(self) -> dict[str, int]:
        """Values not stored, by reason."""
        store = self._store
        result = dict(self._dropped)
        for source in (self._store_dropped, dict(store.dropped) if store is not None else {}):
            for reason, count in source.items():
                result[reason] = result.get(reason, 0) + count
        return result

    @property
    def failing(self) -> bool:
        """The file cannot be written at the moment."""
        return self._failing

    def start(self, opened: Callable[[], None]) -> None:
        """``opened`` is called in the other thread after the first try to open the file."""
        self._opened = opened
        self._thread = threading.Thread(target=self._run, name=f"history {self._id}", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Queue a notification; False (and counted) if there is no room for it. Never waits for the disk."""
        edge, kind, rows = item
        size = sum(map(len, rows.values()))
        if not size:
            return True
        with self._condition:
            if self._stop_at is not None or (self.waiting and self.waiting + size > self._queue_rows):
                reason = "queue" if self._stop_at is None else "stopped"
                self._dropped[reason] = self._dropped.get(reason, 0) + size
                if clock.monotonic() - self._full_logged_at >= self.LOG_EVERY:
                    self._full_logged_at = clock.monotonic()
                    self._log.error(
                        "{id}: {waiting} values wait for the disk, no room for more: values are dropped",
                        id=self._id,
                        waiting=self.waiting,
                    )
                return False
            if not self._queue:
                self._first_waiting = clock.monotonic()
            # Small pieces: between them the thread lets others run, and commits.
            pieces = (
                [(item, size)]
                if size <= self.BATCH
                else [((edge, kind, part), n) for part, n in _split(rows, self.BATCH)]
            )
            self._queue.extend(pieces)
            self._accepted += len(pieces)
            before, self.waiting = self.waiting, self.waiting + size
            if not before or before < self.BATCH <= self.waiting:
                self._condition.notify()
        return True

    def flush(self, done: Callable[[], None]) -> None:
        """Write what is waiting now; ``done`` is called in the other thread when it is committed (or given up)."""
        with self._condition:
            through = self._accepted == self._written and not self._behind
            if self._thread is None or not self._thread.is_alive() or through:
                self._call(done)
                return
            self._flushes.append((self._accepted, done))
            self._condition.notify()

    def stop(self, patience: float, done: Callable[[], None]) -> None:
        """Write what is waiting, for at most ``patience`` seconds, and end the thread; then ``done`` is called."""
        with self._condition:
            self._stop_at = clock.monotonic() + patience
            self._ended = done
            self._condition.notify()

    def hurry(self) -> None:
        """From the other thread: the time of a stop is over, what is being written is given up."""
        store = self._store
        if self._stop_at is not None and store is not None:
            store.interrupt()

    def _run(self) -> None:
        try:
            self._work_until_stopped()
        finally:
            self._release_flushes(all_of_them=True)
            if self._ended is not None:
                self._call(self._ended)

    def _work_until_stopped(self) -> None:
        batch: list[tuple[Item, int]] = []
        retry = self._first_retry
        more = False
        while True:
            if not batch and self._stop_at is not None and self.waiting > self.LAST_VALUES:
                self._give_up(batch)
                break
            if not batch:
                batch = self._take(hurry=more or self._store is None)
            if not batch and self._stop_at is not None:
                break
            try:
                more = self._work(batch)
            except schema.UnknownVersion as error:
                self._fail(str(error))
            except sqlite3.Error as error:
                if schema.is_broken(error) and self._set_aside(error):
                    continue
                self._fail(f"{error} ({getattr(error, 'sqlite_errorname', '')})")
            except OSError as error:
                self._fail(str(error))
            except Exception as error:
                # A mistake of ours: this batch cannot be written, the next one can.
                self._count("error", sum(size for _, size in batch))
                self._call(self._log.error, "{id}: batch lost: {error!r}", id=self._id, error=error)
                self._done(batch)
                batch = []
            else:
                retry = self._first_retry
                if self._failing:
                    self._failing = False
                    self._call(self._log.info, "{id}: history is written again to {path}", id=self._id, path=self._path)
                self._done(batch)
                batch = []
                if self._stop_at is not None and self._queue and clock.monotonic() >= self._stop_at:
                    self._give_up(batch)
                    break
                continue
            if batch or self._store is None:
                more = False
                with self._condition:
                    left = retry if self._stop_at is None else min(retry, self._stop_at - clock.monotonic())
                    if left > 0:
                        # Notified by the next put too, hence the loop's own clock.
                        self._condition.wait_for(lambda: self._stop_at is not None, left)
                    given_up = self._stop_at is not None and clock.monotonic() >= self._stop_at
                retry = min(retry * 2, self.MAX_RETRY)
                if given_up:
                    self._give_up(batch)
                    break
        if self._store is not None:
            self._close_store()

    def _take(self, hurry: bool) -> list[tuple[Item, int]]:
        """What waits and is worth a commit. Waits for it for up to a second, in a ``hurry`` not at all."""
        with self._condition:
            if not self._queue and not hurry and self._stop_at is None:
                self._condition.wait(1.0)
            while self._queue and self._stop_at is None and not self._flushes and self.waiting < self.BATCH:
                left = self._first_waiting + self.COMMIT_DELAY - clock.monotonic()
                if left <= 0:
                    break
                if hurry:
                    return []
                self._condition.wait(left)
            batch: list[tuple[Item, int]] = []
            size = 0
            limit = self.BATCH if self._stop_at is None else self.LAST_BATCH
            while self._queue and size < limit:
                batch.append(self._queue.popleft())
                size += batch[-1][1]
            if self._queue:
                self._first_waiting = 0.0  # the rest waited long enough
            return batch

    def _work(self, batch: list[tuple[Item, int]]) -> bool:
        if self._store is None:
            self._store = self._open_store()
            self._tell_opened()
            self._leftover = leftover.load(self._path)
            self._taken_over = 0
        now = self._now()
        if batch:
            begun = self.writes.clock()
            self._store.apply([item for item, _ in batch], now)
            self.batches += 1
            self.writes.done(begun)
            for reason in self._store.first_dropped.keys() - self._logged_reasons:
                self._logged_reasons.add(reason)
                self._call(
                    self._log.warn,
                    "{id}: value not stored ({reason}), first from {edge_id}; more of this kind are only counted",
                    id=self._id,
                    reason=reason,
                    edge_id=self._store.first_dropped[reason],
                )
        if self._stop_at is not None:
            return False  # the next start does it
        more = self._take_over(self._store, now)
        more = self._store.roll(now) or more
        return self._store.expire(now) or more

    def _take_over(self, store: Store, now: int) -> bool:
        """A part of what the last process had no time for; True if there is more."""
        if self._leftover is None:
            return False
        items = next(self._leftover, None)
        if items is not None:
            store.apply(items, now)
            self._taken_over += sum(map(size_of, items))
            return True
        self._leftover = None
        leftover.remove(self._path)
        self._behind = False
        self._release_flushes()
        if self._taken_over:
            self._call(self._log.info, "{id}: {n} values of the last run are written", id=self._id, n=self._taken_over)
        return False

    def _done(self, batch: list[tuple[Item, int]]) -> None:
        with self._condition:
            self._written += len(batch)
            self.waiting -= sum(size for _, size in batch)
        self._release_flushes()

    def _release_flushes(self, all_of_them: bool = False) -> None:
        with self._condition:
            written = -1 if self._behind else self._written
            ready = [done for target, done in self._flushes if all_of_them or target <= written]
            self._flushes = [pair for pair in self._flushes if not all_of_them and pair[0] > written]
        for done in ready:
            self._call(done)

    def _count(self, reason: str, values: int) -> None:
        with self._condition:
            self._dropped[reason] = self._dropped.get(reason, 0) + values

    def _tell_opened(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            self._call(opened)

    def _fail(self, text: str) -> None:
        self._tell_opened()
        self.failures += 1
        self._failing = True
        if clock.monotonic() - self._logged_at >= self.LOG_EVERY:
            self._logged_at = clock.monotonic()
            self._call(
                self._log.error,
                "{id}: cannot write history to {path}: {text}. Live data goes on; {waiting} of {bound} values wait",
                id=self._id,
                path=self._path,
                text=text,
                waiting=self.waiting,
                bound=self._queue_rows,
            )
        # The next try opens the file anew: it may have been replaced, remounted or made writable.
        self._close_store()

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        self._rows += store.rows
        for reason, count in store.dropped.items():
            self._store_dropped[reason] = self._store_dropped.get(reason, 0) + count
        try:
            store.close()
        except sqlite3.Error as error:
            self._call(self._log.warn, "{id}: closing {path}: {error}", id=self._id, path=self._path, error=error)

    def _set_aside(self, error: sqlite3.Error) -> bool:
        self._close_store()
        try:
            aside = schema.move_aside(self._path, self._now())
        except OSError as reason:
            self._fail(f"{error}; it cannot be moved aside: {reason}")
            return False
        self.generation += 1
        self.corrupt_files += 1
        self._call(
            self._log.error,
            "{id}: {path} is corrupt ({error}). It was moved to {aside}; a new history is begun",
            id=self._id,
            path=self._path,
            error=error,
            aside=aside,
        )
        return True

    def _give_up(self, batch: list[tuple[Item, int]]) -> None:
        with self._condition:
            left = [item for item, _ in (*batch, *self._queue)]
            lost = self.waiting
            self._queue.clear()
        if not lost:
            return
        try:
            leftover.save(self._path, left, self._now())
        except OSError as error:
            self._count("stopped", lost)
            self._call(
                self._log.error,
                "{id}: {lost} values could not be written: {why}",
                id=self._id,
                lost=lost,
                why=str(error),
            )
        else:
            self._call(
                self._log.info,
                "{id}: {n} values wait in {path} for the next start",
                id=self._id,
                n=lost,
                path=leftover.path_of(self._path),
            )
        with self._condition:
            self._written += len(left)
            self.waiting = 0


def _split(rows: dict[int, Row], limit: int) -> Iterator[tuple[dict[int, Row], int]]:
    part: dict[int, Row] = {}
    size = 0
    for time, row in rows.items():
        part[time] = row
        size += len(row)
        if size >= limit:
            yield part, size
            part, size = {}, 0
    if part:
        yield part, size
