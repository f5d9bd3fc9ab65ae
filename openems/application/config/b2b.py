"""Where other systems come in."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from openems.application.config.section import Port, Section


class Backend2BackendRest(Section, frozen=True):
    """JSON-RPC over HTTP for other systems (component `Backend2Backend.Rest`), with names and passwords of users; see
    [b2b.md](b2b.md)."""

    port: Annotated[Port, Meta(description="HTTP port.")] = 8075
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    max_body: Annotated[
        int, Meta(ge=1024, le=64 * 1024 * 1024, description="Bytes of one request; a longer one is answered with 413.")
    ] = 1024 * 1024
    request_limit: Annotated[
        Annotated[int, Meta(ge=1, le=100000)] | None, Meta(description="Requests a second and user; absent: no limit.")
    ] = None


class Backend2BackendWebsocket(Section, frozen=True):
    """JSON-RPC and current values over WebSocket for other systems (component `Backend2Backend.Websocket`), with names
    and passwords of users; see [b2b.md](b2b.md)."""

    port: Annotated[Port, Meta(description="WebSocket port.")] = 8076
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    max_values: Annotated[
        int, Meta(ge=1, le=500000, description="Values, edges times channels, of one subscription.")
    ] = 50000
    max_connections: Annotated[
        int, Meta(ge=1, le=100000, description="Connections at the same time; further ones get Close 1013.")
    ] = 2000
    request_limit: Annotated[
        Annotated[int, Meta(ge=1, le=100000)] | None,
        Meta(description="Requests a second and user, over all his connections to this port; absent: no limit."),
    ] = None


def b2b_websocket(number: int) -> str:
    """The name of one of several, counted from 0."""
    return f"backend2backend.websocket {number + 1}" if number else "backend2backend.websocket"
