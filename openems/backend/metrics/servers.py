"""WebSocket servers: connections, bytes, messages, what waits (metrics.md 17)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import HistogramMetricFamily, Metric

from openems.backend.metrics.families import PREFIX, Labels, counter, gauge
from openems.websocket.traffic import Traffic, together

#: Powers of two; the sizes are counted by them.
_SIZE_EXPONENTS = (8, 10, 12, 14, 16, 18, 20, 22, 24)
_IN_OUT = (("received", "received_sizes"), ("sent", "sent_sizes"))


class ServerPool:
    """The five numbers of a pool of workers for a bundle that has ``id`` and ``websocket``, where it tells none itself:
    give it to Components before the bundle."""

    def __init__(self, bundle: Any) -> None:
        self._bundle = bundle

    def debug_metrics(self) -> Mapping[str, int | float]:
        numbers: dict[str, int | float] = self._bundle.websocket.pool(self._bundle.id)
        return numbers


class Servers:
    """``servers``: interface -> WebSocketServer. ``ui``: UiWebsocket or None. Several servers of one interface count as
    one: :meth:`add`."""

    def __init__(self, servers: Mapping[str, Any], ui: Any = None) -> None:
        self._servers = {name: [server] for name, server in servers.items()}
        self._ui = ui
        self._b2b: list[Any] = []
        self._rest: Any = None

    def add(self, interface: str, server: Any) -> None:
        """One more WebSocketServer, of an interface that is there already or of another."""
        self._servers.setdefault(interface, []).append(server)

    def add_b2b(self, websockets: Sequence[Any], rest: Any = None) -> None:
        """``websockets``: Backend2BackendWebsocket, ``rest``: Backend2BackendRest or None."""
        for bundle in websockets:
            self._b2b.append(bundle)
            self.add("b2b_ws", bundle.websocket)
        self._rest = rest

    def collect(self) -> Iterator[Metric]:
        traffic = {name: together(s.traffic for s in servers) for name, servers in self._servers.items()}
        one = ("interface",)

        def each(attribute: str) -> dict[tuple[str], int]:
            return {(name,): getattr(of, attribute) for name, of in traffic.items()}

        def parts(attribute: str) -> dict[tuple[str, str], int]:
            return {(name, str(k)): n for name, of in traffic.items() for k, n in getattr(of, attribute).items()}

        prefix = f"{PREFIX}websocket_"
        yield counter(f"{prefix}connections_opened", "Connections whose handshake succeeded.", each("opened"), one)
        yield counter(f"{prefix}connections_closed", "Connections that ended.", parts("closed"), (*one, "reason"))
        codes = {(n, "other" if code == "0" else code): v for (n, code), v in parts("close_codes").items()}
        yield counter(
            f"{prefix}close_codes", "Ends of connections, by the code of the Close frame.", codes, (*one, "code")
        )
        yield counter(
            f"{prefix}handshake_failures",
            "Connections without a handshake.",
            parts("handshake_failures"),
            (*one, "reason"),
        )
        yield counter(f"{prefix}received_bytes", "Bytes received.", each("received_bytes"), one)
        yield counter(f"{prefix}sent_bytes", "Bytes of messages sent.", each("sent_bytes"), one)
        yield counter(f"{prefix}received_messages", "Messages received.", each("received_messages"), one)
        yield counter(f"{prefix}sent_messages", "Messages sent.", each("sent_messages"), one)
        yield self._sizes(traffic)
        loads = {name: _load(servers) for name, servers in self._servers.items()}
        for metric, about, values in (
            (
                "websocket_send_buffer_bytes",
                "Bytes that wait for readers that are too slow.",
                {(name,): sum(waiting) for name, (_, _, waiting) in loads.items()},
            ),
            (
                "websocket_send_buffer_max_bytes",
                "The most that waits for one reader.",
                {(name,): max(waiting, default=0) for name, (_, _, waiting) in loads.items()},
            ),
            (
                "websocket_producers_paused",
                "Connections whose reader is too slow.",
                {(name,): len(waiting) for name, (_, _, waiting) in loads.items()},
            ),
            (
                "jsonrpc_requests_in_progress",
                "Requests of peers under way.",
                {(name,): running for name, (running, _, _) in loads.items()},
            ),
            (
                "jsonrpc_pending_replies",
                "Requests sent to peers that are not answered yet.",
                {(name,): pending for name, (_, pending, _) in loads.items()},
            ),
        ):
            yield gauge(PREFIX + metric, about, values, one)
        if self._ui is not None or self._b2b or self._rest is not None:
            yield from self._of_users()

    @staticmethod
    def _sizes(traffic: Mapping[str, Traffic]) -> Metric:
        family = HistogramMetricFamily(
            f"{PREFIX}websocket_message_size_bytes", "Size of messages.", labels=("interface", "direction")
        )
        for name, of in traffic.items():
            for direction, attribute in _IN_OUT:
                sizes = getattr(of, attribute)
                buckets: list[tuple[str, float]] = [
                    (f"{2.0**exponent:.1f}", sum(sizes[: exponent + 1])) for exponent in _SIZE_EXPONENTS
                ]
                buckets.append(("+Inf", sum(sizes)))
                family.add_metric((name, direction), buckets, getattr(of, f"{direction}_bytes"))
        return family

    def _of_users(self) -> Iterator[Metric]:
        active: dict[Labels, float] = {}
        subscriptions: dict[Labels, float] = {}
        limited: dict[Labels, float] = {}
        if self._ui is not None:
            sessions = [session for session in self._ui.sessions.values() if session.user is not None]
            active[("ui",)] = len(sessions)
            subscriptions[("edges",)] = sum(len(session.watcher.edges) for session in sessions)
            subscriptions[("channels",)] = sum(len(session.watcher.channels) for session in sessions)
            subscriptions[("systemlog",)] = sum(len(session.system_logs) for session in sessions)
            limited[("ui",)] = self._ui.limited
        if self._b2b:
            active[("b2b_ws",)] = sum(s.user is not None for b2b in self._b2b for s in b2b.sessions.values())
            subscriptions[("b2b",)] = sum(b2b.subscriptions.edges for b2b in self._b2b)
            limited[("b2b_ws",)] = sum(b2b.limited for b2b in self._b2b)
        if self._rest is not None:
            limited[("b2b_rest",)] = self._rest.limited
        yield gauge(f"{PREFIX}sessions_active", "Connections with a user.", active, ("interface",))
        yield gauge(
            f"{PREFIX}subscriptions_active",
            "Edges that are listed, whose channels, whose system log are subscribed, by all connections together.",
            subscriptions,
            ("kind",),
        )
        yield counter(
            f"{PREFIX}jsonrpc_rate_limited", "Requests refused because of their rate.", limited, ("interface",)
        )


def _load(servers: Sequence[Any]) -> tuple[int, int, list[int]]:
    """Requests under way, requests without a reply yet, bytes that wait for each slow reader."""
    loads = [server.load() for server in servers]
    return (
        sum(running for running, _, _ in loads),
        sum(pending for _, pending, _ in loads),
        [each for _, _, waiting in loads for each in waiting],
    )
