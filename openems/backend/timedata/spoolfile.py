"""Segment files: values that wait for their database on disk. Synchronous; for one thread at a time.

A folder has files ``<number>.spool``, written one after the other, read in the same order and removed as soon as all
that is in them was dealt with. A file is a row of records::

    mark (4 bytes)  length of body (u32)  crc32 (u32)  values (u32)  epoch ms (u64)  body: zlib(msgpack([item, ...]))

all little-endian; the crc covers values, time and body. A process that is killed leaves at most a torn last record,
which is passed over, as is one that was damaged: the next mark with a right crc is where reading goes on. A new
process begins a new file and never appends to one of another's.

What was read but not yet reported :meth:`~Segments.done` when the process ends is read again by the next: whoever
writes it somewhere must stand the same values twice.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from openems.common.data import DataKind, Row

#: Edge id, kind, rows: one notification or a part of one.
Item = tuple[str, DataKind, dict[int, Row]]

MARK = b"\xf5OSR"
_HEAD = struct.Struct("<4sIIIQ")
_COVERED = struct.Struct("<IQ")
#: No record is longer: a length beyond it is damage.
MAX_BODY = 1 << 26
SEGMENT_BYTES = 16 << 20
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, DataKind, dict[int, dict[str, Any]]]]).decode


def size_of(item: Item) -> int:
    """Number of values."""
    return sum(map(len, item[2].values()))


def packed(items: list[Item]) -> tuple[bytes, int]:
    """The items as msgpack and how many of their values had to be left out because no file can hold them (broken
    text, integers beyond 64 bit)."""
    try:
        return _encode(items), 0
    except (UnicodeEncodeError, OverflowError, TypeError, RecursionError):
        pass
    lost = 0
    kept: list[Item] = []
    for edge, kind, rows in items:
        clean: dict[int, Row] = {}
        for time, row in rows.items():
            good = {channel: value for channel, value in row.items() if _packable(channel, value)}
            lost += len(row) - len(good)
            if good:
                clean[time] = good
        if clean and _packable(edge, None):
            kept.append((edge, kind, clean))
        else:
            lost += sum(map(len, clean.values()))
    return _encode(kept), lost


def _packable(*parts: Any) -> bool:
    try:
        _encode(parts)
    except (UnicodeEncodeError, OverflowError, TypeError, RecursionError):
        return False
    return True


def record(body: bytes, values: int, time: int) -> bytes:
    """One record around an (uncompressed) ``body``."""
    small = zlib.compress(body, 1)
    crc = zlib.crc32(small, zlib.crc32(_COVERED.pack(values, time)))
    return _HEAD.pack(MARK, len(small), crc, values, time) + small


def items_of(body: bytes) -> list[Item]:
    """What a record's compressed body holds. Raises ValueError for what is none."""
    try:
        return _decode(zlib.decompress(body))
    except (zlib.error, msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


class Place(msgspec.Struct):
    """Where a whole record is: offset of its head, length of its body."""

    offset: int
    length: int
    values: int
    time: int


def scan(data: bytes) -> tuple[list[Place], int]:
    """The whole records of a file, and the number of places where something was damaged (a torn end counts)."""
    places: list[Place] = []
    damaged = 0
    at = 0
    while at < len(data):
        place = _place_at(data, at)
        if place is not None:
            places.append(place)
            at += _HEAD.size + place.length
            continue
        damaged += 1
        at = data.find(MARK, at + 1)
        while at >= 0 and _place_at(data, at) is None:
            at = data.find(MARK, at + 1)
        if at < 0:
            break
    return places, damaged


def _place_at(data: bytes, at: int) -> Place | None:
    if at + _HEAD.size > len(data):
        return None
    mark, length, crc, values, time = _HEAD.unpack_from(data, at)
    begin = at + _HEAD.size
    if mark != MARK or length > MAX_BODY or begin + length > len(data):
        return None
    if zlib.crc32(memoryview(data)[begin : begin + length], zlib.crc32(_COVERED.pack(values, time))) != crc:
        return None
    return Place(at, length, values, time)


class Record(msgspec.Struct, eq=False):
    """A record that was read: give it back to :meth:`Segments.done`."""

    segment: Segment
    values: int
    time: int
    items: list[Item] = []


class Segment:
    """One file. ``open_records``: those not done, read or unread."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.bytes = 0
        self.unread: deque[tuple[Place, Record | None]] = deque()
        self.open_records = 0
        self.sealed = False
        self.file: BinaryIO | None = None


class InUse(OSError):
    """Another process has the folder."""


class Full(OSError):
    """No room within the bound."""


class Segments:
    """The files of one folder. All methods may raise OSError; then nothing was changed.

    ``disk_bytes`` bounds the sum of their lengths. ``damaged`` counts what could not be read.
    """

    def __init__(self, directory: Path, disk_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self._disk_bytes = disk_bytes
        self._segment_bytes = min(segment_bytes, max(disk_bytes // 4, 1))
        self._segments: deque[Segment] = deque()
        self._next = 1
        self._lock: BinaryIO | None = None
        self.bytes = 0
        #: In records nobody has read yet and nobody holds.
        self.unread_values = 0
        #: In all records that are not done.
        self.values = 0
        #: Places that could not be read; the values there, where that is known.
        self.damaged = 0
        self.damaged_values = 0

    @property
    def files(self) -> int:
        return len(self._segments)

    def open(self) -> None:
        """Makes the folder where missing and looks through what is there. :class:`InUse` where another process is."""
        if self._lock is not None:
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.directory / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise InUse(f"{self.directory} is in use by another process") from None
        try:
            for path in sorted(self.directory.glob("*.spool")):
                self._take_over(path)
        except OSError:
            lock.close()
            raise
        self._lock = lock

    def _take_over(self, path: Path) -> None:
        if not path.stem.isdigit() or any(known.path == path for known in self._segments):
            return
        places, damaged = scan(path.read_bytes())
        self.damaged += damaged
        number = int(path.stem)
        self._next = max(self._next, number + 1)
        if not places:
            path.unlink()
            return
        segment = Segment(path, number)
        segment.sealed = True
        segment.bytes = path.stat().st_size
        segment.unread.extend((place, None) for place in places)
        segment.open_records = len(places)
        self.bytes += segment.bytes
        values = sum(place.values for place in places)
        self.values += values
        self.unread_values += values
        self._segments.append(segment)

    @property
    def oldest(self) -> int | None:
        """Epoch ms at which the oldest record was made that is unread and that nobody holds."""
        waiting = (entry for segment in list(self._segments) for entry in list(segment.unread))
        return next((place.time for place, held in waiting if held is None), None)

    def append(self, groups: Iterable[list[Item]], time: int, *, held: bool = False) -> tuple[list[Record], int]:
        """Each group as one record, safe on disk when this returns; also the number of values left out.

        ``held``: the caller has the items and goes on with them: they are not read again, but must be reported
        :meth:`done`. Raises :class:`Full` where one of them does not fit.
        """
        lost = 0
        bodies: list[tuple[bytes, int]] = []
        for items in groups:
            body, left_out = packed(items)
            lost += left_out
            values = sum(map(size_of, items)) - left_out
            bodies.append((record(body, values, time), values))
        if self.bytes + sum(len(data) for data, _ in bodies) > self._disk_bytes:
            raise Full(f"{self.directory} has reached its {self._disk_bytes} bytes")
        segment, file = self._writable()
        begin = segment.bytes
        try:
            for data, _ in bodies:
                file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        except OSError:
            self._undo(segment, begin)
            raise
        made = []
        for data, values in bodies:
            place = Place(segment.bytes, len(data) - _HEAD.size, values, time)
            entry = Record(segment, values, time) if held else None
            segment.unread.append((place, entry))
            segment.open_records += 1
            segment.bytes += len(data)
            self.bytes += len(data)
            self.values += values
            if entry is None:
                self.unread_values += values
            else:
                made.append(entry)
        if segment.bytes >= self._segment_bytes:
            self._seal(segment)
        return made, lost

    def _writable(self) -> tuple[Segment, BinaryIO]:
        if self._lock is None:
            self.open()
        if self._segments and self._segments[-1].file is not None:
            return self._segments[-1], self._segments[-1].file
        segment = Segment(self.directory / f"{self._next:016d}.spool", self._next)
        file = segment.file = segment.path.open("xb")
        self._next += 1
        self._segments.append(segment)
        return segment, file

    def _undo(self, segment: Segment, length: int) -> None:
        """After a failed write: what may be half there is cut off, or the file is left alone from now on."""
        try:
            if segment.file is not None:
                os.truncate(segment.path, length)
        except OSError:
            pass
        file, segment.file = segment.file, None
        segment.sealed = True
        try:
            if file is not None:
                file.close()
        except OSError:
            pass
        if not segment.open_records:
            self._remove(segment)

    def _seal(self, segment: Segment) -> None:
        segment.sealed = True
        file, segment.file = segment.file, None
        if file is not None:
            file.close()
        if not segment.open_records:
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        self._segments.remove(segment)
        self.bytes -= segment.bytes
        try:
            segment.path.unlink(missing_ok=True)
        except OSError:
            pass  # read again by the next process: harmless

    def read(self, limit: int) -> list[Record]:
        """The oldest unread records with together about ``limit`` values, at least one where there is one."""
        result: list[Record] = []
        count = 0
        for segment in list(self._segments):
            while segment.unread and (count < limit or not result):
                place, held = segment.unread[0]
                if held is not None:
                    segment.unread.popleft()
                    continue
                if result and count + place.values > limit:
                    return result
                items = self._load(segment, place)
                segment.unread.popleft()
                self.unread_values -= place.values
                entry = Record(segment, place.values, place.time, items)
                if not items:
                    self.damaged_values += place.values
                    self.done([entry])
                    continue
                result.append(entry)
                count += place.values
            if not segment.unread and not segment.sealed and self.unread_values == 0:
                self._seal(segment)
            if count >= limit:
                break
        return result

    def _load(self, segment: Segment, place: Place) -> list[Item]:
        with segment.path.open("rb") as file:
            file.seek(place.offset)
            data = file.read(_HEAD.size + place.length)
        try:
            if _place_at(data, 0) is None:
                raise ValueError("damaged")
            return items_of(data[_HEAD.size :])
        except ValueError:
            self.damaged += 1
            return []

    def done(self, records: Iterable[Record]) -> None:
        """These were dealt with; a file without others is removed."""
        for entry in records:
            segment = entry.segment
            segment.open_records -= 1
            self.values -= entry.values
            if not segment.open_records:
                if segment.sealed:
                    self._remove(segment)
                else:
                    self._seal(segment)

    def close(self) -> None:
        for segment in list(self._segments):
            if not segment.sealed:
                self._seal(segment)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
