from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b import session, websocket
from openems.backend.events import EdgesChanged
from openems.backend.rounds import ROUND
from openems.common.errors import OpenemsError
from openems.common.role import Role
from openems.testing.services import now_of
from tests.backend.b2b.sockets import WebsocketWorld, ask, subscribe, values

ID = "3c6c1b64-0a51-4f7c-9a44-6f4f2d0c1a11"
INNER = "9b1f0a77-3f7e-4a83-8a5d-3b1d2c4e5f05"


SOC = ["_sum/EssSoc"]


class SubscribeTest(SynchronousTestCase):
    """b2b.md 3.4, 8"""

    def setUp(self) -> None:
        self.world = WebsocketWorld()
        self.connection = self.world.connect()

    def subscribe(self, count: Any, edges: list[str], channels: list[str] = SOC) -> Any:
        return subscribe(self.connection, count, edges, channels)

    def test_vectors(self) -> None:
        both = {"edge4": {"_sum/EssSoc": 61}, "edge7": {"_sum/EssSoc": None}}
        self.assertEqual(self.subscribe(0, ["edge7", "edge4"]), {})
        self.world.clock.advance(0)
        self.world.seconds(4.1)
        self.assertEqual(values(self.connection), [both] * 3)
        self.assertEqual(self.subscribe(0, ["edge4"]), {})
        self.world.seconds(2)
        self.assertEqual(values(self.connection), [both])
        self.assertEqual(self.subscribe(1, ["edge4"]), {})
        self.world.seconds(2.1)
        self.assertEqual(values(self.connection), [{"edge4": {"_sum/EssSoc": 61}}] * 2)
        self.assertEqual(self.subscribe(1, [], []), {})
        self.world.seconds(2)
        self.assertEqual(len(values(self.connection)), 1)
        self.assertEqual(self.subscribe("2", [], []), {})
        self.world.seconds(5)
        self.assertEqual(values(self.connection), [])

    def test_reply_comes_first(self) -> None:
        """b2b.md 7, 19"""
        self.assertEqual(self.subscribe(0, ["edge4"]), {})
        self.assertEqual(self.connection.sent, [])
        self.world.clock.advance(0)
        self.assertEqual(len(values(self.connection)), 1)

    def test_the_same_again(self) -> None:
        """b2b.md 3.5: the first run of a subscription is at once"""
        other = self.world.connect()
        subscribe(other, 1, ["edge4"], SOC)
        for count in (1, 2, 3):
            self.subscribe(count, ["edge4"])
            self.world.clock.advance(0)
            self.assertEqual(len(values(self.connection)), 1, count)
        self.world.seconds(2.1)
        self.assertEqual((len(values(self.connection)), len(values(other))), (1, 2))

    def test_errors(self) -> None:
        for params, code, data in (
            ({"ids": [], "channels": []}, 5001, ["count", '{"ids":[],"channels":[]}']),
            ({"count": 1, "edgeIds": [], "channels": []}, 5007, ["ids", '{"count":1,"edgeIds":[],"channels":[]}']),
            ({"count": 1, "ids": [5], "channels": []}, 5009, ["5"]),
            ({"count": 1, "ids": ["edge4"], "channels": ["bad"]}, 1000, ["bad"]),
            ({"count": 1, "ids": ["edge9"], "channels": SOC}, 1005, ["subscribeEdgesChannels", "alice"]),
        ):
            self.assertEqual(ask(self.connection, "subscribeEdgesChannels", params)[0::2], (code, data))
        self.world.seconds(3)
        self.assertEqual(values(self.connection), [])

    def test_an_error_changes_nothing(self) -> None:
        self.subscribe(0, ["edge4"])
        self.assertEqual(self.subscribe(7, ["edge4", "edge9"])[0], 1005)
        self.world.seconds(0.1)
        self.assertEqual(len(values(self.connection)), 1)
        self.assertEqual(self.subscribe(1, ["edge7"]), {})
        self.world.seconds(0.1)
        self.assertEqual(values(self.connection), [{"edge7": {"_sum/EssSoc": None}}])

    def test_too_many_values(self) -> None:
        world = WebsocketWorld(max_values=3)
        connection = world.connect()
        message = subscribe(connection, 1, ["edge4", "edge7"], ["a/b", "a/c"])[1]
        self.assertIn("2 edges with 2 channels, at most 3 values", message)
        self.assertEqual(subscribe(connection, 1, ["edge4", "edge4"], ["a/b", "a/c", "a/b"]), {})

    def test_too_many_edges(self) -> None:
        self.patch(session, "MAX_EDGES", 1)
        self.assertIn("and 1 edges", self.subscribe(1, ["edge4", "edge7"])[1])
        self.assertEqual(self.subscribe(1, ["edge4"]), {})

    def test_too_many_values_of_a_user(self) -> None:
        self.patch(websocket, "MAX_VALUES_OF_USER", 3)
        self.assertEqual(self.subscribe(1, ["edge4", "edge7"]), {})
        other = self.world.connect()
        # The same is nothing more; something else is.
        self.assertEqual(subscribe(other, 1, ["edge4", "edge7"], SOC), {})
        self.assertIn("limit for all connections", subscribe(other, 2, ["edge4", "edge7"], ["a/b"])[1])
        self.assertEqual(subscribe(other, 2, ["edge4"], ["a/b"]), {})

    def test_equal_subscriptions(self) -> None:
        connections = [self.world.connect() for _ in range(5)]
        for connection in connections:
            subscribe(connection, 1, ["edge7", "edge4"], ["b/b", "a/a"])
        self.world.seconds(2.1)
        self.assertEqual([len(values(connection)) for connection in connections], [2] * 5)
        metrics = self.world.server.debug_metrics()
        self.assertEqual((metrics["b2bwebsocket0/Encoded"], metrics["b2bwebsocket0/Pushed"]), (2, 10))
        self.assertEqual((metrics["b2bwebsocket0/Groups"], metrics["b2bwebsocket0/Subscriptions"]), (1, 5))

    def test_lost(self) -> None:
        self.subscribe(1, ["edge4"])
        self.connection.lose()
        self.world.seconds(3)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.assertEqual(self.world.server.debug_metrics()["b2bwebsocket0/Subscriptions"], 0)


class RoleTest(SynchronousTestCase):
    """b2b.md 7, 16"""

    def setUp(self) -> None:
        self.world = WebsocketWorld(MemoryReactorClock())
        now_of(self.world.server.start(0))
        self.connection = self.world.connect()
        subscribe(self.connection, 1, ["edge4", "edge7"], SOC)
        self.world.clock.advance(0)
        self.connection.take()

    def test_role_withdrawn_and_given_back(self) -> None:
        del self.world.metadata.roles["edge4"]
        self.world.seconds(ROUND + 2)
        self.assertEqual(values(self.connection)[-1], {"edge7": {"_sum/EssSoc": None}})
        self.world.metadata.roles["edge4"] = Role.GUEST
        self.world.seconds(ROUND + 2)
        self.assertEqual(sorted(values(self.connection)[-1]), ["edge4", "edge7"])

    def test_with_a_change_of_edges_at_once(self) -> None:
        self.world.seconds(1.1)  # a round is over, the next one is far
        self.world.metadata.roles.clear()
        self.world.events.publish(EdgesChanged())
        self.world.seconds(1.1)
        self.connection.take()
        self.world.seconds(5)
        self.assertEqual(values(self.connection), [])

    def test_unchanged_roles_change_no_rhythm(self) -> None:
        for _ in range(5):
            self.world.events.publish(EdgesChanged())
            self.world.seconds(2)
        self.assertEqual(len(values(self.connection)), 5)

    def test_user_is_gone(self) -> None:
        self.world.metadata.users.clear()
        for _ in range(int(websocket.REVALIDATION) // 10 + 3):
            self.world.clock.advance(10)
        self.assertEqual((self.connection.close_code, self.connection.close_reason), (1000, "Authentication failed"))

    def test_s16_user_is_disabled_where_his_password_is(self) -> None:
        """auth.md S16: metadata still knows him."""
        valid = True

        async def still_valid() -> bool:
            return valid

        (one,) = self.world.server.sessions.values()
        one._still_valid = still_valid
        for answer in (True, False):
            valid = answer
            self.assertIsNone(self.connection.close_code)
            for _ in range(int(websocket.REVALIDATION) // 10 + 3):
                self.world.clock.advance(10)
        self.assertEqual((self.connection.close_code, self.connection.close_reason), (1000, "Authentication failed"))

    def test_metadata_cannot_tell(self) -> None:
        async def fails(user_id: str) -> Any:
            raise OpenemsError(1006)

        self.world.metadata.get_user_by_external_id = fails  # type: ignore
        for _ in range(int(websocket.REVALIDATION) // 10 + 3):
            self.world.clock.advance(10)
        self.assertIsNone(self.connection.close_code)

    def test_users_changed(self) -> None:
        self.world.server.end_sessions({"bob"})
        self.assertIsNone(self.connection.close_code)
        self.world.server.end_sessions({"alice"})
        self.assertEqual(self.connection.close_code, 1000)

    def test_debug(self) -> None:
        self.assertIn("Connections: 1, Active: 0", self.world.server.debug_log() or "")
        server = WebsocketWorld(number=1).server
        self.assertIn("NOT STARTED", server.debug_log() or "")
        self.assertIn("b2bwebsocket1/Connections", server.debug_metrics())
