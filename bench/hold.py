"""Edges at the real cadence, some of them watched: from the edge's clock to the push at the UI."""

from __future__ import annotations

import time
from typing import Any

from bench.generator import Generator
from bench.process import Server
from bench.processors import LOAD_CPUS, place
from bench.watching import Watching

#: Seconds the watchers stay beyond the edges.
LONGER = 3.0


def measure(
    *,
    edges: int,
    watchers: int,
    watched: int,
    seconds: float,
    settle: float = 0.0,
    spread: int = 300,
    applications: int = 0,
    profile: str | None = None,
) -> dict[str, Any]:
    """``watchers`` look at ``watched`` of the ``edges``. A snapshot of all values comes from each edge at the start and
    every 300 s, of a fleet that was started over ``spread`` seconds. Latencies count after ``settle`` seconds."""
    with Server("backend", **place(applications), edges=edges, profile=profile) as server:
        generator = Generator(
            "hold", LOAD_CPUS, port=server.ports["edge"], edges=edges, values=25, seconds=seconds, spread=spread
        )
        try:
            generator.ready()
            step = max(1, edges // watched)
            names = [f"edge{n}" for n in range(0, step * watched, step)]
            ui = server.ports["ui.websocket"]
            with Watching(ui, watchers, names, f"--settle={settle}", seconds=seconds + LONGER) as viewer:
                before = server.figures()
                generator.go()
                time.sleep(min(settle or seconds / 10, seconds))
                settled = server.figures()
                figures = generator.figures()
                after = server.figures()
                seen = viewer.figures()
        finally:
            generator.end()
    if figures["answered"] != figures["edges"]:
        raise RuntimeError(f"{figures['edges'] - figures['answered']} edges got no answer: {figures}")
    expected = watchers * (figures["messages"] // edges)
    cpu = after["cpu_seconds"] - before["cpu_seconds"]
    return {
        **seen,
        "edges": edges,
        "messages": figures["messages"],
        "snapshots": figures["snapshots"],
        "lost_messages": figures["messages"] - after["metrics"]["edgewebsocket0/Messages"],
        "missing_pushes": expected - seen["pushes"],
        "server_cpu_share": round(cpu / figures["seconds"], 3),
        "server_cpu_seconds": round(cpu, 3),
        "rss_bytes_before": before["rss_bytes"],
        "rss_bytes_settled": settled["rss_bytes"],
        "rss_bytes": after["rss_bytes"],
        "generator_most_behind_ms": figures["most_behind_ms"],
        "seconds": figures["seconds"],
        **of_applications(before, after),
    }


def of_applications(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What each edge application took, and what they lost; nothing without any."""
    if "applications_cpu_seconds" not in after:
        return {}
    pairs = zip(before["applications_cpu_seconds"], after["applications_cpu_seconds"], strict=True)
    return {
        "applications_cpu_seconds": [round(late - early, 2) for early, late in pairs],
        "applications_rss_bytes": after["applications_rss_bytes"],
        "applications_dropped": after["metrics"]["edgeapplications0/DroppedMessages"],
    }
