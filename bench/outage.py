"""A database stopped, killed and the backend killed under load: what is in the database afterwards, second by second.

Edges send over WebSockets to a backend process that writes to a real database and, beside it, to SQLite; users watch.
The phases follow each other without a pause in the load::

    begin   until what the first messages brought is written   steady   ``seconds``
    stopped ``away`` s, then up_again until caught up           killed   the same with -9
    restart the backend is killed with -9 and started again, then ``seconds`` more

An edge's notification has no acknowledgement. What counts as taken is told by the load generator, which knows nothing
of the backend's counters: each message given to an open connection has a time of its own, and for each second the
values that were sent with such a time are compared with those that the database has. Only what a backend killed with
-9 may lose is left out: the :data:`RISK` seconds before its end, the one in which it ended and the next, in which an
edge may not know yet that nobody reads. ``lost`` are the values missing in all other seconds; ``lost_at_kill`` those
missing in these.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.databases import Database, Sqlite, cpu_seconds, database, idle_seconds
from bench.generator import Generator
from bench.process import ROOT, Server
from services.framework import free_port

POLL = 0.5
#: Whole seconds before a kill -9 of the backend in which values may not be on disk yet.
RISK = 2
#: Seconds until what the first messages brought (new series, tables) must be written.
BEGIN = 60.0
#: So many seconds of load may wait where a database keeps up.
KEEPS_UP = 2.0
#: When no fifth of what waited is gone after so many seconds of catching up, it never will be under this load.
GIVE_UP = 40.0
#: At the end, without load: seconds without progress after which it is given up, and seconds in all.
STUCK, DRAIN = 60.0, 1800.0
FIRST, SECOND = "timedata0", "timedata1"


class Outage:
    """One run. ``samples`` of the server: one dict each :data:`POLL` seconds."""

    def __init__(
        self, server: Server, generator: Generator, base: Database | Sqlite, spool: Path, offered: float
    ) -> None:
        self._server = server
        self._generator = generator
        self._base = base
        self._spool = spool
        self._offered = offered
        self.phases: dict[str, tuple[float, float]] = {}
        self.samples: list[dict[str, float]] = []
        self.dropped: dict[str, int] = {}
        self._metrics: dict[str, Any] = {}

    def poll(self) -> dict[str, float]:
        figures = self._server.figures()
        metrics = figures["metrics"]
        sample = {
            "time": time.time(),
            "cpu": figures["cpu_seconds"],
            "rss": figures["rss_bytes"],
            "values": metrics["edgewebsocket0/Values"],
            "connections": metrics["Backend.Edge.Server/Connections"],
            "spool": sum(path.stat().st_size for path in self._spool.glob("*.spool")) if self._spool.exists() else 0,
            "database": self._base.cpu_seconds(),
            "generator": cpu_seconds(self._generator.pid),
            "idle": idle_seconds(),
        }
        for name, id in (("", FIRST), ("second_", SECOND)):
            for key in ("Rows", "Waiting", "WaitingOnDisk", "Unsafe"):
                sample[name + key.lower()] = metrics.get(f"{id}/{key}", 0)
        self._metrics = metrics
        self.samples.append(sample)
        return sample

    def remember_drops(self) -> None:
        """Before the process ends, and at the end."""
        for name, value in self._metrics.items():
            if "/Dropped" in name and value:
                self.dropped[name] = self.dropped.get(name, 0) + value

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.time()
        yield
        self.phases[name] = (began, time.time())
        last = self.samples[-1]
        told = ", ".join(
            f"{key} {last[key]:.0f}" for key in ("values", "rows", "waiting", "waitingondisk", "second_rows")
        )
        print(f"{name}: {time.time() - began:.1f} s, {told}", file=sys.stderr, flush=True)

    def watch(self, seconds: float, until: Callable[[dict[str, float]], bool] = lambda sample: False) -> bool:
        """Polls for so long, or until it is so."""
        end = time.time() + seconds
        while time.time() < end:
            time.sleep(min(POLL, max(0.0, end - time.time())))
            if until(self.poll()):
                return True
        return False

    def caught_up(self, sample: dict[str, float]) -> bool:
        return not sample["waitingondisk"] and sample["waiting"] < self._offered * KEEPS_UP

    def catch_up(self, name: str, patience: float) -> float | None:
        """Seconds it took; None where it did not happen in time, or is not going to."""
        began = time.time()
        waiting = self.samples[-1]["waiting"]

        def over(sample: dict[str, float]) -> bool:
            return self.caught_up(sample) or (sample["time"] > began + GIVE_UP and sample["waiting"] > 0.8 * waiting)

        with self.phase(name):
            done = self.watch(patience, over) and self.caught_up(self.samples[-1])
        return round(time.time() - began, 1) if done else None

    def drain(self) -> bool:
        """Without load, until nothing waits, or nothing moves any more."""
        moved = [self.samples[-1]]

        def over(sample: dict[str, float]) -> bool:
            if any(sample[key] < moved[0][key] for key in ("waiting", "second_waiting")):
                moved[0] = sample
            return not (sample["waiting"] or sample["second_waiting"]) or sample["time"] > moved[0]["time"] + STUCK

        with self.phase("drain"):
            self.watch(DRAIN, over)
        return not (self.samples[-1]["waiting"] or self.samples[-1]["second_waiting"])

    def within(self, name: str) -> list[dict[str, float]]:
        begin, end = self.phases[name]
        return [sample for sample in self.samples if begin <= sample["time"] <= end]


def measure(
    *, database: str, edges: int, values: int, seconds: float, away: float, watchers: int, alone: bool
) -> dict[str, Any]:
    """``away`` 0: the database is left alone, and so is the backend. ``alone``: without SQLite beside it."""
    # Whoever ends us ends the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="openems-outage-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("server", "own"):
            (folder / part).mkdir(mode=0o755)
        return _measure(folder, database, edges, values, seconds, away, watchers, alone)


def _measure(
    folder: Path, name: str, edges: int, values: int, seconds: float, away: float, watchers: int, alone: bool
) -> dict[str, Any]:
    base = database(name, folder / "server")
    try:
        sections: dict[str, Any] = {
            "edge": {"port": free_port()},
            "ui.websocket": {"port": free_port()},
        }
        spool = folder / "own" / "spool"
        own = {} if isinstance(base, Sqlite) else {"spoolDir": str(spool)}
        sections.setdefault(base.kind, []).append({"id": FIRST, **base.section(), **own})
        second = None if alone or isinstance(base, Sqlite) else Sqlite(folder / "own" / "second.sqlite")
        if second is not None:
            sections.setdefault(second.kind, []).append({"id": SECOND, **second.section()})
        file = folder / "own" / "sections.json"
        file.write_text(json.dumps(sections))
        with Server("backend", edges=edges, sections=file) as server:
            return _run(server, base, second, spool, edges, values, seconds, away, watchers)
    finally:
        base.close()


def _run(
    server: Server,
    base: Database | Sqlite,
    second: Sqlite | None,
    spool: Path,
    edges: int,
    values: int,
    seconds: float,
    away: float,
    watchers: int,
) -> dict[str, Any]:
    patience = 120 + 5 * away
    longest = 3 * seconds + 4 * patience + BEGIN + 2 * away + 120
    generator = Generator(
        "hold",
        port=server.ports["edge"],
        edges=edges,
        values=values,
        snapshot=values,
        seconds=longest,
        reconnect=1,
    )
    viewer: subprocess.Popen[str] | None = None
    offered = float(edges * values)
    run = Outage(server, generator, base, spool, offered)
    result: dict[str, Any] = {"edges": edges, "values_per_message": values}
    kills: list[float] = []
    try:
        generator.ready()
        step = max(1, edges // watchers)
        names = [f"edge{n % edges}" for n in range(0, step * watchers, step)]
        viewer = subprocess.Popen(
            [sys.executable, "-m", "bench.watchers", str(server.ports["ui.websocket"]), str(watchers), "0", *names,
             "--follow"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert viewer.stdout is not None and viewer.stdin is not None
        if viewer.stdout.readline() != "ready\n":
            raise RuntimeError("the watchers did not get ready")
        generator.go()
        with run.phase("begin"):
            run.watch(BEGIN, lambda sample: sample["rows"] > 3 * offered and run.caught_up(sample))
        with run.phase("steady"):
            run.watch(seconds)
        if away and base.apart:
            for phase, end, again in (("stopped", base.stop, "up_again"), ("killed", base.kill, "up_again_after_kill")):
                with run.phase(phase):
                    end()
                    run.watch(away)
                    base.resume()
                result[f"caught_up_seconds_after_{phase}"] = run.catch_up(again, patience)
        if away:
            at_kill = run.poll()
            run.remember_drops()
            kills.append(time.time())
            server.kill()
            time.sleep(RISK + 1)
            server.begin()
            with run.phase("restart"):
                run.watch(60, lambda sample: sample["connections"] >= edges)
            result["backend_unsafe_values_at_kill"] = at_kill["unsafe"]
            result["backend_waiting_values_at_kill"] = at_kill["waiting"]
            if second is not None:
                result["second_waiting_values_at_kill"] = at_kill["second_waiting"]
            result["edges_back_seconds"] = round(time.time() - kills[0], 1)
            with run.phase("after_restart"):
                run.watch(seconds)
            result["caught_up_seconds_after_restart"] = run.catch_up("rest", patience)
        generator.stop()
        sent = generator.figures()
        done = run.drain()
        run.remember_drops()
        viewer.stdin.write("end\n")
        viewer.stdin.flush()
        seen = json.loads(viewer.stdout.readline())
    finally:
        generator.end()
        if viewer is not None:
            viewer.kill()
            viewer.wait()
    result["all_written"] = done
    result |= _counted(sent, values, base, kills)
    if not done:
        # What waits is not lost, and not counted either.
        result |= {"lost": None, "missing": result["lost"], "still_waiting": int(run.samples[-1]["waiting"])}
    if second is not None:
        counted = _counted(sent, values, second, kills)
        result |= {f"second_{key}": counted[key] for key in ("counted_values", "lost")}
        result["second_longest_pause_seconds"] = _longest_pause(run.samples)
    result |= _latencies(run, seen, watchers, kills)
    result |= _steady(run, offered, second is not None)
    result["spool_bytes_at_most"] = int(max(sample["spool"] for sample in run.samples))
    result["waiting_values_at_most"] = int(max(sample["waiting"] for sample in run.samples))
    result["rss_bytes_at_most"] = int(max(sample["rss"] for sample in run.samples))
    result["dropped"] = run.dropped
    result["edges_that_gave_up"] = sent["failed"] if not kills else None
    return result


def _counted(sent: dict[str, Any], values: int, base: Database | Sqlite, kills: list[float]) -> dict[str, Any]:
    first = sent["first_second"]
    expected = {first + index: count * values for index, count in enumerate(sent["messages_by_second"])}
    found = base.counts(first - 5, first + len(expected) + 5)
    at_risk = {second for kill in kills for second in range(int(kill) - RISK, int(kill) + 2)}
    missing = {second: count - found.get(second, 0) for second, count in expected.items()}
    return {
        "sent_values": sum(expected.values()),
        "counted_values": sum(found.values()),
        "lost": sum(max(0, count) for second, count in missing.items() if second not in at_risk),
        "lost_at_kill": sum(max(0, missing.get(second, 0)) for second in at_risk),
        "sent_values_at_kill": sum(expected.get(second, 0) for second in at_risk),
        "more_than_sent": sum(max(0, count - expected.get(second, 0)) for second, count in found.items()),
    }


def _longest_pause(samples: list[dict[str, float]]) -> float:
    """In which the second provider wrote nothing although something waited."""
    longest, since = 0.0, samples[0]["time"]
    for before, after in itertools.pairwise(samples):
        if after["second_rows"] != before["second_rows"] or not before["second_waiting"]:
            since = after["time"]
        longest = max(longest, after["time"] - since)
    return round(longest, 1)


def _latencies(run: Outage, seen: dict[str, Any], watchers: int, kills: list[float]) -> dict[str, Any]:
    phases: dict[str, Any] = {}
    for name, (begin, end) in run.phases.items():
        ages = sorted(age for arrival, age in seen["samples"] if begin <= arrival / 1e6 < end)
        if ages:
            phases[name] = {
                "seconds": round(end - begin, 1),
                "pushes_per_watcher_and_second": round(len(ages) / watchers / max(end - begin, 0.001), 2),
                "p99_ms": round(ages[min(len(ages) - 1, int(len(ages) * 0.99))] / 1000, 1),
                "max_ms": round(ages[-1] / 1000, 1),
            }
    worst = max((figures["p99_ms"] for name, figures in phases.items()), default=None)
    result: dict[str, Any] = {"p99_ms": worst, "edge_to_ui": phases}
    if kills:
        later = [arrival / 1e6 for arrival, _ in seen["samples"] if arrival / 1e6 > kills[0] + RISK]
        result["ui_again_seconds_after_kill"] = round(min(later) - kills[0], 1) if later else None
    return result


def _steady(run: Outage, offered: float, second: bool) -> dict[str, Any]:
    """What was written of what was offered while nothing was broken, and what that took."""
    samples = run.within("steady")
    begin, end = samples[0], samples[-1]
    span = end["time"] - begin["time"]
    share = {key: round((end[key] - begin[key]) / span, 2) for key in ("cpu", "database", "generator", "idle")}
    waiting = end["waiting"] - begin["waiting"]
    if waiting <= offered * KEEPS_UP:
        limit = "none"
    elif share["cpu"] >= 0.9:
        limit = "backend"
    elif share["idle"] < 0.1:
        limit = "processors of the machine"
    else:
        limit = "database"
    result = {
        "values_offered_per_second": round((end["values"] - begin["values"]) / span),
        "values_written_per_second": round((end["rows"] - begin["rows"]) / span),
        "values_waiting_at_the_end": int(end["waiting"]),
        "limit": limit,
        "backend_processors": share["cpu"],
        "database_processors": share["database"],
        "generator_processors": share["generator"],
        "idle_processors": share["idle"],
    }
    if second:
        result["second_values_written_per_second"] = round((end["second_rows"] - begin["second_rows"]) / span)
    return result
