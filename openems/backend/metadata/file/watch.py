"""Watches a metadata file: read when two looks in a row see the same new state of it (metadata.md 20.7)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.backend.metadata.file.check import BadFile, read_model
from openems.backend.metadata.file.model import Model
from openems.backend.metadata.file.state import InThread
from openems.common.jobs import Job

#: seconds between two looks at the file.
POLL = 1.0
#: warnings of one reading that are logged.
MAX_WARNINGS = 20


class FileWatch:
    """``accept`` gets each good model; ``has_edges``: whether there are some now, which a file without edges would
    end. A broken file never replaces good data: it is :attr:`problem` and one line of the log."""

    _log = Logger()

    def __init__(
        self,
        path: str,
        accept: Callable[[Model], None],
        *,
        has_edges: Callable[[], bool],
        allow_empty: bool,
        reactor: Any,
        now: Callable[[], int],
        in_thread: InThread,
    ) -> None:
        self.path = path
        #: Why the file as it is now is not in force, or None.
        self.problem: str | None = f"metadata file {path} has not been read yet"
        #: Times a changed file was read and accepted, refused.
        self.reloads = 0
        self.refusals = 0
        self.job = Job("metadata_refresh")
        self._reactor = reactor
        self._now = now
        self._accept = accept
        self._has_edges = has_edges
        self._allow_empty = allow_empty
        self._in_thread = in_thread
        self._seen: tuple[int, ...] | None = None
        self._read: tuple[int, ...] | None = None
        self._loop = LoopingCall(self._look_again)
        self._loop.clock = reactor

    async def start(self) -> None:
        await self.reload()
        self._loop.start(POLL, now=False).addErrback(self._failed)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    async def reload(self) -> None:
        """Read the file now, whether it changed or not."""
        self._seen = await self._in_thread(self._look)
        await self._reload()

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev

    def _look_again(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_again_async()).addErrback(self._failed)

    async def _look_again_async(self) -> None:
        began = self._reactor.seconds()
        look = await self._in_thread(self._look)
        # An editor may be in the middle of writing: wait until the file holds still for one look.
        steady = look == self._seen
        self._seen = look
        if steady and look != self._read:
            await self._reload()
        if self.problem is None:
            self.job.succeeded(self._reactor.seconds() - began, self._now())
        else:
            self.job.failed()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("watching {path} failed", failure, path=self.path)

    async def _reload(self) -> None:
        self._read = self._seen
        try:
            model, warnings = await self._in_thread(lambda: read_model(self.path, allow_empty=self._allow_empty))
            if not model.edges and self._has_edges() and not self._allow_empty:
                raise BadFile(self.path, ["there are no edges any more"])
        except BadFile as e:
            problem = f"metadata file {e}"
            if problem != self.problem:
                kept = "; the data read before stays in force" if self.reloads else "; waiting for it"
                self._log.error("{problem}{kept}", problem=problem, kept=kept)
            self.problem = problem
            self.refusals += 1
            return
        self.problem = None
        for warning in warnings[:MAX_WARNINGS]:
            self._log.warn("metadata file {path}: {finding}", path=self.path, finding=str(warning))
        self.reloads += 1
        self._accept(model)
