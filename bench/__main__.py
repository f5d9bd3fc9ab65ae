"""``python -m bench NAME``: one benchmark; the last line of its output is one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.databases import NAMES as DATABASES
from bench.generator import Generator, NoCompiler
from bench.hold import measure as hold_edges
from bench.hold import of_applications
from bench.inventory import by_type
from bench.process import ROOT, Server
from bench.processors import CPUS, LOAD_CPUS, SERVER_CPU, place

RESULTS = ROOT / "docs" / "performance.md"
HEAD = "| date | commit | machine | benchmark | figures | command |"

Options = argparse.Namespace


def _ingest_run(kind: str, options: Options, **server: Any) -> dict[str, Any]:
    """One run: ``messages_per_cpu_second`` of the server, proven by an answer to each edge after its last message."""
    applications = options.through_applications if kind == "backend" else 0
    with Server(kind, **place(applications), edges=options.edges, **server) as running:
        generator = Generator(
            "ingest",
            LOAD_CPUS,
            port=running.ports["edge"],
            edges=options.edges,
            values=options.values,
            messages=max(1, options.messages // options.edges),
            seconds=options.seconds,
        )
        try:
            generator.ready()
            before = running.figures()
            began = time.monotonic()
            figures = generator.run()
            after = running.figures("flush")
            figures["flushed_seconds"] = time.monotonic() - began
            if server.get("history") == "sqlite":
                figures["stored_values"] = _stored(running.folder / "history.sqlite")
        finally:
            generator.end()
    _all_answered(figures)
    cpu = after["cpu_seconds"] - before["cpu_seconds"]
    figures["server_cpu_seconds"] = round(cpu, 3)
    figures["messages_per_cpu_second"] = round(figures["messages"] / cpu)
    figures["rss_bytes"] = after["rss_bytes"]
    figures["applications"] = of_applications(before, after)
    figures["metrics"] = after.get("metrics", {})
    if kind == "backend" and figures["metrics"]["edgewebsocket0/Messages"] < figures["messages"]:
        raise RuntimeError(f"messages were lost: {figures}")
    return figures


def _stored(path: Path) -> int:
    """Values that are really in the file, whatever its writer counted."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        numbers, texts = (connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("number", "text"))
    return int(numbers + texts)


def _all_answered(figures: dict[str, Any]) -> None:
    if figures["answered"] != figures["edges"]:
        raise RuntimeError(f"{figures['edges'] - figures['answered']} edges got no answer: {figures}")


def ingest(options: Options) -> dict[str, Any]:
    """Edge to cache, history off, beside the bare limit, in turns."""
    bare, ours, applications = [], [], {}
    for _ in range(options.rounds):
        bare.append(_ingest_run("bare", options)["messages_per_cpu_second"])
        run = _ingest_run("backend", options, profile=options.profile)
        ours.append(run["messages_per_cpu_second"])
        applications = run["applications"]
    return {
        "ratio": round(statistics.median(ours) / statistics.median(bare), 3),
        "backend_messages_per_cpu_second": round(statistics.median(ours)),
        "bare_messages_per_cpu_second": round(statistics.median(bare)),
        "ratios_of_rounds": [round(a / b, 3) for a, b in zip(ours, bare, strict=True)],
        "edges": options.edges,
        "values_per_message": options.values,
        **applications,
    }


def ingest_sqlite(options: Options) -> dict[str, Any]:
    """The same with history; until everything is in the file."""
    runs = [_ingest_run("backend", options, history="sqlite", profile=options.profile) for _ in range(options.rounds)]
    best = sorted(runs, key=lambda run: run["flushed_seconds"])[len(runs) // 2]
    metrics = {name: value for name, value in best["metrics"].items() if name.startswith("timedata0/")}
    rows = best["stored_values"]
    return {
        "written_values_per_cpu_second": round(rows / best["server_cpu_seconds"]),
        "written_values_per_second": round(rows / best["flushed_seconds"]),
        "taken_values": best["messages"] * options.values,
        "written_values": rows,
        "messages_per_cpu_second": best["messages_per_cpu_second"],
        "edges": options.edges,
        "history": metrics,
    }


def idle(options: Options) -> dict[str, Any]:
    """What a silent edge costs the backend in memory."""
    with Server("backend", cpus=SERVER_CPU, edges=options.edges) as server:
        # What counting takes is taken before both figures.
        question = "inventory" if options.profile else "now"
        server.figures(question)
        before = server.figures(question)
        generator = Generator(
            "idle", LOAD_CPUS, port=server.ports["edge"], edges=options.edges, seconds=min(options.seconds, 3)
        )
        try:
            generator.ready()
            generator.go()
            after = server.figures(question)
            figures = generator.figures()
        finally:
            generator.end()
    if figures["open"] != options.edges:
        raise RuntimeError(f"edges were lost: {figures}")
    if options.profile:
        Path(options.profile).write_text(by_type(before, after, options.edges))
    return {
        "bytes_per_silent_edge": round((after["rss_bytes"] - before["rss_bytes"]) / options.edges),
        "edges": options.edges,
        "rss_bytes": after["rss_bytes"],
    }


def hold(options: Options) -> dict[str, Any]:
    """Edges at the real cadence, the server on one core; from the edge's clock to the push at the UI."""
    return hold_edges(
        edges=options.edges,
        watchers=options.watchers,
        watched=options.watchers,
        seconds=options.seconds,
        settle=options.settle,
        spread=options.spread,
        applications=options.through_applications,
        profile=options.profile,
    )


def fanout(options: Options) -> dict[str, Any]:
    """One edge, many watchers."""
    figures = hold_edges(
        edges=1,
        watchers=options.watchers,
        watched=1,
        seconds=options.seconds,
        settle=options.settle,
        profile=options.profile,
    )
    figures["pushes_per_cpu_second"] = round(figures["pushes"] / figures["server_cpu_seconds"])
    return figures


def storm(options: Options) -> dict[str, Any]:
    """All edges connect at once beside others that are there already; until each got an answer."""
    from bench.storm import measure

    return measure(
        edges=options.edges,
        live=options.live,
        watchers=options.watchers,
        greet=options.greet,
        profile=options.profile,
    )


def slow_readers(options: Options) -> dict[str, Any]:
    """Watchers that stop reading, beside healthy ones."""
    from bench.slowreaders import measure

    return measure(
        edges=options.edges,
        watchers=options.watchers,
        slow=options.slow,
        seconds=options.seconds,
        profile=options.profile,
    )


def rpc(options: Options) -> dict[str, Any]:
    """A user asks an edge a hundred times a second, while the others send at the real cadence; server on one core."""
    with Server("backend", cpus=SERVER_CPU, edges=options.edges + 1, profile=options.profile) as server:
        generator = Generator(
            "hold", LOAD_CPUS, port=server.ports["edge"], edges=options.edges, values=25, seconds=options.seconds + 2
        )
        asker = None
        try:
            generator.ready()
            number = options.edges
            asker = subprocess.Popen(
                [sys.executable, "-m", "bench.roundtrips", str(server.ports["ui.websocket"]), str(server.ports["edge"]),
                 f"apikey{number}", f"edge{number}", f"--seconds={options.seconds}"],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )  # fmt: skip
            os.sched_setaffinity(asker.pid, LOAD_CPUS)
            assert asker.stdout is not None
            if asker.stdout.readline() != "ready\n":
                raise RuntimeError("the user did not get ready")
            before = server.figures()
            generator.go()
            asked = json.loads(asker.stdout.readline())
            after = server.figures()
            generator.figures()
        finally:
            generator.end()
            if asker is not None:
                if asker.poll() is None:
                    asker.kill()
                asker.wait()
    share = (after["cpu_seconds"] - before["cpu_seconds"]) / (options.seconds + 1)
    return {**asked, "edges": options.edges, "server_cpu_share": round(share, 3)}


def soak(options: Options) -> dict[str, Any]:
    """Edges that lose their connection, watchers that come and go, for ``--seconds``: nothing may grow."""
    from bench.soak import measure

    return measure(
        edges=options.edges,
        watchers=options.watchers,
        values=options.values,
        churn=options.churn,
        seconds=options.seconds,
        profile=options.profile,
    )


def growth(options: Options) -> dict[str, Any]:
    """What a message costs from 100 edges to ``--edges``, beside the bare limit; ``--record`` draws docs/growth.svg."""
    from bench.growth import picture

    counts = [count for count in (100, 300, 1000, 3000, 10_000) if count <= options.edges]
    lines: dict[str, list[tuple[int, float]]] = {"backend": [], "bare limit": []}
    for count in counts:
        options.edges = count
        options.messages = max(50_000, count * 10)
        for name, kind in (("backend", "backend"), ("bare limit", "bare")):
            lines[name].append((count, 1e6 / _ingest_run(kind, options)["messages_per_cpu_second"]))
    if options.record:
        picture(RESULTS.parent / "growth.svg", lines)
    ours, bare = lines["backend"], lines["bare limit"]
    return {
        "ratio": round(ours[-1][1] / ours[0][1], 3),
        "bare_ratio": round(bare[-1][1] / bare[0][1], 3),
        "edges": counts,
        "microseconds_per_message": [round(cost, 1) for _, cost in ours],
        "bare_microseconds_per_message": [round(cost, 1) for _, cost in bare],
        "values_per_message": options.values,
    }


def history(options: Options) -> dict[str, Any]:
    """A day of five-minute values of ten channels, through the provider and as bare SQL."""
    from bench.history import measure

    return measure(edges=options.edges, days=options.days, rounds=options.rounds)


def b2b_rest(options: Options) -> dict[str, Any]:
    """REST, 10 edges with 20 channels, beside a bare Klein resource that returns the same bytes, in turns."""
    from bench.b2b import rest

    return rest(options.seconds, options.rounds)


def b2b_websocket(options: Options) -> dict[str, Any]:
    """Subscribers of 50 edges with 10 channels: all the same, then each another."""
    from bench.b2b import websocket

    return websocket(options.seconds, options.watchers)


def metrics(options: Options) -> dict[str, Any]:
    """What a scrape takes of the reactor while all edges are connected (fake links)."""
    from bench.metrics import measure

    return measure(edges=options.edges, rounds=options.rounds)


def tokens(options: Options) -> dict[str, Any]:
    """Access tokens of Keycloak verified, beside bare PyJWT, in turns; and all of them at once."""
    from bench.tokens import measure

    return measure(tokens=options.messages, rounds=options.rounds)


def alerting(options: Options) -> dict[str, Any]:
    """Alerting's scan of a fleet that is offline, beside the bare questions; then all mails, all faults."""
    from bench.alerting import measure

    return measure(edges=options.edges, users=2)


def influx(options: Options) -> dict[str, Any]:
    """InfluxDB 2: writing beside pre-made batches, a day and a year of history beside the bare queries."""
    from bench.influx import measure

    return measure(messages=options.messages, values=options.values, rounds=options.rounds)


def postgres_write(options: Options) -> dict[str, Any]:
    """Notifications into a real PostgreSQL, beside the same statements sent by hand."""
    from bench.postgres import measure

    messages = max(1, options.messages // options.edges)
    return measure("write", edges=options.edges, values=options.values, messages=messages, rounds=options.rounds)


def postgres_ask(options: Options) -> dict[str, Any]:
    """A day of five-minute values and a year in days with energy from a real PostgreSQL, beside the bare queries."""
    from bench.postgres import measure

    return measure("ask", days=options.days, rounds=options.rounds)


def odoo(options: Options) -> dict[str, Any]:
    """Metadata in a real Odoo: start, logins, a write of all edges' status."""
    from bench.odoo import measure

    return measure(edges=options.edges, rounds=options.rounds)


def odoo_outage(options: Options) -> dict[str, Any]:
    """Odoo and its PostgreSQL away under load; ``--seconds`` is how long."""
    from bench.odoo import outage

    return outage(edges=options.edges, seconds=options.seconds)


def outage(options: Options) -> dict[str, Any]:
    """A real database stopped and killed under load, the backend killed too; all that was sent is counted in it."""
    from bench.outage import measure

    return measure(
        database=options.database,
        edges=options.edges,
        values=options.values,
        seconds=options.seconds,
        away=options.away,
        watchers=options.watchers,
        alone=options.alone,
    )


#: Name -> what to run, and the options that differ from the usual ones.
BENCHMARKS: dict[str, tuple[Callable[[Options], dict[str, Any]], dict[str, Any]]] = {
    "ingest": (ingest, {}),
    "ingest-sqlite": (ingest_sqlite, {"rounds": 1, "messages": 40_000}),
    "idle": (idle, {"edges": 2000}),
    "hold": (hold, {"edges": 2000, "watchers": 20}),
    "fanout": (fanout, {"watchers": 500}),
    "storm": (storm, {"edges": 2000}),
    "slow-readers": (slow_readers, {"edges": 500}),
    "rpc": (rpc, {"edges": 1000}),
    "soak": (soak, {"edges": 500, "values": 25, "seconds": 1800.0}),
    "growth": (growth, {"edges": 10_000, "seconds": 60.0}),
    "history": (history, {"edges": 20, "rounds": 20}),
    "odoo": (odoo, {"edges": 10_000, "rounds": 20}),
    "odoo-outage": (odoo_outage, {"edges": 1000, "seconds": 60.0}),
    "outage": (outage, {"edges": 1000, "values": 25, "seconds": 20.0}),
    "influx": (influx, {"messages": 10_000, "values": 25, "rounds": 5}),
    "alerting": (alerting, {"edges": 10_000}),
    "metrics": (metrics, {"edges": 10_000, "rounds": 20}),
    "b2b-rest": (b2b_rest, {"seconds": 4.0}),
    "tokens": (tokens, {"messages": 5000, "rounds": 5}),
    "postgres-write": (postgres_write, {"edges": 50, "messages": 10_000}),
    "postgres-ask": (postgres_ask, {"rounds": 5}),
    "b2b-websocket": (b2b_websocket, {"watchers": 200}),
}
#: With fewer edges there is nothing to begin with, or nobody who owns ten of them.
LEAST_EDGES = {"growth": 100, "odoo": 10, "odoo-outage": 10}
#: Those that can go through edge applications.
THROUGH = frozenset({"ingest", "hold"})
USUAL = {
    "edges": 100,
    "values": 120,
    "messages": 100_000,
    "seconds": 10.0,
    "rounds": 3,
    "watchers": 20,
    "days": 365,
    "live": 500,
    "slow": 50,
    "churn": 10,
}

MEANING = {
    "live": "storm: edges that are there already",
    "slow": "slow-readers: watchers that stop reading",
    "churn": "soak: edges that lose their connection in a second",
}


def record(result: dict[str, Any]) -> None:
    """One more row of the table in docs/performance.md."""
    figures = ", ".join(
        f"{name} {value}" for name, value in result.items() if name not in ("name", "command", "history")
    )
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    row = f"| {day} | {commit()} | {machine()} | {result['name']} | {figures} | `{result['command']}` |"
    text = RESULTS.read_text() if RESULTS.exists() else "# Performance\n"
    if HEAD not in text:
        text += f"\n## Results\n\n{HEAD}\n|---|---|---|---|---|---|\n"
    lines = text.splitlines()
    end = lines.index(HEAD) + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    lines.insert(end, row)
    RESULTS.write_text("\n".join(lines) + "\n")


def commit() -> str:
    """``unknown`` without git, and in an unpacked archive."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {len(CPUS)} cores, CPython {platform.python_version()}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    for name, value in USUAL.items():
        parser.add_argument(f"--{name}", type=type(value), help=MEANING.get(name))
    parser.add_argument(
        "--through-applications",
        type=int,
        default=0,
        metavar="N",
        help=f"edges come through N edge applications, on all processors ({', '.join(sorted(THROUGH))})",
    )
    parser.add_argument(
        "--settle",
        type=float,
        default=0.0,
        metavar="S",
        help="hold, fanout: latencies are measured after S seconds; at the start every edge sends all its values",
    )
    parser.add_argument(
        "--spread",
        type=int,
        default=300,
        metavar="S",
        help="hold: the edges were started over S seconds, so their snapshots are; 0: all in one second",
    )
    parser.add_argument("--greet", action="store_true", help="storm: each edge sends all its values first")
    parser.add_argument(
        "--database", choices=DATABASES, default=DATABASES[0], help="outage: what the backend writes to"
    )
    parser.add_argument(
        "--away",
        type=float,
        default=60.0,
        metavar="S",
        help="outage: seconds that it is away each time; 0: only steady",
    )
    parser.add_argument("--alone", action="store_true", help="outage: no SQLite beside the database")
    parser.add_argument("--record", action="store_true", help="append a row to docs/performance.md")
    parser.add_argument(
        "--profile",
        metavar="FILE",
        help="what the backend's time goes into, for python -m bench.costs; slows it down. idle: its memory by type",
    )
    options = parser.parse_args(arguments)
    run, own = BENCHMARKS[options.name]
    for name, value in {**USUAL, **own}.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in USUAL:
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be more than 0")
    if options.edges < LEAST_EDGES.get(options.name, 1):
        parser.error(f"--edges must be at least {LEAST_EDGES[options.name]}")
    if options.through_applications and options.name not in THROUGH:
        parser.error("--through-applications is for " + ", ".join(sorted(THROUGH)))
    words = [word for word in arguments if word != "--record"]
    try:
        result = {"name": options.name, **run(options), "command": "./dev bench " + " ".join(words)}
    except NoCompiler as e:
        print(e, file=sys.stderr)
        return 1
    if options.record:
        record(result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
