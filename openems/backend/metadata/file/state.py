"""The state file beside a metadata file: what users and edges changed (metadata.md 20.8).

One writer: an exclusive lock beside the file. The reactor's thread owns :class:`State` and makes the bytes, a worker
thread writes them, one write at a time; a newer snapshot replaces one that waits.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.common.atomicfile import write_atomically
from openems.common.errors import generic
from openems.common.jobs import Job

#: Runs a blocking function elsewhere.
InThread = Callable[[Callable[[], Any]], "Deferred[Any]"]

#: How long after a change the file is written: by hand of a user, and by the running of an edge.
SOON = 1.0
LATER = 10.0
#: Entries of edges that are gone are kept this long, in milliseconds.
KEEP_GONE = 90 * 86_400_000


class UserState(msgspec.Struct, omit_defaults=True):
    """What a user changed. ``grants``: edge id -> role, by setup password."""

    language: str | None = None
    settings: dict[str, Any] = {}
    information: dict[str, str | None] = {}
    grants: dict[str, str] = {}


class TokenState(msgspec.Struct):
    """``credential`` is a short digest of the password hash in force at login; times in epoch milliseconds."""

    login: str
    created: int
    used: int
    credential: str = ""


class AlertingState(msgspec.Struct, omit_defaults=True, rename="camel", gc=False):
    """Delays in minutes, stamps of the last mails in epoch milliseconds."""

    offline: int = 0
    fault: int = 0
    warning: int = 0
    last_offline: int | None = None
    last_sum_state: int | None = None


class EdgeState(msgspec.Struct, omit_defaults=True, rename="camel"):
    """``gone``: since when the edge is not in the metadata file any more."""

    lastmessage: int | None = None
    version: str = ""
    sum_state: str | None = None
    gone: int | None = None


class ProtocolState(msgspec.Struct):
    """A setup protocol; its content has a file of its own. ``created`` in epoch milliseconds."""

    id: int
    created: int
    type: str = "SETUP_PROTOCOL"


class _Version(msgspec.Struct):
    version: int = 1


class State(msgspec.Struct):
    """``tokens``: SHA-256 of the token -> session. ``alerting``: edge id -> login -> settings; ``pending``: edge id ->
    what alerting must know after a restart. ``protocols``: edge id -> setup protocols, oldest first."""

    version: int = 1
    users: dict[str, UserState] = {}
    tokens: dict[str, TokenState] = {}
    alerting: dict[str, dict[str, AlertingState]] = {}
    pending: dict[str, msgspec.Raw] = {}
    edges: dict[str, EdgeState] = {}
    protocols: dict[str, list[ProtocolState]] = {}
    last_protocol: int = 0


class Locked(Exception):
    """Another process works on the same state file."""


class NewerState(Exception):
    """A newer program wrote the file: to begin without it would log everybody out and forget what they set."""


VERSION = 1


class StateFile:
    _log = Logger()

    def __init__(self, path: str, *, reactor: IReactorTime, now: Callable[[], int], in_thread: InThread) -> None:
        self.path = path
        self.state = State()
        #: Why the last write failed, or None.
        self.problem: str | None = None
        #: Messages of the start: what could not be read and where it was moved.
        self.messages: list[str] = []
        #: Called before each write to bring ``state`` up to date.
        self.before_write: Callable[[], None] = lambda: None
        self.job = Job("metadata_flush")
        self._reactor = reactor
        self._now = now
        self._in_thread = in_thread
        self._lock: int | None = None
        self._timer: IDelayedCall | None = None
        self._writing = False
        self._waiting: list[Deferred[None]] = []

    def open(self) -> None:
        """Lock and read. Raises :class:`Locked`, :class:`NewerState`; OSError if the file may not be read."""
        directory = os.path.dirname(os.path.abspath(self.path))
        os.makedirs(directory, mode=0o700, exist_ok=True)
        lock = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise Locked(f"another process works on {self.path}") from None
        self._lock = lock
        try:
            self.state = self._read(self.path) or self._read(self.path + ".bak") or State()
        except BaseException:
            self.release()
            raise

    def _read(self, path: str) -> State | None:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        try:
            version = msgspec.json.decode(data, type=_Version).version
            if version > VERSION:
                raise NewerState(f"{path} has version {version}, this program knows {VERSION}; it is not changed")
            return msgspec.json.decode(data, type=State)
        except (ValueError, RecursionError) as e:
            aside = f"{path}.corrupt-{self._now()}"
            os.replace(path, aside)
            message = f"state file {path} could not be read ({type(e).__name__}); it was moved to {aside}"
            self.messages.append(message)
            self._log.error("{message}", message=message)
            return None

    @property
    def waiting(self) -> int:
        """1: there is something in memory that is not on disk."""
        return int(self._writing or (self._timer is not None and self._timer.active()))

    def release(self) -> None:
        """Give up the lock, write nothing."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def close(self) -> None:
        """Write the last state and give up the lock."""
        try:
            if self._lock is not None:
                await self.flush()
        finally:
            self.release()

    def touch(self, seconds: float = SOON) -> None:
        """Something changed: write within ``seconds``."""
        if self._lock is None:
            return
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= self._reactor.seconds() + seconds:
                return
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, self._due)

    def _due(self) -> None:
        self.flush().addErrback(lambda failure: None)  # logged, and tried again, by _written

    def flush(self) -> Deferred[None]:
        """Fires once everything changed until now is on disk; fails with OSError."""
        done: Deferred[None] = Deferred()
        if self._lock is None:
            done.errback(OSError("the state file is not open"))
            return done
        self._waiting.append(done)
        if not self._writing:
            self._write()
        return done

    async def stored(self) -> None:
        """What a user changed is on disk before he is told so: code 1 if not. It stays in memory then and is tried
        again."""
        try:
            await self.flush()
        except OSError:
            raise generic("The change could not be stored") from None

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._writing = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        began = self._reactor.seconds()
        self.before_write()
        data = msgspec.json.encode(self.state)
        self._in_thread(lambda: write_atomically(self.path, data, backup=self.path + ".bak")).addBoth(
            self._written, waiting, began
        )

    def _written(self, result: Any, waiting: list[Deferred[None]], began: float) -> None:
        self._writing = False
        if isinstance(result, Failure):
            self.job.failed()
            if self.problem is None:
                self._log.failure("state file {path} cannot be written", result, path=self.path)
            self.problem = f"state file {self.path} cannot be written: {result.getErrorMessage()}"
            self.touch(LATER)
        else:
            self.job.succeeded(self._reactor.seconds() - began, self._now())
            self.problem = None
        if self._waiting:
            self._write()
        for done in waiting:
            if isinstance(result, Failure):
                done.errback(result)
            else:
                done.callback(None)
