"""``twistd -n openems-edge-application``: the proxy between edges and the backend, as a program of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from prometheus_client.exposition import choose_encoder
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.web.http import Request
from twisted.web.resource import Resource

from openems.application import VERSION, config, felix
from openems.application.config import BadConfiguration
from openems.application.config.section import Port, Section, Text
from openems.application.descriptors import raise_limit
from openems.application.health import Component, HealthPage
from openems.application.selftest import self_test
from openems.application.service import SignalledService, settle_memory, steady
from openems.application.systemd import Systemd
from openems.backend.edgeapplication.application import BUFFER_BYTES, EdgeApplication
from openems.backend.edgeapplication.counters import Status, registry
from openems.backend.metrics.pages import PageSite
from openems.websocket.proxies import LOOPBACK, TrustedProxies


class BackendEdgeApp(Section, frozen=True):
    """The edge application (component `Backend.Edge.App`)."""

    id: Annotated[
        Text,
        Meta(
            pattern=r"^[A-Za-z0-9_.-]+$",
            max_length=100,
            description="How the backend names it; unique in front of one.",
        ),
    ] = "edges0"
    uri: Annotated[Text, Meta(pattern=r"^wss?://", description="Where the backend listens for edge applications.")] = (
        "ws://localhost:8083"
    )
    port: Annotated[Port, Meta(description="WebSocket port for edges.")] = 8081
    interface: Annotated[str, Meta(description="Address to bind to; empty: all addresses.")] = ""
    keep_edges: Annotated[
        bool,
        Meta(description="Edges stay connected while the backend is away; false: they are sent away (Close 1001)."),
    ] = True
    buffer_bytes: Annotated[
        int,
        Meta(
            ge=65536,
            le=1 << 34,
            description="Bytes of messages that wait for the backend; above that the oldest are dropped, and counted.",
        ),
    ] = BUFFER_BYTES
    max_message_size: Annotated[
        int,
        Meta(
            ge=65536,
            le=1 << 30,
            description="Bytes of the longest message the backend takes (its `maxMessageSize`); those of edges are "
            "shorter by what is wrapped round them.",
        ),
    ] = 16 * 1024 * 1024
    trusted_proxies: Annotated[
        list[str],
        Meta(
            description="Addresses or networks of reverse proxies: only from these a forwarding header tells who the "
            "peer is, for logs."
        ),
    ] = msgspec.field(default_factory=lambda: list(LOOPBACK))


class Health(Section, frozen=True):
    """Pages for monitoring: `/` and `/health` (200 when everything works, else 503, with the state of each part as
    JSON), `/metrics` for Prometheus. Always there, unless switched off."""

    enabled: Annotated[bool, Meta(description="Serve these pages.")] = True
    port: Annotated[Port, Meta(description="HTTP port.")] = 8078
    interface: Annotated[str, Meta(description="Address to bind to.")] = "127.0.0.1"


class Configuration(msgspec.Struct, kw_only=True, frozen=True):
    """All sections of an edge application's file."""

    backend_edge_app: BackendEdgeApp = BackendEdgeApp()
    health: Health = Health()


KNOWN = config.known_sections(Configuration)


def parse(text: str, source: str, **options: Any) -> Configuration:
    """Raises :class:`BadConfiguration` with every problem found."""
    configuration = Configuration(**config.sections(text, source, KNOWN, **options))
    uri = configuration.backend_edge_app.uri
    try:
        parts = urlsplit(uri)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise BadConfiguration(source, [f"{source}: [backend.edge.app] uri: {uri!r} names no host or a wrong port"])
    try:
        TrustedProxies(configuration.backend_edge_app.trusted_proxies)
    except ValueError as e:
        raise BadConfiguration(source, [f"{source}: [backend.edge.app] trustedProxies: {e}"]) from None
    if configuration.health.enabled and configuration.health.port == configuration.backend_edge_app.port:
        port = configuration.health.port
        raise BadConfiguration(source, [f"{source}: [health] port: {port} is the port of [backend.edge.app] already"])
    return configuration


def load(path: str) -> Configuration:
    """Raises :class:`BadConfiguration`; a file that cannot be read, too."""
    return parse(config.read_text(Path(path)), path, directory=Path(path).parent)


def from_felix(folder: str) -> tuple[Configuration, list[str]]:
    """The configuration folder of the Java program, and notes about what has no meaning here. Raises
    :class:`BadConfiguration`."""
    fields = {field.encode_name for field in msgspec.structs.fields(BackendEdgeApp)}
    found: dict[str, Any] = {}
    notes: list[str] = []
    for component in felix.read_folder(folder):
        if component.pid == "Metrics.Prometheus":
            notes.append(f"{component.path}: metrics are at /metrics of [health], port {Health().port}")
        if component.pid != "Backend.Edge.App":
            continue
        for key, value in component.properties.items():
            if key in fields:
                found[key] = value
            elif not key.startswith("service.") and key not in config.WITHOUT_EFFECT:
                notes.append(f"{component.path}: {key} is no known key, ignored")
    if isinstance(found.get("port"), str) and found["port"].isdigit():
        found["port"] = int(found["port"])
    if not found:
        notes.append(f"{folder}: nothing of Backend.Edge.App, the defaults hold")
    return parse(config.to_toml({"backend.edge.app": found}), folder), notes


def components(status: Status) -> dict[str, Component]:
    """What works and what does not."""
    manager = "connected" if status.connected else "NOT CONNECTED"
    if status.waiting_messages:
        manager += f", {status.waiting_messages} messages wait for it ({status.waiting_bytes} bytes)"
    if status.dropped_messages:
        manager += f", {status.dropped_messages} messages dropped"
    if status.listening:
        edges = f"port {status.port}, {status.edges} edges of {status.known_edges}"
    elif status.trouble:
        edges = status.trouble
    else:
        edges = "not open: " + ("the backend knows no edge" if status.informed else "no list of edges yet")
    return {
        "Backend.Edge.Client": Component(status.connected, manager),
        "Backend.Edge.Server": Component(status.listening, edges),
    }


class Pages(Resource):
    """``/`` and ``/health``: :class:`HealthPage`. ``/metrics``: the format the scraper asks for. Else 404."""

    isLeaf = True

    def __init__(self, status: Callable[[], Status]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._health = HealthPage(lambda: components(status()))
        self._metrics = registry(status, VERSION)

    def render(self, request: Request) -> bytes:
        path = request.path.partition(b"?")[0]
        if path in (b"/", b"/health"):
            return self._health.render(request)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        if path != b"/metrics":
            request.setResponseCode(404)
            return b"There are /health and /metrics.\n"
        if request.method not in (b"GET", b"HEAD"):
            request.setResponseCode(405)
            request.setHeader(b"allow", b"GET, HEAD")
            return b""
        encode, content_type = choose_encoder(request.getHeader("accept") or "")
        request.setHeader(b"content-type", content_type.encode())
        text: bytes = encode(self._metrics)
        return text


def site(status: Callable[[], Status]) -> PageSite:
    return PageSite(Pages(status), timeout=20)


class Options(UsageOptions):
    optParameters = [
        ["config", "c", None, "The configuration, a TOML file."],
        ["felix", "f", None, "A Felix configuration folder of OpenEMS, instead."],
    ]

    def configuration(self) -> tuple[Configuration, list[str]]:
        """And the notes to show at start. Raises :class:`BadConfiguration`."""
        if (self["config"] is None) == (self["felix"] is None):
            raise BadConfiguration("", ["either --config FILE or --felix DIR is needed"])
        if self["felix"] is not None:
            return from_felix(self["felix"])
        return load(self["config"]), []


class EdgeApplicationService(SignalledService):
    """``ports`` once it runs: ``health``. The port for edges opens when the backend told which edges there are."""

    _log = Logger()

    def __init__(self, configuration: Configuration, notes: list[str], reactor: Any) -> None:
        super().__init__(reactor)
        self._notes = notes
        self.ports: dict[str, int] = {}
        self._configuration = configuration
        self._systemd = Systemd(os.environ, reactor=reactor)
        self._health: Any = None
        section = configuration.backend_edge_app
        self.application = EdgeApplication(
            section.id,
            section.uri,
            reactor=reactor,
            port=section.port,
            interface=section.interface,
            keep_edges=section.keep_edges,
            buffer_bytes=section.buffer_bytes,
            max_message_size=section.max_message_size,
            proxies=TrustedProxies(section.trusted_proxies),
        )

    async def begin(self) -> None:
        self._log.info("OpenEMS Backend Edge Application version [{version}] started", version=VERSION)
        for note in self._notes:
            self._log.warn("{note}", note=note)
        self._log.info("{files} files may be open at once", files=raise_limit())
        await self_test(self.reactor)
        health = self._configuration.health
        if health.enabled:
            self._health = self.reactor.listenTCP(
                health.port, site(self.application.status), interface=health.interface
            )
            self.ports["health"] = self._health.getHost().port
        self.application.start()
        settle_memory()
        self._systemd.ready(f"edge application {self.application.id}")

    async def end(self) -> None:
        self._systemd.stopping()
        await self.application.stop()
        if self._health is not None:
            await self._health.stopListening()


def makeService(options: Options) -> EdgeApplicationService:
    from twisted.internet import reactor

    steady(reactor)
    try:
        return EdgeApplicationService(*options.configuration(), reactor)
    except BadConfiguration as e:
        raise SystemExit("\n".join(e.problems)) from None


def documentation() -> str:
    """The sections, for docs/edge-application.md."""
    return "".join(config.documented_sections(KNOWN)).lstrip("\n")
