from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.spool import Refused, Spool, TryLater
from openems.backend.timedata.spoolfile import InUse, Item, Segments, size_of
from openems.backend.timedata.spoolretry import MAX_RETRY, halves, pause
from openems.common.data import DataKind
from openems.testing.services import now_of


class InlinePool:
    """A thread pool without threads."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def callInThreadWithCallback(self, on_result: Callable[..., None], work: Callable[..., Any], *args: Any) -> None:
        try:
            result = work(*args)
        except BaseException:
            from twisted.python.failure import Failure

            on_result(False, Failure())
        else:
            on_result(True, result)


class World(Clock):
    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)

    def pass_(self, seconds: float, step: float = 0.05) -> None:
        self.pump([step] * round(seconds / step))


class Database:
    """``values``: (edge, time, channel) -> value. ``away``: no write succeeds. ``bad``: channels it refuses."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, int, str], Any] = {}
        self.away = False
        self.bad: set[str] = set()
        self.batches: list[int] = []
        self.order: list[int] = []
        self.hang: list[Deferred[None]] | None = None

    async def write(self, items: list[Item]) -> None:
        if self.hang is not None:
            waiting: Deferred[None] = Deferred()
            self.hang.append(waiting)
            await waiting
        if self.away:
            raise TryLater("connection refused")
        if any(channel in self.bad for _, _, rows in items for row in rows.values() for channel in row):
            raise Refused("conflict", "no such thing")
        self.batches.append(sum(map(size_of, items)))
        for edge, _, rows in items:
            for time, row in rows.items():
                self.order.append(time)
                for channel, value in row.items():
                    self.values[(edge, time, channel)] = value


def one(time: int, **values: Any) -> Item:
    return (
        "edge0",
        DataKind.TIMESTAMPED,
        {time: {f"a0/{name}": value for name, value in (values or {"B": 1}).items()}},
    )


class PureTests(SynchronousTestCase):
    @given(st.integers(1, 10_000), st.floats(0, 1))
    def test_pauses_grow_to_a_bound(self, failures: int, chance: float) -> None:
        self.assertLessEqual(pause(failures), pause(failures + 1))
        self.assertLessEqual(pause(failures, chance), MAX_RETRY * 1.2001)
        self.assertGreater(pause(failures, chance), 0.3)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5)), min_size=1))
    def test_halves_lose_nothing_and_end(self, cells: list[tuple[int, int, int]]) -> None:
        items: dict[int, dict[int, dict[str, Any]]] = {}
        for edge, time, channel in cells:
            items.setdefault(edge, {}).setdefault(time, {})[f"a0/C{channel}"] = 1
        todo: list[list[Item]] = [[(f"edge{edge}", DataKind.RESEND, rows) for edge, rows in items.items()]]
        single = 0
        while todo:
            part = todo.pop()
            split = halves(part)
            if split is None:
                self.assertEqual(1, sum(map(size_of, part)))
                single += 1
            else:
                self.assertEqual(sum(map(size_of, part)), sum(map(size_of, split[0] + split[1])))
                todo += split
        self.assertEqual(len(set(cells)), single)


class SpoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = World()
        self.database = Database()
        self.path = Path(self.mktemp())
        self.lines: list[str] = []
        observer = lambda event: self.lines.append(event.get("log_format") or "")  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def make(self, **options: Any) -> Spool:
        spool = Spool(
            "timedata0",
            self.path,
            self.database.write,
            reactor=self.clock,
            now=lambda: round(self.clock.seconds() * 1000),
            pool=InlinePool(),
            **options,
        )
        now_of(spool.start())
        self.addCleanup(self.end, spool)
        return spool

    def end(self, spool: Spool) -> None:
        if self.database.hang:
            self.database.hang.clear()
        stopped = Deferred.fromCoroutine(spool.stop(0.2))
        self.clock.pass_(1)
        self.successResultOf(stopped)
        self.assertEqual([], self.clock.getDelayedCalls())

    def files(self) -> int:
        return len(list(self.path.glob("*.spool")))

    def test_a_batch_leaves_when_it_is_full_or_after_a_while(self) -> None:
        spool = self.make(batch_values=10)
        for time in range(10):
            spool.put(one(time))
        self.assertEqual([10], self.database.batches)
        spool.put(one(11))
        self.clock.advance(0.4)
        self.assertEqual([10], self.database.batches)
        self.clock.advance(0.1)
        self.assertEqual(([10, 1], 11, 0, 0), (self.database.batches, spool.written, spool.waiting, self.files()))

    def test_what_was_taken_and_when(self) -> None:
        """metrics.md 17"""
        spool = self.make(batch_values=10)
        self.assertEqual((spool.writes.last, spool.writes.durations.count), (None, 0))
        self.database.away = True
        for time in range(10):
            spool.put(one(time))
        self.clock.pass_(5)
        self.assertEqual((spool.writes.last, spool.writes.durations.count), (None, 0))
        self.database.away = False
        self.clock.pass_(40)
        last = spool.writes.last
        assert last is not None
        self.assertGreater(last, 5_000)
        self.assertLess(last, 45_000)
        # Not the outage: the try that succeeded.
        self.assertEqual((spool.writes.durations.count, spool.writes.durations.counts[0]), (1, 1))

    def test_an_outage_loses_nothing_and_keeps_the_order(self) -> None:
        spool = self.make(batch_values=10)
        self.database.away = True
        for time in range(500):
            self.assertTrue(spool.put(one(time)))
            self.clock.advance(0.1)
        self.assertEqual((500, 0), (spool.waiting, spool.written))
        self.assertLessEqual(spool.unsafe, 15)
        self.assertGreater(spool.oldest_age, 45)
        self.assertEqual("connection refused", spool.failing)
        self.assertEqual(1, sum("cannot write history" in line for line in self.lines))
        self.database.away = False
        self.clock.pass_(40)
        self.assertEqual((500, 0, 0), (len(self.database.values), spool.waiting, self.files()))
        self.assertEqual(list(range(500)), self.database.order)
        self.assertIsNone(spool.failing)
        self.assertEqual({}, spool.dropped)

    def test_a_slow_database_costs_no_reading(self) -> None:
        """What waits is on disk, for a kill -9, and written from memory."""
        spool = self.make(batch_values=5)
        self.patch(Segments, "read", lambda *_: self.fail("nothing is to be read"))
        self.database.away = True
        for time in range(100):
            spool.put(one(time))
            self.clock.advance(0.05)
        self.assertEqual(100, spool.waiting)
        self.assertLessEqual(spool.unsafe, 25)
        self.assertGreaterEqual(spool.waiting_on_disk, 75)
        self.database.away = False
        self.clock.pass_(20)
        self.assertEqual((list(range(100)), 0, 0), (self.database.order, spool.waiting, self.files()))

    def test_what_waits_in_memory_is_bounded_and_the_order_kept(self) -> None:
        spool = self.make(batch_values=5, memory_values=100)
        self.database.away = True
        for time in range(400):
            self.assertTrue(spool.put(one(time)))
            self.clock.advance(0.05)
        in_memory = spool._fresh_values + spool._moving + spool._ready_values
        self.assertLessEqual(spool._ready_values, 50)
        self.assertGreater(spool._ready_values, 20)
        self.assertLessEqual(in_memory, 100)
        self.assertEqual(400, spool.waiting)
        self.database.away = False
        for time in range(400, 600):
            self.assertTrue(spool.put(one(time)))
            self.clock.advance(0.05)
        self.clock.pass_(20)
        self.assertEqual((list(range(600)), 0, 0), (self.database.order, spool.waiting, self.files()))
        self.assertEqual((600, {}), (spool.written, spool.dropped))

    def test_what_no_file_can_hold_is_counted_when_it_stops(self) -> None:
        spool = self.make(batch_values=5)
        self.database.away = True
        for time in range(20):
            spool.put(one(time, **({"Large": 2**70} if time == 3 else {"A": 1})))
            self.clock.advance(0.2)
        self.assertEqual({}, spool.dropped)
        self.end(spool)
        self.assertEqual({"unstorable": 1}, spool.dropped)

    def test_what_waits_in_memory_survives_a_kill(self) -> None:
        clock = World()
        killed = Spool(
            "timedata0",
            self.path,
            self.database.write,
            reactor=clock,
            now=lambda: round(clock.seconds() * 1000),
            pool=InlinePool(),
            batch_values=5,
        )
        now_of(killed.start())
        self.database.away = True
        for time in range(50):
            killed.put(one(time))
            clock.advance(0.1)
        lost = killed.unsafe
        killed._segments.close()  # as the end of a process does
        self.database.away = False
        spool = self.make(batch_values=5)
        self.clock.pass_(20)
        self.assertEqual((50 - lost, list(range(50 - lost))), (spool.written, self.database.order))
        self.assertLess(lost, 20)

    def test_what_a_stopped_process_could_not_write_is_written_by_the_next(self) -> None:
        spool = self.make()
        self.database.away = True
        for time in range(7):
            spool.put(one(time))
            self.clock.advance(0.3)
        self.end(spool)
        self.assertEqual(7, spool.waiting_on_disk)
        self.assertFalse(spool.put(one(8)))
        self.assertEqual({"stopped": 1}, spool.dropped)
        self.database.away = False
        again = self.make()
        self.assertEqual(7, again.waiting + again.written)
        done = Deferred.fromCoroutine(again.flush())
        self.clock.pass_(1)
        self.successResultOf(done)
        self.assertEqual((7, 0, 0), (len(self.database.values), again.waiting, self.files()))

    def test_stopping_writes_what_waits(self) -> None:
        spool = self.make()
        spool.put(one(1))
        self.end(spool)
        self.assertEqual((1, 0), (len(self.database.values), self.files()))

    def test_a_slow_write_is_on_disk_meanwhile(self) -> None:
        spool = self.make(batch_values=1)
        self.database.hang = []
        spool.put(one(1))
        self.assertEqual(1, spool.unsafe)
        self.clock.pass_(2)
        self.assertEqual((0, 1, 1), (spool.unsafe, spool.waiting_on_disk, spool.waiting))
        self.database.hang.pop().callback(None)
        self.clock.pass_(1)
        self.assertEqual((0, 0, 0, 1), (spool.waiting, spool.waiting_on_disk, self.files(), spool.written))
        self.assertEqual([1], self.database.batches)

    def test_one_bad_value_costs_itself(self) -> None:
        spool = self.make(batch_values=1000)
        self.database.bad = {"a0/Bad", "a0/Worse"}
        for time in range(100):
            spool.put(one(time, A=1, B=2, **({"Bad": 3} if time == 50 else {}), **({"Worse": 3} if time == 51 else {})))
        self.clock.pass_(1)
        self.assertEqual(200, len(self.database.values))
        self.assertEqual(({"conflict": 2}, 0, 200), (spool.dropped, spool.waiting, spool.written))
        self.assertEqual(1, sum("cannot be written" in line for line in self.lines))

    def test_the_database_goes_away_while_a_bad_value_is_looked_for(self) -> None:
        spool = self.make(batch_values=1000)
        self.database.bad = {"a0/Bad"}
        write, calls = self.database.write, 0

        async def flaky(items: list[Item]) -> None:
            nonlocal calls
            calls += 1
            if calls % 3 == 2:
                raise TryLater("reset")
            await write(items)

        spool._delivery.write = flaky
        for time in range(20):
            spool.put(one(time, A=1, **({"Bad": 3} if time == 13 else {})))
        self.clock.pass_(60)
        self.assertEqual((20, {"conflict": 1}, 0), (len(self.database.values), spool.dropped, spool.waiting))

    def test_a_mistake_of_ours_costs_what_it_is_about(self) -> None:
        spool = self.make()
        write = self.database.write

        async def wrong(items: list[Item]) -> None:
            if any("a0/Odd" in row for _, _, rows in items for row in rows.values()):
                raise KeyError("odd")
            await write(items)

        spool._delivery.write = wrong
        for time in range(5):
            spool.put(one(time, **({"Odd": 1} if time == 3 else {"A": 1})))
        self.clock.pass_(1)
        self.assertEqual((4, {"error": 1}), (len(self.database.values), spool.dropped))

    def test_both_bounds(self) -> None:
        spool = self.make(memory_values=50, disk_bytes=2_000, batch_values=5)
        self.database.away = True
        taken = 0
        for time in range(2_000):
            taken += spool.put(one(time, Name=float(time) * 1.1))
            self.clock.advance(0.05)
        self.assertLess(taken, 2_000)
        self.assertEqual({"full": 2_000 - taken}, spool.dropped)
        self.assertLessEqual(spool.disk_bytes, 2_000)
        self.assertIn("2000 bytes", spool.disk_trouble or "")
        self.database.away = False
        self.clock.pass_(60)
        self.assertEqual((taken, 0), (len(self.database.values), spool.waiting))

    def test_a_disk_that_cannot_be_written(self) -> None:
        spool = self.make()

        def no_space(*_: Any, **__: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        append = Segments.append
        self.patch(Segments, "append", no_space)
        self.database.away = True
        for time in range(20):
            spool.put(one(time))
            self.clock.advance(0.2)
        self.assertEqual((20, 20), (spool.waiting, spool.unsafe))
        self.assertIn("No space", spool.disk_trouble or "")
        self.patch(Segments, "append", append)
        self.clock.pass_(2)
        self.assertEqual((20, 0, None), (spool.waiting, spool.unsafe, spool.disk_trouble))
        self.database.away = False
        self.clock.pass_(60)
        self.assertEqual((20, list(range(20))), (spool.written, self.database.order))

    def test_a_folder_that_cannot_be_made_costs_only_the_files(self) -> None:
        self.path.write_text("a file")
        spool = self.make()
        spool.put(one(1))
        self.clock.pass_(1)
        self.assertEqual(1, spool.written)
        self.assertIsNotNone(spool.disk_trouble)
        os.remove(self.path)

    def test_another_process_has_the_folder(self) -> None:
        other = Segments(self.path, 1_000)
        other.open()
        self.addCleanup(other.close)
        with self.assertRaises(InUse):
            self.make()

    def test_a_damaged_file_is_counted(self) -> None:
        spool = self.make(memory_values=1)  # no room to keep what is on disk
        self.database.away = True
        for time in range(4):
            spool.put(one(time))
            self.clock.pass_(1)
        [file] = self.path.glob("*.spool")
        data = bytearray(file.read_bytes())
        data[-1] ^= 255
        file.write_bytes(data)
        self.database.away = False
        done = Deferred.fromCoroutine(spool.flush())
        self.clock.pass_(60)
        self.successResultOf(done)
        self.assertEqual(({"damaged": 1}, 3, 0), (spool.dropped, spool.written, spool.waiting))

    def test_several_writers(self) -> None:
        spool = self.make(batch_values=5, parallel=3)
        self.database.hang = []
        for time in range(20):
            spool.put(one(time))
        self.assertEqual(3, len(self.database.hang))
        while self.database.hang:
            self.database.hang.pop().callback(None)
            self.clock.advance(0.6)
        self.assertEqual(20, len(self.database.values))

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(["put", "away", "back", "stop", "wait"]), st.integers(1, 12)), max_size=40),
        st.sampled_from([40, 1_000_000]),
    )
    def test_nothing_accepted_is_ever_lost(self, steps: list[tuple[str, int]], memory: int) -> None:
        self.setUp()
        spool = self.make(batch_values=7, parallel=2, memory_values=memory)
        accepted = set()
        time = 0
        for step, amount in steps:
            if step == "put":
                for _ in range(amount):
                    time += 1
                    if spool.put(one(time)):
                        accepted.add(("edge0", time, "a0/B"))
            elif step in ("away", "back"):
                self.database.away = step == "away"
            elif step == "wait":
                self.clock.pass_(amount / 5)
            else:
                self.end(spool)
                spool = self.make(batch_values=7, parallel=2, memory_values=memory)
            known = len(self.database.values) + spool.waiting
            self.assertGreaterEqual(known, len(accepted))
        self.database.away = False
        self.clock.pass_(90)
        self.assertEqual((accepted, 0), (set(self.database.values), spool.waiting))
        self.assertLessEqual(spool.dropped.keys(), {"full"})
        self.end(spool)


CHILD = """
import sys, time
from pathlib import Path
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from openems.backend.timedata.spool import Spool, TryLater
from openems.common.data import DataKind
async def away(items):
    raise TryLater("away")
now = lambda: int(time.time() * 1000)
spool = Spool("t", Path(sys.argv[1]), away, reactor=reactor, now=now)
count = 0
def put():
    global count
    count += 1
    spool.put(("edge0", DataKind.TIMESTAMPED, {count: {"a0/B": count}}))
    print(count - spool.unsafe, flush=True)
Deferred.fromCoroutine(spool.start()).addCallback(lambda _: task.LoopingCall(put).start(0.002))
reactor.run()
"""


class KilledTests(SynchronousTestCase):
    def test_kill_9_loses_only_what_was_not_yet_safe(self) -> None:
        path = Path(self.mktemp()).absolute()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, env=environment)
        assert child.stdout is not None
        safe = lines = 0
        for line in child.stdout:
            safe = int(line)
            lines += 1
            if safe >= 600:
                break
        child.kill()
        child.communicate()
        self.assertLess(lines - safe, 1_500)
        segments = Segments(path, 1 << 30)
        segments.open()
        found = {time for entry in segments.read(10**9) for _, _, rows in entry.items for time in rows}
        segments.close()
        self.assertLessEqual(set(range(1, safe + 1)), found)
