"""What a database cannot take now waits: in memory, then on disk.

- Values go from memory to the database in batches as long as it takes them: nothing is on disk then.
- What the database did not confirm within :data:`SAFE_AFTER` seconds is put on disk too, the batch being written
  included. So a killed process loses no more than that, and what a stopped one could not write waits for the next.
- The oldest is written first: behind what waits on disk only, everything that comes is put on disk only. Half of the
  memory is for what waits there *and* on disk: a database that is a little too slow costs no reading.
- ``write`` raises :class:`TryLater` or :class:`Refused`: spoolretry.py says what happens then.
- A batch may be written twice (its answer was lost; the process was killed): writes must be idempotent.
- Bounds: ``memory_values`` and ``disk_bytes``. When both are full, ``put`` says no and counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from openems.backend.timedata.spoolfile import InUse, Item, Record, Segments, size_of
from openems.backend.timedata.spoolretry import Complaints, Delivery, Refused, TryLater, Write
from openems.backend.timedata.writes import Writes

T = TypeVar("T")
SAFE_AFTER = 1.0
TICK = 0.5


class Batch(msgspec.Struct, eq=False):
    """What one writer has in hand. ``records`` are its copies on disk."""

    items: list[Item]
    values: int
    since: float
    records: list[Record] = []
    saving: bool = False


class Spool:
    """``put`` is called on the reactor's thread, which also calls ``write``; files belong to a thread of their own.

    ``now`` gives epoch ms. Up to ``parallel`` batches of about ``batch_values`` are written at once; a smaller one
    leaves when its first value waited ``max_delay`` seconds. ``chance`` gives numbers from 0 to 1.
    """

    _log = Logger()

    def __init__(
        self,
        id: str,
        directory: Path,
        write: Write,
        *,
        reactor: Any,
        now: Callable[[], int],
        memory_values: int = 1_000_000,
        disk_bytes: int = 1 << 30,
        batch_values: int = 5_000,
        max_delay: float = 0.5,
        parallel: int = 1,
        chance: Callable[[], float] = lambda: 0.5,
        pool: Any = None,
    ) -> None:
        self.id = id
        self._reactor = reactor
        self._now = now
        self._memory_values = memory_values
        self._batch_values = batch_values
        self._max_delay = max_delay
        self._parallel = parallel
        self._segments = Segments(directory, disk_bytes)
        self._pool = pool if pool is not None else ThreadPool(0, 1, name=f"spool {id}")
        self._fresh: deque[tuple[Item, int]] = deque()
        self._fresh_values = 0
        self._fresh_since = 0.0
        self._moving = 0
        #: On disk and in memory, the oldest first; all of it older than what is on disk only.
        self._ready: deque[Batch] = deque()
        self._ready_values = 0
        self._batches: list[Batch] = []
        self._writers: list[Deferred[None]] = []
        self._sleepers: list[Deferred[None]] = []
        self._timer: Any = None
        self._alarm: Any = None
        self._tick_done: Deferred[None] | None = None
        self._reading = False
        self._flushing = 0
        self._stopping = False
        self._running = False
        self._complain = Complaints(id, reactor.seconds)
        self.writes = Writes(reactor.seconds, now)
        self._delivery = Delivery(
            id,
            write,
            wait=self._wait,
            chance=chance,
            complain=self._complain,
            waiting=lambda: self.waiting,
            writes=self.writes,
        )
        self._accepted = 0
        self._finished = 0
        self._flushes: list[tuple[int, Deferred[None]]] = []
        #: Values the database confirmed.
        self.written = 0
        #: Why the disk takes nothing at the moment.
        self.disk_trouble: str | None = None

    @property
    def batches(self) -> int:
        return self._delivery.batches

    @property
    def retries(self) -> int:
        return self._delivery.retries

    @property
    def dropped(self) -> dict[str, int]:
        """Values by reason."""
        return self._delivery.dropped

    @property
    def failing(self) -> str | None:
        """Why the database takes nothing at the moment."""
        return self._delivery.failing

    @property
    def waiting(self) -> int:
        """Values accepted and not yet written or dropped, those on disk included."""
        held = sum(record.values for batch in (*self._batches, *self._ready) for record in batch.records)
        in_hand = sum(batch.values for batch in self._batches) + self._ready_values
        return self._fresh_values + self._moving + in_hand + max(self._segments.values - held, 0)

    @property
    def waiting_on_disk(self) -> int:
        return self._segments.values

    @property
    def disk_bytes(self) -> int:
        return self._segments.bytes

    @property
    def files(self) -> int:
        """Segment files on disk."""
        return self._segments.files

    @property
    def damaged(self) -> int:
        """Places in segment files that could not be read."""
        return self._segments.damaged

    @property
    def unsafe(self) -> int:
        """Values that a kill -9 at this moment would lose."""
        return self._fresh_values + self._moving + sum(batch.values for batch in self._batches if not batch.records)

    @property
    def oldest_age(self) -> float:
        """Seconds that the oldest waiting value waits."""
        ages = [self._reactor.seconds() - batch.since for batch in (*self._batches, *list(self._ready)[:1])]
        if self._fresh:
            ages.append(self._reactor.seconds() - self._fresh_since)
        on_disk = self._segments.oldest
        if on_disk is not None:
            ages.append((self._now() - on_disk) / 1000)
        return max(ages, default=0.0)

    def put(self, item: Item) -> bool:
        """Takes it; False (and counted) where there is no room. Never waits."""
        rows = item[2]
        size = len(next(iter(rows.values()))) if len(rows) == 1 else size_of(item)
        if not size:
            return True
        in_memory = self._fresh_values + self._moving + self._ready_values
        if self._stopping or (self._fresh_values and in_memory + size > self._memory_values):
            self._delivery.drop("stopped" if self._stopping else "full", size)
            if not self._stopping:
                self._complain(
                    "full",
                    "{id}: {waiting} values wait and there is no room for more, values are dropped: {why}",
                    waiting=self.waiting,
                    why=self.disk_trouble or self.failing or "the disk is too slow",
                )
            return False
        if not self._fresh:
            self._fresh_since = self._reactor.seconds()
            if self._sleepers:
                self._alarm_in(self._max_delay)
        self._fresh.append((item, size))
        before = self._fresh_values
        self._fresh_values = before + size
        self._accepted += size
        if before < self._batch_values <= before + size:
            self._wake()
        return True

    async def start(self) -> None:
        """Takes over what waits on disk and begins to write. Raises :class:`~.spoolfile.InUse` where another process
        has the folder; other trouble with it is logged, and tried again later."""
        self._running = True
        self._pool.start()
        try:
            await self._disk(self._segments.open)
        except InUse:
            self._running = False
            self._pool.stop()
            raise
        except OSError as error:
            self._disk_failed(error)
        if self._segments.values:
            self._log.info(
                "{id}: {values} values wait in {path} since {since} s",
                id=self.id,
                values=self._segments.values,
                path=str(self._segments.directory),
                since=round(self.oldest_age),
            )
            self._accepted += self._segments.values
        self._writers = [Deferred.fromCoroutine(self._run()) for _ in range(self._parallel)]
        for writer in self._writers:
            writer.addErrback(self._writer_failed)
        self._timer = self._reactor.callLater(TICK, self._tick)

    def _writer_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("{id}: a writer ended", failure, id=self.id)

    async def flush(self) -> None:
        """What was taken so far is written (or refused) when this returns. It does not return while the database is
        away: give it a time-out."""
        if self._finished >= self._accepted:
            return
        waiting: Deferred[None] = Deferred()
        entry = (self._accepted, waiting)
        self._flushes.append(entry)
        self._wake()
        try:
            await waiting
        finally:
            if entry in self._flushes:
                self._flushes.remove(entry)

    async def stop(self, patience: float = 5.0) -> None:
        """Writes what waits for up to ``patience`` seconds if the database takes it; the rest goes to disk."""
        if not self._running:
            return
        if self.failing is None and patience > 0:
            # What was on disk may stay there: only what came since must find its way.
            late: Deferred[None] = Deferred.fromCoroutine(self.flush())
            late.addTimeout(patience, self._reactor)
            late.addErrback(lambda failure: None)
            await late
        self._stopping = True
        self._running = False
        for call in (self._timer, self._alarm):
            if call is not None and call.active():
                call.cancel()
        for writer in self._writers:
            writer.cancel()
        if self._tick_done is not None:
            await self._tick_done
        unsaved = [(item, size_of(item)) for batch in self._batches if not batch.records for item in batch.items]
        saved = [batch for batch in (*self._batches, *self._ready) if batch.records]
        unstorable = sum(batch.values - sum(record.values for record in batch.records) for batch in saved)
        if unstorable:
            self._delivery.drop("unstorable", unstorable)
        self._ready.clear()
        self._ready_values = 0
        self._batches.clear()
        unsaved += self._fresh
        self._fresh.clear()
        self._fresh_values = 0
        if unsaved:
            try:
                await self._disk(lambda: self._append(unsaved, False))
            except OSError as error:
                lost = sum(size for _, size in unsaved)
                self._delivery.drop("stopped", lost)
                self._log.error("{id}: {lost} values are lost: {error}", id=self.id, lost=lost, error=str(error))
        try:
            await self._disk(self._segments.close)
        except OSError:
            pass
        self._pool.stop()
        if self._segments.values:
            self._log.info("{id}: {values} values wait on disk", id=self.id, values=self._segments.values)

    # -- writing ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One writer."""
        while True:
            batch = await self._take()
            if batch is None:
                await self._sleep()
                continue
            self._batches.append(batch)
            dropped = await self._delivery.deliver(batch.items, self._leads(batch))
            while batch.saving:
                await self._wait(0.01)
            self._batches.remove(batch)
            self.written += batch.values - dropped
            self._finished += batch.values
            if batch.records:
                await self._settle(batch.records)
            self._release_flushes()

    def _leads(self, batch: Batch) -> Callable[[], bool]:
        return lambda: self._batches[0] is batch

    async def _settle(self, records: list[Record]) -> None:
        try:
            await self._disk(lambda: self._segments.done(records))
        except OSError as error:
            self._disk_failed(error)

    async def _take(self) -> Batch | None:
        """The next batch: of what waits on disk, else from memory if it is worth it."""
        if self._ready:
            batch = self._ready.popleft()
            self._ready_values -= batch.values
            return batch
        if self._segments.unread_values:
            try:
                records = await self._disk(lambda: self._segments.read(self._batch_values))
            except OSError as error:
                self._disk_failed(error)
                records = []
            self._count_damaged()
            if records:
                items = [item for record in records for item in record.items]
                since = self._reactor.seconds() - (self._now() - records[0].time) / 1000
                return Batch(items, sum(record.values for record in records), since, records)
        if self._moving or not self._fresh:
            return None
        age = self._reactor.seconds() - self._fresh_since
        if self._fresh_values < self._batch_values and age < self._max_delay - 0.001 and not self._flushes:
            self._alarm_in(self._max_delay - age)
            return None
        taken: list[Item] = []
        values = 0
        fresh = self._fresh
        while fresh and values < self._batch_values:
            item, size = fresh.popleft()
            taken.append(item)
            values += size
        self._fresh_values -= values
        return Batch(taken, values, self._fresh_since)

    def _count_damaged(self) -> None:
        lost = self._segments.damaged_values - self.dropped.get("damaged", 0)
        if lost:
            self._delivery.drop("damaged", lost)
            self._finished += lost
            self._release_flushes()
            self._complain("damaged", "{id}: a file of waiting values is damaged, {lost} values are lost", lost=lost)

    def _release_flushes(self) -> None:
        for entry in [entry for entry in self._flushes if entry[0] <= self._finished]:
            self._flushes.remove(entry)
            entry[1].callback(None)

    # -- waiting ---------------------------------------------------------------------------------

    def _alarm_in(self, seconds: float) -> None:
        if self._alarm is None or not self._alarm.active():
            self._alarm = self._reactor.callLater(seconds, self._wake)

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            sleeper.callback(None)

    async def _sleep(self) -> None:
        sleeper: Deferred[None] = Deferred(lambda deferred: self._sleepers.remove(deferred))
        self._sleepers.append(sleeper)
        await sleeper

    async def _wait(self, seconds: float) -> None:
        done: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._reactor.callLater(seconds, done.callback, None)
        await done

    # -- disk ------------------------------------------------------------------------------------

    def _disk(self, work: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._pool, work)

    def _tick(self) -> None:
        self._tick_done = Deferred.fromCoroutine(self._make_safe())
        self._tick_done.addErrback(lambda failure: self._log.failure("{id}: saving failed", failure, id=self.id))
        self._tick_done.addBoth(lambda _: self._tick_again())

    def _tick_again(self) -> None:
        self._tick_done = None
        if self._running:
            self._timer = self._reactor.callLater(TICK, self._tick)

    async def _make_safe(self) -> None:
        """Puts on disk what the database did not take in time."""
        latest = self._reactor.seconds() - SAFE_AFTER
        for batch in list(self._batches):
            if batch.since > latest or batch.records or batch not in self._batches:
                continue
            batch.saving = True
            pairs = [(item, 0) for item in batch.items]
            try:
                batch.records = await self._disk(lambda pairs=pairs: self._append(pairs, True))  # type: ignore[misc]
            except OSError as error:
                self._disk_failed(error)
            finally:
                batch.saving = False
        if self._fresh and (self.failing or self._segments.unread_values or self._fresh_since <= latest):
            pairs = list(self._fresh)
            self._fresh.clear()
            self._moving, self._fresh_values = self._fresh_values, 0
            since = self._fresh_since
            room = self._memory_values // 2 - self._ready_values
            keep = not self._segments.unread_values and self._moving <= room
            try:
                records = await self._disk(lambda: self._append(pairs, keep))
            except OSError as error:
                self._disk_failed(error)
                self._fresh.extendleft(reversed(pairs))
                self._fresh_values += self._moving
            else:
                if self.disk_trouble is not None:
                    self._log.info("{id}: the disk takes values again", id=self.id)
                self.disk_trouble = None
                if keep:
                    for items, record in zip(self._groups(pairs), records, strict=True):
                        self._ready.append(Batch(items, sum(map(size_of, items)), since, [record]))
                    self._ready_values += self._moving
            self._moving = 0
        self._wake()

    def _append(self, pairs: list[tuple[Item, int]], held: bool) -> list[Record]:
        """In the thread."""
        records, lost = self._segments.append(self._groups(pairs), self._now(), held=held)
        if lost and not held:
            self._reactor.callFromThread(self._left_out, lost)
        return records

    def _groups(self, pairs: list[tuple[Item, int]]) -> list[list[Item]]:
        """Batches of about ``batch_values``."""
        groups: list[list[Item]] = [[]]
        size = 0
        for item, _ in pairs:
            if size >= self._batch_values:
                groups.append([])
                size = 0
            groups[-1].append(item)
            size += size_of(item)
        return groups

    def _left_out(self, lost: int) -> None:
        self._delivery.drop("unstorable", lost)
        self._finished += lost
        self._release_flushes()

    def _disk_failed(self, error: OSError) -> None:
        self.disk_trouble = str(error)
        self._complain(
            "disk",
            "{id}: values that wait cannot be put on disk: {error}. {n} are kept in memory only",
            error=str(error),
            n=self._fresh_values,
        )


__all__ = ["Item", "Refused", "Spool", "TryLater"]
