from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata import spoolfile
from openems.backend.timedata.spoolfile import Full, InUse, Item, Segments, packed, record, scan
from openems.common.data import DataKind

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text())
ROWS = st.dictionaries(st.integers(0, 2**42), st.dictionaries(st.text(max_size=9), VALUES, min_size=1), min_size=1)
ITEMS = st.lists(st.tuples(st.text(max_size=9), st.sampled_from(DataKind), ROWS), min_size=1, max_size=4)


def item(edge: int, *values: int) -> Item:
    return (f"edge{edge}", DataKind.TIMESTAMPED, {1_000 + n: {"a0/B": value} for n, value in enumerate(values)})


class RecordTests(SynchronousTestCase):
    @given(st.lists(ITEMS, max_size=4))
    def test_what_is_written_is_read(self, groups: list[list[Item]]) -> None:
        data = b"".join(record(packed(items)[0], n, n + 7) for n, items in enumerate(groups))
        places, damaged = scan(data)
        self.assertEqual(0, damaged)
        self.assertEqual([(n, n + 7) for n in range(len(groups))], [(p.values, p.time) for p in places])
        head = len(record(b"", 0, 0)) - len(__import__("zlib").compress(b"", 1))
        read = [spoolfile.items_of(data[p.offset + head : p.offset + head + p.length]) for p in places]
        self.assertEqual(groups, read)

    @given(st.integers(1, 5), st.data())
    def test_a_torn_end_costs_the_last_record_only(self, count: int, data: st.DataObject) -> None:
        parts = [record(packed([item(n, n)])[0], 1, n) for n in range(count)]
        whole = b"".join(parts)
        cut = data.draw(st.integers(1, len(parts[-1])))
        places, damaged = scan(whole[:-cut])
        self.assertEqual(list(range(count - 1)), [place.time for place in places])
        self.assertEqual(int(cut < len(parts[-1])), damaged)

    @given(st.integers(0, 4), st.data())
    def test_damage_costs_one_record(self, broken: int, data: st.DataObject) -> None:
        parts = [record(packed([item(n, n)])[0], 1, n) for n in range(5)]
        at = data.draw(st.integers(0, len(parts[broken]) - 1))
        parts[broken] = parts[broken][:at] + bytes([parts[broken][at] ^ 0xFF]) + parts[broken][at + 1 :]
        places, damaged = scan(b"".join(parts))
        self.assertEqual([n for n in range(5) if n != broken], [place.time for place in places])
        self.assertEqual(1, damaged)

    @given(st.binary(max_size=300))
    def test_any_bytes_can_be_scanned(self, data: bytes) -> None:
        self.assertEqual([], scan(data)[0])
        scan(spoolfile.MARK + data)

    def test_what_no_file_can_hold_is_left_out(self) -> None:
        bad: Item = ("edge0", DataKind.RESEND, {1: {"a0/B": "\ud800", "a0/C": 2**70, "a0/\udfff": 1, "a0/D": 4}})
        data, lost = packed([bad, ("\ud800", DataKind.RESEND, {1: {"a0/B": 1}}), item(1, 5)])
        self.assertEqual(4, lost)
        self.assertEqual([("edge0", DataKind.RESEND, {1: {"a0/D": 4}}), item(1, 5)], spoolfile._decode(data))


class SegmentsTests(SynchronousTestCase):
    def make(self, disk_bytes: int = 1 << 20, segment_bytes: int = 1 << 16) -> Segments:
        segments = Segments(Path(self.path), disk_bytes, segment_bytes)
        segments.open()
        self.addCleanup(segments.close)
        return segments

    def setUp(self) -> None:
        self.path = self.mktemp()

    def files(self) -> list[str]:
        return sorted(name for name in os.listdir(self.path) if name.endswith(".spool"))

    def test_the_oldest_first_and_nothing_stays(self) -> None:
        segments = self.make(segment_bytes=150)
        for n in range(9):
            segments.append([[item(n, n)]], n)
        self.assertGreater(len(self.files()), 2)
        self.assertEqual(len(self.files()), segments.files)
        self.assertEqual((9, 0), (segments.values, segments.oldest))
        read = segments.read(4) + segments.read(100)
        self.assertEqual([[item(n, n)] for n in range(9)], [entry.items for entry in read])
        segments.done(read)
        self.assertEqual(([], 0, 0, 0), (self.files(), segments.files, segments.values, segments.bytes))

    def test_what_was_read_but_not_done_is_there_for_the_next(self) -> None:
        segments = self.make()
        segments.append([[item(1, 1)], [item(2, 2)]], 5)
        segments.read(1)
        segments.close()
        again = self.make()
        self.assertEqual([[item(1, 1)], [item(2, 2)]], [entry.items for entry in again.read(9)])

    def test_held_records_are_for_the_next_process(self) -> None:
        segments = self.make()
        held, _ = segments.append([[item(1, 1)]], 5, held=True)
        segments.append([[item(2, 2)]], 6)
        self.assertEqual((1, 2), (segments.unread_values, segments.values))
        read = segments.read(9)
        self.assertEqual([[item(2, 2)]], [entry.items for entry in read])
        segments.done(read)
        self.assertEqual(1, len(self.files()))
        segments.done(held)
        self.assertEqual([], self.files())

    def test_a_bound(self) -> None:
        segments = self.make(disk_bytes=400)
        count = 0
        with self.assertRaises(Full):
            for count in range(100):
                segments.append([[item(count, count)]], count)
        self.assertGreater(count, 1)
        self.assertLessEqual(sum(os.path.getsize(os.path.join(self.path, name)) for name in self.files()), 400)
        segments.done(segments.read(2))
        self.assertEqual(count, segments.values + 2)

    def test_one_process_a_folder(self) -> None:
        self.make()
        self.assertRaises(InUse, Segments(Path(self.path), 1000).open)

    def test_a_file_that_cannot_be_written_on_changes_nothing(self) -> None:
        segments = self.make()
        segments.append([[item(1, 1)]], 1)
        before = os.path.getsize(os.path.join(self.path, self.files()[0]))

        def no_space(_: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fdatasync", no_space)
        with self.assertRaises(OSError):
            segments.append([[item(2, 2)]], 2)
        self.assertEqual(before, os.path.getsize(os.path.join(self.path, self.files()[0])))
        self.assertEqual(1, segments.values)
        self.patch(os, "fdatasync", lambda _: None)
        segments.append([[item(3, 3)]], 3)
        self.assertEqual([1, 3], [entry.time for entry in segments.read(9)])

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.sampled_from("aahrrdx"), max_size=40))
    def test_nothing_is_lost_whatever_the_order(self, steps: str) -> None:
        """a: append, h: append held, r: read, d: done with the oldest read, x: end and begin again."""
        self.path = self.mktemp()
        segments = Segments(Path(self.path), 1 << 20, 300)
        segments.open()
        waiting: set[int] = set()
        reading: list[spoolfile.Record] = []
        of_held: list[tuple[spoolfile.Record, int]] = []
        for n, step in enumerate(steps):
            if step in "ah":
                made, _ = segments.append([[item(n, n)]], n, held=step == "h")
                waiting.add(n)
                of_held += [(entry, n) for entry in made]
            elif step == "r":
                reading += segments.read(2)
            elif step == "d" and reading:
                entry = reading.pop(0)
                segments.done([entry])
                waiting.discard(entry.items[0][2][1_000]["a0/B"])  # type: ignore[arg-type]
            elif step == "d" and of_held:
                entry, number = of_held.pop(0)
                segments.done([entry])
                waiting.discard(number)
            elif step == "x":
                segments.close()
                reading, of_held = [], []
                segments = Segments(Path(self.path), 1 << 20, 300)
                segments.open()
            self.assertLessEqual(len(waiting), segments.values)
        segments.close()
        segments = Segments(Path(self.path), 1 << 20, 300)
        segments.open()
        found = {entry.items[0][2][1_000]["a0/B"] for entry in segments.read(1_000)}
        segments.close()
        self.assertLessEqual(waiting, found)
