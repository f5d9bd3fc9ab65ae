"""T101: what a request had in hand is freed at once, not by the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from tests.backend.b2b.http import Connection, RestWorld, request
from tests.backend.b2b.sockets import WebsocketWorld, ask, subscribe
from tests.backend.b2b.test_rest import STATUS

REPEAT = 50


def garbage(function: Callable[[], Any]) -> float:
    """Objects a call that only the collector frees."""
    function()
    gc.collect()
    gc.disable()
    try:
        for _ in range(REPEAT):
            function()
        return gc.collect() / REPEAT
    finally:
        gc.enable()


class _Bare:
    def __init__(self) -> None:
        app: Any = Klein()

        @app.route("/jsonrpc", methods=["POST"])
        def jsonrpc(request: Any) -> bytes:
            return b"{}"

        self.site: Any = Site(app.resource(), reactor=MemoryReactorClock())
        self.site.log = lambda request: None


class CyclesTest(SynchronousTestCase):
    def test_websocket(self) -> None:
        world = WebsocketWorld()
        connection = world.connect()

        def session() -> None:
            one = world.connect()
            subscribe(one, 1, ["edge4"], ["a/b"])
            world.clock.advance(0)
            one.take()
            one.lose()

        # The test's own connection and its wire hold each other.
        self.assertLessEqual(garbage(session), 4)
        for method, params in (("getEdgesStatus", {"edgeIds": []}), ("nope", {}), ("subscribeEdgesChannels", {})):
            self.assertLess(garbage(lambda m=method, p=params: ask(connection, m, p)), 1, method)

    def test_rest_leaves_no_more_than_klein(self) -> None:
        bare = Connection(_Bare())  # type: ignore[arg-type]

        def ask_bare() -> None:
            bare.send(request(STATUS))
            bare.transport.clear()

        most = garbage(ask_bare) + 3
        world = RestWorld()
        denied = {"method": "getEdgesStatus", "params": {"edgeIds": ["edge9"]}}
        for body, options in (
            (STATUS, {}),
            (denied, {}),
            ("{", {}),
            (STATUS, {"auth": None}),
            (STATUS, {"path": "/x"}),
        ):
            self.assertLessEqual(garbage(lambda b=body, o=options: world.ask(b, **o)), most, (body, options))
