"""Sessions of logins by password that outlive Keycloak's access token, and a restart (auth.md Q13).

The UI keeps the token of such a login and comes back with it after each lost connection, while Keycloak's own token
ends after minutes. So it gets one of ours: 256 random bits, of which only the hash is kept, in a file. Nothing of
Keycloak's is in that file but the ids of user and session and the email; whether the user may still log in is asked
when the token is used.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from openems.backend.authentication.keycloak.pending import unpadded

#: Tells our tokens from Keycloak's; the same number of dots, so that both go to the same service.
PREFIX = "kc1."
#: Sessions of one user, and all together; those go first that never were taken up again (of clients that send their
#: password each time there are many), then those unused for longest.
MAX_OF_USER = 20
MAX_SESSIONS = 50_000
DAY = 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    token BLOB PRIMARY KEY, subject TEXT NOT NULL, session_id TEXT NOT NULL, email TEXT NOT NULL,
    used REAL NOT NULL, confirmed REAL NOT NULL, resumed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS session_subject ON session (subject, used);
CREATE INDEX IF NOT EXISTS session_used ON session (used);
"""


class Stored(msgspec.Struct, frozen=True):
    """``confirmed``: when Keycloak last said that the user is enabled, in epoch seconds."""

    subject: str
    session_id: str
    email: str
    used: float
    confirmed: float


def is_stored(token: str) -> bool:
    return token.startswith(PREFIX)


class StoredSessions:
    """Raises sqlite3.Error where its file does not do. Each call takes less than a millisecond. ``path`` None: in
    memory. ``life``: seconds a session may be unused."""

    def __init__(
        self, path: str | None, *, life: float, random_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._path = path
        self._life = life
        self._random_bytes = random_bytes
        self._database: sqlite3.Connection | None = None

    def start(self) -> None:
        """Raises OSError, too."""
        if self._path is not None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self._path or ":memory:", isolation_level=None, timeout=1.0)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        self._database = database

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _run(self, text: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        if self._database is None:
            raise sqlite3.OperationalError("not open")
        return self._database.execute(text, values)

    def __len__(self) -> int:
        return int(self._run("SELECT count(*) FROM session").fetchone()[0])

    def open(self, subject: str, session_id: str, email: str, now: float) -> str:
        """The token of a new session."""
        run = self._run
        token = f"{PREFIX}{unpadded(self._random_bytes(32))}.x"
        run("DELETE FROM session WHERE used < ?", (now - self._life,))
        columns = "token, subject, session_id, email, used, confirmed"
        values = _key(token), subject, session_id, email, now, now
        run(f"INSERT INTO session ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)  # noqa: S608 - a text of this module
        run(
            "DELETE FROM session WHERE token IN "
            "(SELECT token FROM session WHERE subject = ? ORDER BY resumed DESC, used DESC LIMIT -1 OFFSET ?)",
            (subject, MAX_OF_USER),
        )
        run(
            "DELETE FROM session WHERE token IN (SELECT token FROM session ORDER BY used DESC LIMIT -1 OFFSET ?)",
            (MAX_SESSIONS,),
        )
        return token

    def find(self, token: str, now: float) -> Stored | None:
        row = self._run(
            "SELECT subject, session_id, email, used, confirmed FROM session WHERE token = ?", (_key(token),)
        ).fetchone()
        if row is None or row[3] < now - self._life:
            return None
        return Stored(*row)

    def used(self, token: str, now: float, *, confirmed: bool) -> None:
        self._run("UPDATE session SET used = ?, resumed = 1 WHERE token = ?", (now, _key(token)))
        if confirmed:
            self._run("UPDATE session SET confirmed = ? WHERE token = ?", (now, _key(token)))

    def end(self, token: str) -> None:
        self._run("DELETE FROM session WHERE token = ?", (_key(token),))

    def end_all_of(self, subject: str) -> None:
        self._run("DELETE FROM session WHERE subject = ?", (subject,))


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
