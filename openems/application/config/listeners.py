"""Where edges and UIs come in."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from openems.application.config.section import Port, Section


class EdgeWebsocket(Section, frozen=True):
    """Listener for OpenEMS Edges themselves (`Controller.Api.Backend`, header `apikey`). Takes the place of the program
    Backend.Edge.App for one machine; both ways may be open at once."""

    port: Annotated[Port, Meta(description="WebSocket port for edges.")] = 8081
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    processes: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Edge applications that the backend starts and watches behind this port, each a process on a "
            "core of its own; 0: the backend takes the edges itself.",
        ),
    ] = 0


class EdgeManager(Section, frozen=True):
    """Listener for Backend.Edge.App programs (component `Edge.Manager`)."""

    port: Annotated[Port, Meta(description="WebSocket port for edge applications.")] = 8083
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None


class UiWebsocket(Section, frozen=True):
    """Listener for the OpenEMS UI (component `Ui.Websocket`)."""

    port: Annotated[Port, Meta(description="WebSocket port for the UI.")] = 8082
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    request_limit: Annotated[int, Meta(ge=1, le=100000, description="Requests a second and connection.")] = 20
    origins: Annotated[
        list[str],
        Meta(
            description="Origins of pages that may connect, e.g. `https://ui.example.com`; empty: any. What is no"
            " browser sends no origin and may always."
        ),
    ] = []
    revalidation: Annotated[
        int,
        Meta(
            ge=10, le=86400, description="Seconds after which it is checked again that a logged-in user still exists."
        ),
    ] = 900
    max_session_age: Annotated[
        int, Meta(ge=0, le=31536000, description="Seconds after which a session has to log in again; 0: never.")
    ] = 0
