"""A fleet at the real cadence with edges that lose their connection and watchers that come and go: nothing may grow."""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench.generator import Generator
from bench.inventory import grown
from bench.process import Server
from bench.processors import LOAD_CPUS, SERVER_CPU
from bench.watching import Watching

#: Looks at the server in all; each costs it a collection of garbage.
SAMPLES = 60
#: A third of the samples.
THIRD = SAMPLES // 3


def measure(
    *, edges: int, watchers: int, values: int, churn: int, seconds: float, profile: str | None
) -> dict[str, Any]:
    """``churn`` edges a second end their connection, orderly or not, and come back; a watcher leaves each second and
    another one comes. With history. After garbage was collected: medians of the first, second and last third."""
    samples: list[dict[str, Any]] = []
    with Server("backend", cpus=SERVER_CPU, edges=edges, history="sqlite", profile=profile) as server:
        generator = Generator(
            "hold",
            LOAD_CPUS,
            port=server.ports["edge"],
            edges=edges,
            values=values,
            reconnect=1,
            churn=min(churn, edges),
            seconds=seconds + 600,
        )
        try:
            generator.ready()
            names = [f"edge{n % edges}" for n in range(watchers)]
            with Watching(server.ports["ui.websocket"], watchers, names, "--leave=1") as viewer:
                generator.go()
                began = time.monotonic()
                for number in range(1, SAMPLES + 1):
                    time.sleep(max(0.0, began + seconds * number / SAMPLES - time.monotonic()))
                    # Types take longer: with the last sample of the first third and of all.
                    question = "inventory" if number in (THIRD, SAMPLES) else "tables"
                    samples.append(server.figures(question))
                generator.stop()
                sent = generator.figures()
                seen = viewer.stop()
        finally:
            generator.end()
        # Nobody is there any more; the caches of edges outlive a reconnect of some seconds.
        time.sleep(7)
        empty = server.figures("tables")
    return {
        **thirds(samples),
        "grown_types": grown(samples[THIRD - 1]["types"], samples[-1]["types"], least=200),
        "descriptors_afterwards": empty["descriptors"],
        "timers_afterwards": empty["timers"],
        "fleet_afterwards": empty["tables"].get("EdgeManager._fleet", 0),
        "edges": edges,
        "watchers": watchers,
        "messages": sent["messages"],
        "snapshots": sent["snapshots"],
        "reconnects_of_edges": sent["churned"],
        "watchers_that_left": seen["left"],
        "pushes": seen["pushes"],
        "seconds": seconds,
    }


def thirds(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """``ratio``: memory without SQLite's pages, which fill up to a bound, of the last third to the second: the first
    warms up. The medians of each figure by thirds; the tables that grew from the first third to the last. Pure."""
    size = len(samples) // 3
    parts = (samples[:size], samples[size : 2 * size], samples[-size:])

    def medians(name: str) -> list[int]:
        return [round(statistics.median(sample[name] for sample in part)) for part in parts]

    def tables(part: list[dict[str, Any]]) -> dict[str, int]:
        names = {name for sample in part for name in sample["tables"]}
        return {n: round(statistics.median(sample["tables"].get(n, 0) for sample in part)) for n in names}

    rss, pages = medians("rss_bytes"), medians("sqlite_bytes")
    entries = [sum(tables(part).values()) for part in parts]
    return {
        "ratio": round((rss[2] - pages[2]) / (rss[1] - pages[1]), 3),
        "rss_bytes": rss,
        "sqlite_bytes": pages,
        "descriptors": medians("descriptors"),
        "timers": medians("timers"),
        "objects": medians("objects"),
        "table_entries": entries,
        "grown_tables": grown(tables(parts[0]), tables(parts[-1])),
    }
