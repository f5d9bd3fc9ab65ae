"""Both formats, in pieces (metrics.md 4, 23.2)."""

from __future__ import annotations

from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics import exposition
from openems.backend.metrics.exposition import OPENMETRICS, TEXT, content_type, pieces, wanted
from openems.backend.metrics.families import counter, gauge, histogram
from openems.common.histogram import Histogram
from tests.backend.metrics.world import MetricsWorld


class _All:
    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> list[Metric]:
        return self.families


class TestPieces(SynchronousTestCase):
    def families(self) -> list[Metric]:
        seconds = Histogram()
        seconds.observe(0.012)
        version = InfoMetricFamily("openems_version", "OpenEMS Version")
        version.add_metric((), {"version": "1.2.3"})
        return [
            version,
            histogram("h", "about\nit", [((f"m{n}",), seconds) for n in range(200)], ("method",)),
            gauge("g", 'a "b\\c', {('a"b\\c\nd',): 1.5}, ("method",)),
            counter("c", "c", 3),
        ]

    def test_pieces_are_the_whole(self) -> None:
        for form, encode in ((TEXT, generate_latest), (OPENMETRICS, generate_openmetrics)):
            parts = list(pieces(self.families(), form))
            self.assertGreater(len(parts), 6)
            self.assertEqual(b"".join(parts), encode(_All(self.families())))

    def test_families_without_samples_are_not_there(self) -> None:
        self.assertEqual(b"".join(pieces([gauge("g", "g", {})], TEXT)), b"")
        self.assertEqual(b"".join(pieces([gauge("g", "g", {})], OPENMETRICS)), b"# EOF\n")

    def test_23_2_values(self) -> None:
        text = b"".join(pieces(self.families(), TEXT)).decode()
        for line in (
            "# TYPE openems_version_info gauge",
            'openems_version_info{version="1.2.3"} 1.0',
            'h_bucket{le="0.01",method="m7"} 0.0',
            'h_bucket{le="0.025",method="m7"} 1.0',
            'h_bucket{le="+Inf",method="m7"} 1.0',
            'h_count{method="m7"} 1.0',
            'h_sum{method="m7"} 0.012',
            'g{method="a\\"b\\\\c\\nd"} 1.5',
            "c_total 3.0",
        ):
            self.assertIn(line + "\n", text)

    def test_strict_parsers_read_all_of_it(self) -> None:
        world = MetricsWorld()
        world.direct("key0")
        plain = b"".join(pieces(world.metrics.collect(), TEXT)).decode()
        openmetrics = b"".join(pieces(world.metrics.collect(), OPENMETRICS)).decode()
        names = [family.name for family in text_string_to_metric_families(plain)]
        self.assertEqual(len(names), len(set(names)), "no family twice")
        self.assertEqual(
            {name.removesuffix("_info") for name in names},
            {family.name.removesuffix("_info") for family in parse_openmetrics(openmetrics)},
        )
        self.assertNotIn("_created", plain + openmetrics)


class TestChoice(SynchronousTestCase):
    def test_23_1_accept(self) -> None:
        for accept, expected in (
            ("", TEXT),
            ("*/*", TEXT),
            ("application/json", TEXT),
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2", OPENMETRICS),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
                "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OPENMETRICS,
            ),
            ("application/openmetrics-text", OPENMETRICS),
            ("text/plain;q=1, application/openmetrics-text;q=0", TEXT),
            ("application/openmetrics-text;q=0.1, text/plain", TEXT),
            ("application/openmetrics-text;q=nan?", TEXT),
            (";;;,,,=", TEXT),
        ):
            self.assertEqual(content_type(accept), expected, accept)

    def test_names(self) -> None:
        self.assertTrue(wanted("websocket_requests", ()))
        self.assertTrue(wanted("websocket_requests", {"websocket_requests_count"}))
        self.assertTrue(wanted("openems_version", {"openems_version_info"}))
        self.assertFalse(wanted("websocket_requests", {"nope"}))

    def test_a_piece_is_small(self) -> None:
        self.assertLessEqual(exposition.PIECE, 500)
