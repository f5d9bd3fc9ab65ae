"""Mails that wait for the mail server, on disk: one small file each (metrics.md 20).

A file is in one of two folders, ``queue`` and ``done``. Its name is the mail's key, so one mail is there once, whatever
is handed in how often. When the server has taken it, the file moves to ``done`` in one step, before anything else
happens: a process that is killed sends nothing twice. What is in ``done`` is forgotten after a month.

The files hold who is to be told of what, not the text: that is written when the mail goes out, in the user's language
and to the address he has then.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from openems.common.atomicfile import write_atomically

#: Mails that wait, and those remembered as done.
MAX_WAITING = 10_000
MAX_DONE = 100_000
KEEP_DONE = 31 * 86_400_000
#: Those sent within so many milliseconds before the last one are told again at the next start, and at most so many.
RECENT = 600_000
MAX_RECENT = 1_000

InThread = Callable[[Callable[[], Any]], "Deferred[Any]"]


class Envelope(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One mail. ``sent_at``: when alerting decided it, ``since``: what it is about began then, both epoch
    milliseconds; ``address``: of a mail that goes to no user. ``tries``, ``next_try``: see the mailer."""

    key: str
    template: str
    sent_at: int
    since: int = 0
    edge_id: str = ""
    login: str = ""
    address: str = ""
    state: str = ""
    delay: int = 0
    facts: dict[str, int] = {}
    tries: int = 0
    next_try: int = 0


class SpoolFull(Exception):
    """As many mails wait as may wait."""


class Spool:
    """:meth:`open` first, which blocks; everything else does not. ``waiting``: key -> mail, the oldest first."""

    _log = Logger()

    def __init__(
        self, directory: str, *, now: Callable[[], int], in_thread: InThread, limit: int = MAX_WAITING
    ) -> None:
        self.directory = Path(directory)
        self.waiting: dict[str, Envelope] = {}
        self.unreadable = 0
        #: What :meth:`open` found sent last before: a killed process may not have told anybody. The oldest first.
        self.recent: list[Envelope] = []
        self._done: dict[str, None] = {}
        self._coming: set[str] = set()
        self._now = now
        self._in_thread = in_thread
        self._limit = limit
        self._queue = self.directory / "queue"
        self._sent = self.directory / "done"

    def open(self) -> None:
        """Raises OSError."""
        for folder in (self.directory, self._queue, self._sent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forget_old()
        found: list[Envelope] = []
        for path in self._queue.iterdir():
            if path.suffix == ".tmp":
                path.unlink(missing_ok=True)
            elif path.suffix == ".json":
                envelope = self._read(path)
                if envelope is not None:
                    found.append(envelope)
        found.sort(key=lambda e: (e.sent_at, e.key))
        self.waiting = {envelope.key: envelope for envelope in found if not self._was_done(envelope)}

    def _forget_old(self) -> None:
        times = [(entry.stat().st_mtime_ns // 1_000_000, entry.name) for entry in os.scandir(self._sent)]
        times.sort()
        last = times[-1][0] if times else 0
        recent = [name for time, name in times[-MAX_RECENT:] if time >= last - RECENT]
        self.recent = [sent for name in recent if (sent := self._sent_mail(name)) is not None]
        begin = self._now() - KEEP_DONE
        for position, (time, name) in enumerate(times):
            if time < begin or len(times) - position > MAX_DONE:
                (self._sent / name).unlink(missing_ok=True)
            else:
                self._done[name.removesuffix(".json")] = None

    def _sent_mail(self, name: str) -> Envelope | None:
        """None: it was not sent, see :meth:`done`."""
        try:
            return msgspec.json.decode((self._sent / name).read_bytes(), type=Envelope)
        except (ValueError, OSError, RecursionError):
            return None

    def _read(self, path: Path) -> Envelope | None:
        try:
            envelope = msgspec.json.decode(path.read_bytes(), type=Envelope)
            if envelope.key != path.stem:
                raise ValueError("the name is not the key")
            return envelope
        except (ValueError, OSError, RecursionError) as e:
            self.unreadable += 1
            self._log.error("mail {path} cannot be read, set aside: {reason}", path=str(path), reason=str(e))
            path.rename(path.with_suffix(".bad"))
            return None

    def _was_done(self, envelope: Envelope) -> bool:
        if envelope.key not in self._done:
            return False
        self._path(envelope.key).unlink(missing_ok=True)
        return True

    def _path(self, key: str) -> Path:
        return self._queue / f"{key}.json"

    def knows(self, key: str) -> bool:
        """It waits, or was done with."""
        return key in self.waiting or key in self._done

    async def add(self, envelopes: Iterable[Envelope]) -> int:
        """Those that are new are on disk when this returns; how many. Raises :class:`SpoolFull` or OSError: then
        whoever handed them in keeps them and comes again."""
        new = {e.key: e for e in envelopes if not self.knows(e.key) and e.key not in self._coming}
        if len(self.waiting) + len(self._coming) + len(new) > self._limit:
            raise SpoolFull(f"{len(self.waiting)} mails wait already")
        if not new:
            return 0
        self._coming |= new.keys()
        try:
            await self._in_thread(lambda: self._write_all(new.values()))
        finally:
            self._coming -= new.keys()
        self.waiting |= new
        return len(new)

    def _write_all(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            write_atomically(str(self._path(envelope.key)), msgspec.json.encode(envelope))

    def done(self, envelope: Envelope, *, sent: bool = True) -> None:
        """The server has it, or it will never be sent: then its file is empty. One step, at once: see above."""
        self.waiting.pop(envelope.key, None)
        self._done[envelope.key] = None
        if len(self._done) > MAX_DONE:
            oldest = next(iter(self._done))
            del self._done[oldest]
            (self._sent / f"{oldest}.json").unlink(missing_ok=True)
        target = self._sent / f"{envelope.key}.json"
        try:
            os.replace(self._path(envelope.key), target)
            if not sent:
                os.truncate(target, 0)
            # What counts is when it was done, not when it was written.
            os.utime(target)
        except OSError as e:
            self._log.error("mail {key} is done but could not be moved: {e}", key=envelope.key, e=str(e))
            # A full disk may have no room for one more name. Better forgotten than sent again at the next start.
            with contextlib.suppress(OSError):
                self._path(envelope.key).unlink(missing_ok=True)

    def last(self, envelope: Envelope) -> None:
        """Behind all others, until the next start."""
        if self.waiting.pop(envelope.key, None) is not None:
            self.waiting[envelope.key] = envelope

    def again(self, envelope: Envelope) -> Deferred[Any]:
        """It failed: ``tries`` and ``next_try`` are kept."""
        data = msgspec.json.encode(envelope)

        def write() -> None:
            # Not one that was done meanwhile.
            if self._path(envelope.key).exists():
                write_atomically(str(self._path(envelope.key)), data)

        def failed(failure: Any) -> None:
            self._log.warn("mail {key}: {e}", key=envelope.key, e=failure.getErrorMessage())

        return self._in_thread(write).addErrback(failed)

    def oldest_age(self) -> int:
        """Milliseconds since the oldest waiting mail was decided."""
        first = min((envelope.sent_at for envelope in self.waiting.values()), default=self._now())
        return max(0, self._now() - first)
