"""The process as a whole, and the core."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from openems.application.config.section import Port, Section, Text
from openems.websocket.proxies import LOOPBACK


class Backend(Section, frozen=True):
    """The process as a whole."""

    state_dir: Annotated[
        Text, Meta(description="Directory of everything the backend stores, unless a path says otherwise.")
    ] = "var"
    offset: Annotated[
        int, Meta(ge=0, le=50000, description="Added to every port: several backends on one machine.")
    ] = 0
    interface: Annotated[
        str, Meta(description="Address that listeners bind to which name none of their own; empty: all addresses.")
    ] = ""
    max_message_size: Annotated[
        int,
        Meta(ge=65536, le=1 << 30, description="Bytes of one message; a longer one closes its connection with 1009."),
    ] = 16 * 1024 * 1024
    trusted_proxies: Annotated[
        list[str],
        Meta(
            description="Addresses or networks of reverse proxies: only from these a forwarding header"
            " (`X-Forwarded-For`, `Forwarded`, `X-Real-IP`) tells who the peer is, for limits and logs."
        ),
    ] = msgspec.field(default_factory=lambda: list(LOOPBACK))


class Health(Section, frozen=True):
    """A page for monitoring: 200 when everything works, else 503, with the state of each component as JSON. Always
    there, unless switched off."""

    enabled: bool = True
    port: Annotated[Port, Meta(description="HTTP port.")] = 8079
    interface: Annotated[str, Meta(description="Address to bind to.")] = "127.0.0.1"


class CoreJsonRpcRequestHandler(Section, frozen=True):
    """Queries of users (component `Core.JsonRpcRequestHandler`)."""

    query_thread_pool_size: Annotated[int, Meta(ge=1, le=1000, description="Queries of history at the same time.")] = 20
    query_thread_pool_max_queue_size: Annotated[
        int, Meta(ge=0, le=1000000, description="Queries that may wait; further ones are refused.")
    ] = 1000


class CoreTimedataManager(Section, frozen=True):
    """The order of history providers (component `Core.TimedataManager`)."""

    ids: Annotated[
        list[str],
        Meta(description="Ids of providers; the first is asked first. `timedata.ids`, the full name, is the same."),
    ] = []
