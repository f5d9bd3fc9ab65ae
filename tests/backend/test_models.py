"""Edge setters and their events: edge.md 9.2; shapes: wire.md 9.6."""

from __future__ import annotations

import datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend import events
from openems.backend.events import EventBus, LastmessageSet, OnlineSet, ProducttypeSet, SumStateSet, VersionSet
from openems.backend.models import Edge
from openems.common.instant import instant
from openems.common.role import Level, Role
from openems.common.semver import SemanticVersion


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)


class Setters(SynchronousTestCase):
    def setUp(self) -> None:
        self.bus = EventBus()
        self.seen: list[Any] = []
        for event in (OnlineSet, LastmessageSet, SumStateSet, VersionSet, ProducttypeSet):
            self.bus.subscribe(event, self.seen.append)

    def test_lastmessage(self) -> None:
        edge = Edge("edge0", self.bus, lastmessage=at("2023-01-02T03:04:05Z"))
        self.assertEqual(edge.lastmessage, at("2023-01-02T03:04:00Z"))
        edge.set_lastmessage(at("2023-01-02T03:04:59Z"))
        self.assertEqual(self.seen, [])
        edge.set_lastmessage(at("2023-01-02T03:05:08Z"))
        edge.set_lastmessage(at("2023-01-02T03:05:59Z"))
        self.assertEqual(self.seen, [LastmessageSet("edge0", at("2023-01-02T03:05:00Z"))])
        edge.set_lastmessage(at("2023-01-02T03:01:00Z"))
        self.assertEqual(edge.lastmessage, at("2023-01-02T03:05:00Z"))

    def test_version_and_producttype(self) -> None:
        edge = Edge("edge0", self.bus)
        edge.set_version(None)
        edge.set_producttype(None)
        self.assertEqual((str(edge.version), edge.producttype, self.seen), ("0.0.0", "", []))
        edge.set_version(SemanticVersion(1, 2, 3))
        edge.set_producttype("HW01A")
        self.assertEqual(
            self.seen,
            [VersionSet("edge0", SemanticVersion(), SemanticVersion(1, 2, 3)), ProducttypeSet("edge0", "HW01A")],
        )

    def test_online_and_sum_state(self) -> None:
        edge = Edge("edge0", self.bus)
        for online in (True, True, False):
            edge.set_online(online)
        edge.set_sum_state(Level.FAULT)
        edge.set_sum_state(Level.FAULT)
        self.assertEqual(
            self.seen,
            [OnlineSet("edge0", True), OnlineSet("edge0", False), SumStateSet("edge0", None, Level.FAULT)],
        )

    def test_a_failing_subscriber_stops_nobody(self) -> None:
        """T029"""
        bus = EventBus()
        seen: list[Any] = []
        bus.subscribe(OnlineSet, lambda event: 1 / 0)
        end = bus.subscribe(OnlineSet, seen.append)
        bus.publish(events.OnlineSet("edge0", True))
        self.assertEqual(len(seen), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        end()
        bus.publish(events.OnlineSet("edge0", False))
        self.assertEqual(len(seen), 1)
        self.flushLoggedErrors(ZeroDivisionError)


class Shapes(SynchronousTestCase):
    def test_metadata(self) -> None:
        edge = Edge(
            "edge0",
            EventBus(),
            comment="c",
            producttype="p",
            version=SemanticVersion(2026, 4, 0),
            lastmessage=at("2026-03-31T22:00:00Z"),
            sum_state=Level.OK,
        )
        edge.online = True
        self.assertEqual(
            list(edge.metadata_json(Role.OWNER).items()),
            [
                ("id", "edge0"),
                ("comment", "c"),
                ("producttype", "p"),
                ("version", "2026.4.0"),
                ("role", "owner"),
                ("isOnline", True),
                ("lastmessage", "2026-03-31T22:00:00Z"),
                ("sumState", "OK"),
            ],
        )
        self.assertEqual(
            list(edge.json()), ["id", "comment", "version", "producttype", "online", "sumState", "lastmessage"]
        )

    def test_instants(self) -> None:
        """wire.md 9.4"""
        start = at("2026-04-01T00:00:00+02:00")
        self.assertEqual(instant(start), "2026-03-31T22:00:00Z")
        self.assertEqual(instant(start + 120), "2026-03-31T22:00:00.120Z")
