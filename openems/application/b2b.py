"""The servers for other systems, built of their sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openems.application import VERSION
from openems.application.config import Configuration
from openems.application.config.b2b import b2b_websocket
from openems.backend.b2b.credentials import Credentials
from openems.backend.b2b.rest import ID as REST
from openems.backend.b2b.rest import Backend2BackendRest
from openems.backend.b2b.websocket import Backend2BackendWebsocket
from openems.backend.events import EventBus
from openems.backend.metrics.requests import Requests
from openems.websocket.proxies import TrustedProxies


class B2b:
    """``rest`` or None, ``websockets``: by the names of their ports. Both ask the same :class:`Credentials`."""

    def __init__(
        self,
        configuration: Configuration,
        metadata: Any,
        edge_manager: Any,
        handler: Any,
        passwords: Any,
        *,
        reactor: Any,
        events: EventBus,
        proxies: TrustedProxies,
        requests: Requests | None,
    ) -> None:
        self._configuration = configuration
        self.credentials = Credentials(passwords, metadata, reactor=reactor)
        section = configuration.backend2backend_rest
        self.rest: Backend2BackendRest | None = None
        if section is not None:
            self.rest = Backend2BackendRest(
                metadata,
                handler,
                self.credentials,
                reactor=reactor,
                version=VERSION,
                max_body=section.max_body,
                request_limit=section.request_limit,
                proxies=proxies,
                observe=None if requests is None else requests.observer(REST),
            )
            self.rest.observe_result = None if requests is None else requests.result_observer("b2b_rest")
        self.websockets: dict[str, Backend2BackendWebsocket] = {}
        for number, each in enumerate(configuration.backend2backend_websocket):
            server = Backend2BackendWebsocket(
                metadata,
                edge_manager,
                handler,
                self.credentials,
                reactor=reactor,
                events=events,
                number=number,
                max_values=each.max_values,
                max_connections=each.max_connections,
                request_limit=each.request_limit,
                proxies=proxies,
            )
            if requests is not None:
                server.observe = requests.observer(server.id)
                server.observe_result = requests.result_observer("b2b_ws")
            self.websockets[b2b_websocket(number)] = server

    @property
    def parts(self) -> list[Any]:
        """For the debug cycle and the metrics."""
        return [self.rest, *self.websockets.values()]

    async def start_rest(self, interface: Callable[[str | None, str], str]) -> dict[str, int]:
        """Before metadata is there: it says so itself then. ``interface(own, what)`` tells where to listen."""
        section = self._configuration.backend2backend_rest
        if self.rest is None or section is None:
            return {}
        port = self._configuration.port(section.port)
        return {"backend2backend.rest": await self.rest.start(port, interface(section.interface, "REST"))}

    async def start_websockets(self, interface: Callable[[str | None, str], str]) -> dict[str, int]:
        ports: dict[str, int] = {}
        sections = self._configuration.backend2backend_websocket
        for (name, server), section in zip(self.websockets.items(), sections, strict=True):
            port = self._configuration.port(section.port)
            ports[name] = await server.start(port, interface(section.interface, name))
        return ports

    def users_changed(self, logins: set[str]) -> None:
        """Users that are gone, disabled or have another password; ``logins`` in lower case."""
        self.credentials.forget()
        for server in self.websockets.values():
            server.end_sessions(logins)
