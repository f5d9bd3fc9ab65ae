"""The file of the embedded history: its tables, how it is opened, and what happens to one that is broken.

``number`` and ``text`` hold samples as they came, keyed by (series, time) so that a channel's range is read in one
piece and a sample that comes twice is kept once. ``rollup`` has one row for each series and five minutes with samples.

Two marks in ``meta`` say who answers what, and change in the same transaction as the data:

- every bucket before ``rolled_until`` is in ``rollup``, exactly as ``number`` has it; from there on ask ``number``;
- samples before ``raw_from`` may be gone from ``number``; only ``rollup`` has them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from urllib.parse import quote

#: Length of a roll-up row in ms.
BUCKET = 300_000
VERSION = 1

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    edge TEXT NOT NULL,
    channel TEXT NOT NULL,
    text INTEGER NOT NULL DEFAULT 0,    -- 1: has rows in table text
    UNIQUE (edge, channel)
);
CREATE TABLE number (
    series INTEGER NOT NULL,
    time INTEGER NOT NULL,              -- epoch ms
    value NOT NULL,                     -- as sent: INTEGER or REAL
    PRIMARY KEY (series, time)
) WITHOUT ROWID;
CREATE TABLE text (
    series INTEGER NOT NULL,
    time INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (series, time)
) WITHOUT ROWID;
CREATE TABLE rollup (
    series INTEGER NOT NULL,
    time INTEGER NOT NULL,              -- start of the bucket, epoch ms
    count INTEGER NOT NULL,
    avg REAL NOT NULL,
    min NOT NULL,
    max NOT NULL,
    first NOT NULL,
    last NOT NULL,
    rise,                               -- openems.common.energy, NULL where nothing rose or stayed
    first_at INTEGER NOT NULL,          -- ms after time
    last_at INTEGER NOT NULL,
    PRIMARY KEY (series, time)
) WITHOUT ROWID;
"""

TABLES = frozenset(("meta", "series", "number", "text", "rollup"))

#: SQLite's words for a file that no retry will mend.
_BROKEN = {"SQLITE_CORRUPT", "SQLITE_NOTADB"}


class UnknownVersion(Exception):
    """The file was written by a newer program, or is the database of another one; it is left alone."""


def is_broken(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(tuple(_BROKEN))


def open_for_writing(path: str) -> sqlite3.Connection:
    """Create or open the file. Raises sqlite3.Error, OSError or, without changing it, :class:`UnknownVersion`."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # What a household uses and when is nobody else's business; SQLite gives its other files the mode of this one. Never
    # one that is there: closing it would take the locks of this process's other connections away.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise UnknownVersion(f"{path} has version {version}, this program knows {VERSION}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        # Before anything is changed. A file without tables is one whose making was interrupted.
        if not tables.issuperset(TABLES) if version else tables:
            raise UnknownVersion(f"{path} is the database of another program")
        connection.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing that was committed; a power cut may lose the last seconds, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA temp_store = MEMORY")
        if version < VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        connection.execute("SELECT max(id) FROM series").fetchone()
        connection.execute("SELECT value FROM meta").fetchall()
        return connection
    except BaseException:
        connection.close()
        raise


def open_for_reading(path: str) -> sqlite3.Connection:
    """A connection that cannot change anything. Raises sqlite3.Error if there is no such file."""
    connection = sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?mode=ro",
        uri=True,
        isolation_level=None,
        timeout=5,
        check_same_thread=False,
    )
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def move_aside(path: str, now: int) -> str:
    """Rename a broken file, with what belongs to it, to ``<name>.corrupt-<time>``; the new name."""
    aside = f"{path}.corrupt-{now}"
    for tail in ("", "-wal", "-shm"):
        if os.path.exists(path + tail):
            os.replace(path + tail, aside + tail)
    return aside
