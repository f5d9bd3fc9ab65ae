"""Alerting's scan of a whole fleet: everything is offline after a start, and each edge has users with delays.

Against the least that must be done: to ask for the settings of each edge once. What the reactor is kept from doing
meanwhile is measured by a heart that should beat every five milliseconds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from openems.application.running import in_reactor
from openems.backend.alerting.rules import MINUTE, MassGuard
from openems.backend.alerting.service import AlertingService
from openems.backend.events import EventBus
from openems.backend.metadata.file.provider import FileMetadata
from openems.common.role import Level

reactor: Any = _reactor
HASH = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$L1b1NjppUoj/KIEORq1pof4waLxklM0mqKZzt9nCsKI"


class Mailer:
    def __init__(self) -> None:
        self.recipients = 0

    async def send_mail(self, send_at: int, template_id: str, contexts: Sequence[Any]) -> int:
        self.recipients += sum(len(context["recipients"]) for context in contexts)
        return len(contexts)


class Heart:
    """``late``: seconds by which a beat came too late; ``work``: processor seconds of this thread between two beats,
    which does not count what other programs of a busy machine take."""

    def __init__(self) -> None:
        self.late = self.work = 0.0
        self._last = (0.0, 0.0)
        self._loop = LoopingCall(self._beat)

    def start(self) -> None:
        self.late = self.work = 0.0
        self._last = (time.perf_counter(), time.thread_time())
        self._loop.start(0.005)

    def _beat(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        self.late = max(self.late, now[0] - self._last[0] - 0.005)
        self.work = max(self.work, now[1] - self._last[1])
        self._last = now

    def stop(self) -> None:
        self._loop.stop()


def _metadata(folder: Path, edges: int, users: int) -> FileMetadata:
    """Each edge has ``users`` users of its own, and an administrator of all of them."""
    file = {
        "version": 2,
        "edges": {f"edge{n}": {"comment": f"Edge {n}", "apikey": f"apikey-of-the-edge-{n}"} for n in range(edges)},
        "users": {
            f"user{n}-{u}@example.org": {
                "passwordHash": HASH,
                "roles": {f"edge{n}": "owner"},
                "alerting": {f"edge{n}": {"offline": 15 + 5 * u, "fault": 60}},
            }
            for n in range(edges)
            for u in range(users)
        },
    }
    path = folder / "metadata.json"
    path.write_text(json.dumps(file))
    now = time.time_ns() // 1_000_000
    state = {"version": 1, "edges": {f"edge{n}": {"lastmessage": now - 60 * MINUTE} for n in range(edges)}}
    (folder / "state.json").write_text(json.dumps(state))
    for name in ("metadata.json", "state.json"):
        (folder / name).chmod(0o600)
    return FileMetadata(
        str(path), str(folder / "state.json"), EventBus(), reactor=reactor, now=lambda: time.time_ns() // 1_000_000
    )


async def _measure(folder: Path, edges: int, users: int) -> dict[str, Any]:
    metadata = _metadata(folder, edges, users)
    await metadata.start()
    began = time.perf_counter()
    for edge in metadata.edges():
        await metadata.get_user_alerting_settings(edge.id)
    asking = time.perf_counter() - began

    mailer = Mailer()
    skew = [0]

    def now() -> int:
        return time.time_ns() // 1_000_000 + skew[0]

    service = AlertingService(
        metadata, mailer, metadata, metadata._events, reactor=reactor, now=now, initial_delay=0,
        guard=MassGuard(minimum=0), tick=3600.0,
    )  # fmt: skip
    assert service.offline is not None
    assert service.sum_state is not None
    heart = Heart()
    figures: dict[str, Any] = {"edges": edges, "users_an_edge": users}

    async def idle(busy: Any) -> None:
        while busy():
            await deferLater(reactor, 0, lambda: None)

    async def timed(name: str, begin: Any, busy: Any) -> None:
        heart.start()
        started = time.perf_counter()
        begin()
        await idle(busy)
        figures[f"{name}_seconds"] = round(time.perf_counter() - started, 3)
        # What is kept is written by the state file within a second: that counts, too.
        await deferLater(reactor, 1.5, lambda: None)
        heart.stop()
        figures[f"{name}_longest_pause_ms"] = round(heart.late * 1000, 1)
        figures[f"{name}_longest_work_ms"] = round(heart.work * 1000, 1)

    def tick() -> None:
        skew[0] += MINUTE
        service.scheduler._tick()

    coming = [0]

    async def come() -> None:
        for n, edge in enumerate(metadata.edges()):
            edge.online = True
            edge.set_sum_state(Level.FAULT)
            if n % 100 == 99:
                # Each comes with a message of its own.
                await deferLater(reactor, 0, lambda: None)
        coming[0] -= 1

    def online() -> None:
        coming[0] += 1
        Deferred.fromCoroutine(come())

    await timed("scan", service.start, lambda: service.scheduler.busy)
    if service.offline.rules.queue_size() != edges:
        raise RuntimeError(f"{service.offline.rules.queue_size()} of {edges} edges are pending")
    await timed("mails", tick, lambda: service.scheduler.busy)
    if mailer.recipients != edges * users:
        raise RuntimeError(f"{mailer.recipients} of {edges * users} users were told")
    await timed("faults", online, lambda: coming[0] or service._plans.active)
    if service.sum_state.rules.queue_size() != edges:
        raise RuntimeError(f"{service.sum_state.rules.queue_size()} of {edges} edges are pending")
    await service.stop()
    await metadata.stop()
    figures["asking_seconds"] = round(asking, 3)
    figures["scan_ratio"] = round(figures["scan_seconds"] / asking, 2)
    figures["longest_pause_ms"] = max(figures[f"{name}_longest_pause_ms"] for name in ("scan", "mails", "faults"))
    return figures


def measure(*, edges: int, users: int) -> dict[str, Any]:
    """``scan_ratio``: the scan against the questions alone."""

    async def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="openems-bench-") as folder:
            return await _measure(Path(folder), edges, users)

    return in_reactor(lambda _: run())
