"""What could not be written in the time that a stopping program has: a file beside the history, read at the next start.

It is a row of records as in spoolfile.py and quickly written: no trees, no searching. Whoever reads it writes its items
like any others and removes it after that; so a part of them may be written twice, which does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from openems.backend.timedata.spoolfile import Item, items_of, packed, record, scan, size_of

#: Grows no further, where it is never read (the history is of a newer program, say).
MAX_BYTES = 1 << 28
#: Values of one record.
GROUP = 20_000
_HEAD = 24


def path_of(path: str) -> str:
    return f"{path}.waiting"


def save(path: str, items: Iterable[Item], time: int) -> None:
    """Puts the items behind those that are there. Raises OSError; then nothing was changed."""
    name = path_of(path)
    data = b"".join(record(packed(group)[0], values, time) for group, values in _groups(items))
    with open(name, "ab") as file:
        length = file.seek(0, os.SEEK_END)
        try:
            if length + len(data) > MAX_BYTES:
                raise OSError(f"{name} would have more than {MAX_BYTES} bytes")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(name, length)
            raise


def _groups(items: Iterable[Item]) -> Iterator[tuple[list[Item], int]]:
    group: list[Item] = []
    values = 0
    for item in items:
        group.append(item)
        values += size_of(item)
        if values >= GROUP:
            yield group, values
            group, values = [], 0
    if group:
        yield group, values


def load(path: str) -> Iterator[list[Item]]:
    """What waits, in groups; what is damaged is passed over. Raises OSError."""
    try:
        with open(path_of(path), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return
    for place in scan(data)[0]:
        try:
            yield items_of(data[place.offset + _HEAD : place.offset + _HEAD + place.length])
        except ValueError:
            continue


def remove(path: str) -> None:
    """All of it was written."""
    try:
        os.unlink(path_of(path))
    except FileNotFoundError:
        pass
