from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b import methods as b2b
from openems.backend.ui.labels import label
from openems.common import jsonrpc
from openems.common.jsonrpc import Request
from openems.common.methods import names
from tests.backend.ui.world import ID, World


class LabelTest(SynchronousTestCase):
    """ui.md 20 T2, with a bounded set of names"""

    def label(self, method: str, params: Any) -> str:
        return label(Request(method, jsonrpc.raw(params), ID))

    def test_labels(self) -> None:
        def nested(*methods: str) -> dict[str, Any]:
            params: dict[str, Any] = {}
            for method in reversed(methods):
                params = {"payload": {"method": method, "params": params}}
            return params

        self.assertEqual(self.label("getEdges", {}), "getEdges")
        self.assertEqual(self.label("fooBar", {}), "other")
        self.assertEqual(self.label("edgeRpc", nested("getEdgeConfig")), "edgeRpc/getEdgeConfig")
        self.assertEqual(
            self.label("edgeRpc", nested("componentJsonApi", "getApps")), "edgeRpc/componentJsonApi/getApps"
        )
        self.assertEqual(self.label("edgeRpc", nested("x" * 10_000)), "edgeRpc/other")
        self.assertEqual(self.label("edgeRpc", nested("componentJsonApi", "x")), "edgeRpc/componentJsonApi/other")
        self.assertEqual(self.label("edgeRpc", nested("edgeRpc", "edgeRpc")), "edgeRpc/other")
        self.assertEqual(
            self.label("authenticateWithOAuth", nested("getTokenByCode")), "authenticateWithOAuth/getTokenByCode"
        )
        for params in ({}, {"payload": 1}, {"payload": {"method": 1}}):
            self.assertEqual(self.label("edgeRpc", params), "edgeRpc")

    def test_observed(self) -> None:
        seen: list[tuple[str, float]] = []
        world = World(observe=lambda method, seconds: seen.append((method, seconds)))
        ui = world.login()
        ui.ask("fooBar")
        slow: Deferred[Any] = Deferred()
        world.handler.answers["getEdgesStatus"] = slow
        ui.send("getEdgesStatus", {})
        world.clock.advance(1.5)
        slow.callback({})
        self.assertEqual(seen, [("authenticateWithPassword", 0.0), ("other", 0.0), ("getEdgesStatus", 1.5)])

    def test_names_are_written_once(self) -> None:
        """What the OpenAPI document lists is what the core answers."""
        self.assertEqual(b2b.NAMES, names.CORE)
