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

from bench.generator import Generator, NoCompiler, build
from bench.process import ROOT, Server

RESULTS = ROOT / "docs" / "performance.md"
HEAD = "| date | commit | machine | benchmark | figures | command |"
#: The server on the first processor, whatever loads it on the others.
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = {CPUS[0]}
LOAD_CPUS = set(CPUS[1:]) or SERVER_CPU

Options = argparse.Namespace


def _place(applications: int) -> dict[str, Any]:
    """Where the server runs: on one processor; with edge applications on all, beside the load."""
    return {"cpus": None, "applications": applications} if applications else {"cpus": SERVER_CPU}


def _ingest_run(kind: str, options: Options, **server: Any) -> dict[str, Any]:
    """One run: ``messages_per_cpu_second`` of the server, proven by an answer to each edge after its last message."""
    applications = options.through_applications if kind == "backend" else 0
    with Server(kind, **_place(applications), edges=options.edges, **server) as running:
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
    figures["applications"] = _applications(before, after)
    figures["metrics"] = after.get("metrics", {})
    if kind == "backend" and figures["metrics"]["edgewebsocket0/Messages"] < figures["messages"]:
        raise RuntimeError(f"messages were lost: {figures}")
    return figures


def _applications(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What each edge application took, and what they lost; nothing without any."""
    if "applications_cpu_seconds" not in after:
        return {}
    pairs = zip(before["applications_cpu_seconds"], after["applications_cpu_seconds"], strict=True)
    return {
        "applications_cpu_seconds": [round(late - early, 2) for early, late in pairs],
        "applications_rss_bytes": after["applications_rss_bytes"],
        "applications_dropped": after["metrics"]["edgeapplications0/DroppedMessages"],
    }


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
        before = server.figures()
        generator = Generator(
            "idle", LOAD_CPUS, port=server.ports["edge"], edges=options.edges, seconds=min(options.seconds, 3)
        )
        try:
            generator.ready()
            generator.go()
            after = server.figures()
            figures = generator.figures()
        finally:
            generator.end()
    if figures["open"] != options.edges:
        raise RuntimeError(f"edges were lost: {figures}")
    return {
        "bytes_per_silent_edge": round((after["rss_bytes"] - before["rss_bytes"]) / options.edges),
        "edges": options.edges,
        "rss_bytes": after["rss_bytes"],
    }


def _watched(options: Options, edges: int, watchers: int, watched: int) -> dict[str, Any]:
    place = _place(options.through_applications)
    with Server("backend", **place, edges=edges, profile=options.profile) as server:
        generator = Generator(
            "hold", LOAD_CPUS, port=server.ports["edge"], edges=edges, values=25, seconds=options.seconds
        )
        viewer = None
        try:
            generator.ready()
            step = max(1, edges // watched)
            names = [f"edge{n}" for n in range(0, step * watched, step)]
            command = [sys.executable, "-m", "bench.watchers", str(server.ports["ui.websocket"]), str(watchers)]
            viewer = subprocess.Popen(
                [*command, str(options.seconds + 1), *names, f"--settle={options.settle}"],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            os.sched_setaffinity(viewer.pid, LOAD_CPUS)
            assert viewer.stdout is not None
            if viewer.stdout.readline() != "ready\n":
                raise RuntimeError("the watchers did not get ready")
            before = server.figures()
            figures = generator.run()
            after = server.figures()
            seen = json.loads(viewer.stdout.readline())
        finally:
            generator.end()
            if viewer is not None:
                if viewer.poll() is None:
                    try:
                        viewer.wait(5)
                    except subprocess.TimeoutExpired:
                        viewer.kill()
                viewer.wait()
    _all_answered(figures)
    expected = watchers * (figures["messages"] // edges)
    return {
        **seen,
        "edges": edges,
        "messages": figures["messages"],
        "lost_messages": figures["messages"] - after["metrics"]["edgewebsocket0/Messages"],
        "missing_pushes": expected - seen["pushes"],
        "server_cpu_share": round((after["cpu_seconds"] - before["cpu_seconds"]) / figures["seconds"], 3),
        "server_cpu_seconds": round(after["cpu_seconds"] - before["cpu_seconds"], 3),
        "rss_bytes": after["rss_bytes"],
        "seconds": figures["seconds"],
        **_applications(before, after),
    }


def hold(options: Options) -> dict[str, Any]:
    """Edges at the real cadence, the server on one core; from the edge's clock to the push at the UI."""
    return _watched(options, options.edges, options.watchers, options.watchers)


def fanout(options: Options) -> dict[str, Any]:
    """One edge, many watchers."""
    figures = _watched(options, 1, options.watchers, 1)
    figures["pushes_per_cpu_second"] = round(figures["pushes"] / figures["server_cpu_seconds"])
    return figures


def storm(options: Options) -> dict[str, Any]:
    """All edges connect at once; until each got an answer."""
    with Server("backend", cpus=SERVER_CPU, edges=options.edges) as server:
        before = server.figures()
        done = subprocess.run(
            [str(build()), "storm", f"port={server.ports['edge']}", f"edges={options.edges}", "seconds=120"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        after = server.figures()
    figures = json.loads(done.stdout)
    return {
        "all_answered_seconds": figures["connect_seconds"],
        "failed": figures["failed"] + figures["edges"] - figures["answered"],
        "edges": options.edges,
        "server_cpu_seconds": round(after["cpu_seconds"] - before["cpu_seconds"], 3),
    }


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
    """A fleet that comes, sends and goes again and again for ``--seconds``: what the server holds when all are gone
    must not grow. ``ratio``: memory at the end by that after a fifth of the time."""
    samples: list[dict[str, Any]] = []
    end = time.monotonic() + options.seconds
    with Server("backend", cpus=SERVER_CPU, edges=options.edges, history="sqlite") as server:
        while time.monotonic() < end or len(samples) < 5:
            generator = Generator(
                "hold", LOAD_CPUS, port=server.ports["edge"], edges=options.edges, values=options.values, seconds=3
            )
            try:
                generator.ready()
                figures = generator.run()
            finally:
                generator.end()
            _all_answered(figures)
            time.sleep(0.5)
            samples.append(server.figures("flush"))
    early, late = samples[len(samples) // 5], samples[-1]
    return {
        "ratio": round(late["rss_bytes"] / early["rss_bytes"], 3),
        "rounds": len(samples),
        "edges": options.edges,
        **{f"{name}_early": early[name] for name in ("rss_bytes", "descriptors", "timers")},
        **{f"{name}_late": late[name] for name in ("rss_bytes", "descriptors", "timers")},
    }


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


#: Name -> what to run, and the options that differ from the usual ones.
BENCHMARKS: dict[str, tuple[Callable[[Options], dict[str, Any]], dict[str, Any]]] = {
    "ingest": (ingest, {}),
    "ingest-sqlite": (ingest_sqlite, {"rounds": 1, "messages": 40_000}),
    "idle": (idle, {"edges": 2000}),
    "hold": (hold, {"edges": 2000, "watchers": 20}),
    "fanout": (fanout, {"watchers": 500}),
    "storm": (storm, {"edges": 2000}),
    "rpc": (rpc, {"edges": 1000}),
    "soak": (soak, {"edges": 500, "values": 25, "seconds": 1800.0}),
    "growth": (growth, {"edges": 10_000, "seconds": 60.0}),
    "history": (history, {"edges": 20, "rounds": 20}),
    "odoo": (odoo, {"edges": 10_000, "rounds": 20}),
    "odoo-outage": (odoo_outage, {"edges": 1000, "seconds": 60.0}),
    "influx": (influx, {"messages": 10_000, "values": 25, "rounds": 5}),
    "alerting": (alerting, {"edges": 10_000}),
    "metrics": (metrics, {"edges": 10_000, "rounds": 20}),
    "b2b-rest": (b2b_rest, {"seconds": 4.0}),
    "tokens": (tokens, {"messages": 5000, "rounds": 5}),
    "postgres-write": (postgres_write, {"edges": 50, "messages": 10_000}),
    "postgres-ask": (postgres_ask, {"rounds": 5}),
    "b2b-websocket": (b2b_websocket, {"watchers": 200}),
}
#: Those that can go through edge applications.
THROUGH = frozenset({"ingest", "hold"})
USUAL = {"edges": 100, "values": 120, "messages": 100_000, "seconds": 10.0, "rounds": 3, "watchers": 20, "days": 365}


def record(result: dict[str, Any]) -> None:
    """One more row of the table in docs/performance.md."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    ).stdout.strip()
    figures = ", ".join(
        f"{name} {value}" for name, value in result.items() if name not in ("name", "command", "history")
    )
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    row = f"| {day} | {commit} | {machine()} | {result['name']} | {figures} | `{result['command']}` |"
    text = RESULTS.read_text() if RESULTS.exists() else "# Performance\n"
    if HEAD not in text:
        text += f"\n## Results\n\n{HEAD}\n|---|---|---|---|---|---|\n"
    lines = text.splitlines()
    end = lines.index(HEAD) + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    lines.insert(end, row)
    RESULTS.write_text("\n".join(lines) + "\n")


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
        parser.add_argument(f"--{name}", type=type(value))
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
    parser.add_argument("--record", action="store_true", help="append a row to docs/performance.md")
    parser.add_argument("--profile", metavar="FILE", help="cProfile of the backend; slows it down")
    options = parser.parse_args(arguments)
    run, own = BENCHMARKS[options.name]
    for name, value in {**USUAL, **own}.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in USUAL:
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be more than 0")
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
