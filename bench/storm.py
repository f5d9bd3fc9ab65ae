"""All edges connect at once while others are there: until each newcomer had its answer, and what the others noticed."""

from __future__ import annotations

import time
from typing import Any

from bench.generator import Generator
from bench.process import Server
from bench.processors import LOAD_CPUS, SERVER_CPU
from bench.watching import Watching, latencies

#: Seconds of the live edges alone: their start, in which each sends all its values, and what is compared with.
START, BEFORE = 3.0, 5.0
#: Seconds after which the newcomers are given up; from the last answer until they go all at once, and after that.
PATIENCE, AFTER = 120.0, 2.0


def measure(*, edges: int, live: int, watchers: int, greet: bool, profile: str | None) -> dict[str, Any]:
    """``edges`` newcomers; ``live`` edges at the real cadence, ``watchers`` of them watched. ``greet``: each newcomer
    sends all its values first."""
    with Server("backend", cpus=SERVER_CPU, edges=edges + live, profile=profile) as server:
        residents = Generator(
            "hold",
            LOAD_CPUS,
            port=server.ports["edge"],
            first=edges,
            edges=live,
            values=25,
            reconnect=1,
            seconds=START + BEFORE + PATIENCE + 60,
        )
        newcomers = Generator(
            "storm", LOAD_CPUS, port=server.ports["edge"], edges=edges, greet=int(greet), stay=1, seconds=PATIENCE
        )
        try:
            residents.ready()
            newcomers.ready()
            step = max(1, live // watchers)
            names = [f"edge{edges + n}" for n in range(0, live, step)][:watchers]
            with Watching(server.ports["ui.websocket"], watchers, names) as seen:
                residents.go()
                time.sleep(START)
                began = time.time()
                time.sleep(BEFORE)
                before = server.figures()
                storm_began = time.time()
                newcomers.go()
                figures = newcomers.figures(stays=True)
                storm_ended = time.time()
                after = server.figures()
                time.sleep(AFTER)
                leaving = time.time()
                newcomers.go()
                time.sleep(AFTER)
                left = time.time()
                residents.stop()
                stayed = residents.figures()
                samples = seen.stop()["samples"]
        finally:
            newcomers.end()
            residents.end()
        end = server.figures()
    return {
        "all_answered_seconds": figures["connect_seconds"],
        "failed": figures["failed"] + figures["edges"] - figures["answered"],
        "edges": edges,
        **latencies(samples, storm_began, storm_ended, "live_"),
        **latencies(samples, began, storm_began, "before_"),
        **latencies(samples, leaving, left, "leaving_"),
        "live_edges": live,
        "live_edges_lost": live - stayed["open"],
        "lost_messages": stayed["messages"] + greet * edges - end["metrics"]["edgewebsocket0/Messages"],
        "generator_most_behind_ms": stayed["most_behind_ms"],
        "server_cpu_seconds": round(after["cpu_seconds"] - before["cpu_seconds"], 3),
        "rss_bytes": after["rss_bytes"],
    }
