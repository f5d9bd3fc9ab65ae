"""What the benchmarks make of their samples."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench import inventory
from bench.costs import table
from bench.soak import thirds
from bench.watching import latencies


class TestLatencies(SynchronousTestCase):
    def test_those_of_values_of_the_time_whenever_they_came(self) -> None:
        samples = [(1_000_000, 10_000), (2_500_000, 1_000), (9_000_000, 6_500_000), (9_000_000, 1_000)]
        self.assertEqual(
            latencies(samples, 2.0, 3.0, "live_"),
            {"live_pushes": 2, "live_p50_ms": 6500.0, "live_p99_ms": 6500.0, "live_max_ms": 6500.0},
        )
        self.assertEqual(latencies([], 0, 1)["p99_ms"], None)


class TestThirds(SynchronousTestCase):
    def sample(self, number: int) -> dict[str, Any]:
        tables = {"A.flat": 100, "A.leak": number * 20, "A.small": number % 2}
        return {
            "rss_bytes": 1000 + number,
            "descriptors": 7,
            "timers": 3,
            "objects": 50,
            "sqlite_bytes": number,
            "tables": tables,
        }

    def test_what_grew_is_named(self) -> None:
        found = thirds([self.sample(n) for n in range(9)])
        self.assertEqual(found["rss_bytes"], [1001, 1004, 1007])
        self.assertEqual(found["ratio"], 1.0)
        self.assertEqual(found["descriptors"], [7, 7, 7])
        self.assertEqual(found["grown_tables"], {"A.leak": [20, 140]})

    def test_the_first_third_warms_up(self) -> None:
        samples = [self.sample(0) | {"rss_bytes": rss} for rss in (300, 400, 500, 1000, 1000, 1000, 1100, 1100, 1100)]
        self.assertEqual(thirds(samples)["ratio"], 1.1)


class TestInventory(SynchronousTestCase):
    def test_tables_of_our_objects(self) -> None:
        from openems.backend.ui.subscriptions import Subscriptions

        before = inventory.tables().get("Subscriptions._behind", 0)
        subscriptions: Any = Subscriptions(None)  # type: ignore[arg-type]
        subscriptions._behind = dict.fromkeys(range(12))
        self.assertEqual(inventory.tables()["Subscriptions._behind"] - before, 12)
        self.assertGreater(inventory.types()["str"][0], 100)

    def test_by_type(self) -> None:
        before = {"types": {"dict": 2}, "type_bytes": {"dict": 100}}
        after = {"types": {"dict": 12, "set": 10}, "type_bytes": {"dict": 1100, "set": 2000}}
        lines = inventory.by_type(before, after, 10).splitlines()
        self.assertEqual(
            [line.split() for line in lines[1:]], [["200", "1.0", "set"], ["100", "1.0", "dict"], ["300", "all"]]
        )


class TestCosts(SynchronousTestCase):
    def test_waiting_is_no_cost(self) -> None:
        stats: dict[Any, Any] = {
            ("~", 0, "<method 'poll' of 'select.epoll' objects>"): (9, 9, 90.0, 90.0, {}),
            ("/x/site-packages/twisted/internet/tcp.py", 3, "write"): (4, 4, 1.0, 1.0, {}),
            ("/y/openems/backend/edge/cache.py", 36, "update"): (2, 2, 3.0, 3.0, {}),
        }
        lines = table(stats, 5).splitlines()
        self.assertEqual(lines[1].split(), ["75.0%", "2", "1500000.0", "openems/backend/edge/cache.py:36", "update"])
        self.assertEqual(lines[-1], "4.00 s in all")


class TestGenerator(SynchronousTestCase):
    """Snapshots: one at the start, the next after what was left of the 300 seconds since the edge's own start."""

    if shutil.which("cc") is None:
        skip = "no C compiler"

    def test_when_an_edge_sends_its_next_snapshot(self) -> None:
        source = Path(__file__).parent.parent.parent / "bench" / "generator.c"
        program = Path(self.mktemp()).absolute()
        test = program.with_suffix(".c")
        test.write_text(
            f'#define main generator_main\n#include "{source}"\n#undef main\n'
            "int main(void) { for (int n = 0; n < 900; n++) { struct edge e = {.number = n};"
            ' int first = next_snapshot(&e, 0); e.sent = 5; printf("%d %d\\n", first, next_snapshot(&e, 40)); } }\n'
        )
        subprocess.run(["cc", "-std=c11", "-o", str(program), str(test)], check=True)
        output = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in output.splitlines()]
        firsts = [first for first, _ in rows]
        self.assertEqual({firsts.count(second) for second in range(1, 301)}, {3})
        self.assertEqual({later for _, later in rows}, {340})
