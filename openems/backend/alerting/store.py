"""What alerting remembers where metadata does not: one small file, written within a second of a change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IAlertingStore
from openems.common.atomicfile import write_atomically
from openems.common.errors import generic

#: Seconds until a change is written, and until it is tried again.
SOON = 1.0
LATER = 10.0


class Memory(msgspec.Struct):
    """``pending``: edge id -> whatever was kept."""

    version: int = 1
    pending: dict[str, msgspec.Raw] = {}


@implementer(IAlertingStore)
class FileStore:
    """``path`` is read by :meth:`open`; a file that cannot be understood is set aside. ``stamps``: an
    INotificationStamps that keeps users' last notifications, None: nobody does, or the mailer."""

    _log = Logger()

    def __init__(self, path: str, *, reactor: Any, in_thread: Any = None, stamps: Any = None) -> None:
        self.path = path
        self._stamps = stamps
        self.memory = Memory()
        #: Why the file cannot be written, or None.
        self.problem: str | None = None
        self._reactor = reactor
        self._in_thread = in_thread or (lambda f: deferToThreadPool(reactor, reactor.getThreadPool(), f))
        self._timer: IDelayedCall | None = None
        self._lock = DeferredLock()

    def open(self) -> None:
        try:
            with open(self.path, "rb") as file:
                self.memory = msgspec.json.decode(file.read(), type=Memory)
        except FileNotFoundError:
            return
        except (ValueError, RecursionError):
            os.replace(self.path, self.path + ".corrupt")
            self._log.error("{path} could not be read; it was moved to {path}.corrupt", path=self.path)

    def pending_alerts(self) -> Mapping[str, msgspec.Raw]:
        return dict(self.memory.pending)

    def keep_pending_alert(self, edge_id: str, pending: msgspec.Raw | None) -> None:
        if pending is not None:
            self.memory.pending[edge_id] = pending
        elif self.memory.pending.pop(edge_id, None) is None:
            return
        self._touch()

    def set_last_notification(
        self, edge_id: str, user_login: str, *, offline: int | None = None, sum_state: int | None = None
    ) -> None:
        """Not in this file: what is pending says who was told, and the stamps of settings belong to metadata."""
        if self._stamps is not None:
            self._stamps.set_last_notification(edge_id, user_login, offline=offline, sum_state=sum_state)

    def _touch(self, seconds: float = SOON) -> None:
        if self._timer is None or not self._timer.active():
            self._timer = self._reactor.callLater(seconds, self._due)

    def _due(self) -> None:
        def written(result: Any) -> None:
            self.problem = None

        def failed(failure: Any) -> None:
            if self.problem is None:
                self._log.failure("{path} cannot be written", failure, path=self.path)
            self.problem = f"{self.path} cannot be written: {failure.getErrorMessage()}"
            self._touch(LATER)

        Deferred.fromCoroutine(self._write()).addCallbacks(written, failed)

    async def _write(self) -> None:
        await self._lock.acquire()
        try:
            data = msgspec.json.encode(self.memory)
            await self._in_thread(lambda: write_atomically(self.path, data))
        finally:
            self._lock.release()

    async def flush(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        try:
            await self._write()
        except OSError:
            raise generic("Pending alerts could not be stored") from None
