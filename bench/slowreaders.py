"""Watchers that stop reading, beside healthy ones: what the healthy notice, what the server keeps for each, what the
slow get once they read again."""

from __future__ import annotations

import time
from typing import Any

from bench.generator import Generator
from bench.process import Server
from bench.processors import LOAD_CPUS, SERVER_CPU
from bench.watching import Watching, latencies

#: Seconds in which each edge sends all its values; and until pushes to all slow readers are left out.
START, PATIENCE = 3.0, 30.0
#: Edges that each slow reader watches, all channels of them: about 400 kB a second.
WATCHED = 20


def measure(*, edges: int, watchers: int, slow: int, seconds: float, profile: str | None) -> dict[str, Any]:
    """``watchers`` healthy ones, ``slow`` others; ``seconds`` without the slow, and as many beside them. Readers that
    answer no ping are dropped after 90 s, so at most 40."""
    seconds = min(seconds, 40.0)
    with Server("backend", cpus=SERVER_CPU, edges=edges, profile=profile) as server:
        generator = Generator(
            "hold",
            LOAD_CPUS,
            port=server.ports["edge"],
            edges=edges,
            values=25,
            reconnect=1,
            seconds=START + 2 * seconds + PATIENCE + 120,
        )
        try:
            generator.ready()
            ui = server.ports["ui.websocket"]
            with Watching(ui, watchers, [f"edge{n % edges}" for n in range(watchers)]) as healthy:
                generator.go()
                time.sleep(START)
                without_began = time.time()
                time.sleep(seconds)
                without_ended, before = time.time(), server.figures()
                with Watching(ui, slow, [f"edge{n}" for n in range(min(edges, WATCHED))], stalled=True) as stalled:
                    reading = server.figures()
                    stalled.ask("stop")
                    began = _all_behind(server, slow)
                    beside_began = time.time()
                    time.sleep(seconds)
                    beside_ended, beside = time.time(), server.figures()
                    again = stalled.ask("go")
                    after = server.figures()
                generator.stop()
                sent = generator.figures()
                samples = healthy.stop()["samples"]
                end = server.figures()
        finally:
            generator.end()
    without = latencies(samples, without_began, without_ended, "without_")
    besides = latencies(samples, beside_began, beside_ended, "beside_")
    waiting = beside["waiting_bytes"]
    cpu = beside["cpu_seconds"] - began["cpu_seconds"]
    return {
        "p99_ratio": _ratio(besides["beside_p99_ms"], without["without_p99_ms"]),
        "p50_ratio": _ratio(besides["beside_p50_ms"], without["without_p50_ms"]),
        **without,
        **besides,
        "slow_readers": len(waiting),
        "waiting_bytes_per_slow_reader": round(sum(waiting) / max(1, len(waiting))),
        "rss_bytes_per_slow_reader": round((beside["rss_bytes"] - reading["rss_bytes"]) / slow),
        "rss_bytes_per_reader_before": round((reading["rss_bytes"] - before["rss_bytes"]) / slow),
        "pushes_skipped": beside["metrics"]["uiwebsocket0/Superseded"] - began["metrics"]["uiwebsocket0/Superseded"],
        **again,
        "waiting_bytes_after": sum(after["waiting_bytes"]),
        "edges": edges,
        "watchers": watchers,
        "server_cpu_share": round(cpu / seconds, 3),
        "lost_messages": sent["messages"] - end["metrics"]["edgewebsocket0/Messages"],
    }


def _all_behind(server: Server, slow: int) -> dict[str, Any]:
    """The server's figures as soon as it leaves out pushes to all of them."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        figures = server.figures()
        if len(figures["waiting_bytes"]) >= slow and figures["metrics"]["uiwebsocket0/Superseded"] >= slow:
            return figures
        time.sleep(0.5)
    raise RuntimeError(f"only {len(figures['waiting_bytes'])} of {slow} readers are slow")


def _ratio(one: float | None, other: float | None) -> float | None:
    return round(one / other, 2) if one is not None and other else None
