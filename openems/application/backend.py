"""Builds the services of a configuration and wires them (core.md 8.2): the only place that knows all of them.

Start: history, metadata, then the listeners, which open when metadata is initialised: before that every edge and every
login would be refused. Stop: nothing new is accepted; edges and edge applications get Close 1001; UI connections are
dropped without a Close frame, because the UI comes back by itself only then; at last history and state are written.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from openems.application import VERSION, health
from openems.application.alerting import alerting_of, mailer_of
from openems.application.b2b import B2b
from openems.application.components import components_of
from openems.application.config import Configuration
from openems.application.core import handler_of, timedata_manager_of
from openems.application.edges import edge_manager_of, edge_processes_of
from openems.application.health import Component
from openems.application.history import history_of
from openems.application.logins import attempts_of, keycloak_of, oauth_registry_of, passwords_of, registration_of
from openems.application.metadata import metadata_of
from openems.application.metrics import metrics_of
from openems.application.ui import ui_of
from openems.backend.core.debugcycle import DebugCycle
from openems.backend.edgeapplication.processes import EdgeProcesses
from openems.backend.events import EventBus, MetadataInitialized
from openems.backend.interfaces import IDebugLoggable
from openems.backend.mail.smtp import SmtpMailer
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.password import PasswordService
from openems.backend.metrics.requests import Requests
from openems.websocket.proxies import TrustedProxies

#: Seconds that the two halves of a stop may take, together less than ten: whoever is connected, then what is stored.
STOP_LISTENERS = 4.5
STOP_STORAGE = 4.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Backend:
    """``start``, ``listening`` (waits until every port is open), ``stop``. ``now`` gives epoch milliseconds."""

    _log = Logger()

    def __init__(self, configuration: Configuration, *, reactor: Any, now: Callable[[], int]) -> None:
        self.configuration = configuration
        self.events = EventBus()
        self.ports: dict[str, int] = {}
        self._reactor = reactor
        #: Name -> how to stop it.
        self._listeners: dict[str, Callable[[], Any]] = {}
        self._storage: dict[str, Callable[[], Any]] = {}
        self._stopping = False
        self._opening = False
        self._listening: Deferred[None] = Deferred()
        self._state_dir = Path(configuration.backend.state_dir)
        clocks: dict[str, Any] = {"reactor": reactor, "now": now}
        #: What has ended, for the metrics; None where nobody reads it.
        self.requests = None if configuration.metrics_prometheus is None else Requests()
        self.metadata, self.password, self.app_center = metadata_of(
            configuration, self.events, **clocks, requests=self.requests
        )
        self.attempts = attempts_of(configuration)
        self.oauth = keycloak_of(
            configuration, self.metadata, self.attempts, self._state_dir, **clocks, requests=self.requests
        )
        self.passwords = passwords_of(configuration, self.password, self.oauth)
        self.oauth_registry = oauth_registry_of(configuration, reactor=reactor)
        self.timedata = history_of(
            configuration,
            self._state_dir,
            # The manager of edges is made later: it needs whoever writes what they send.
            lambda edge_id, channels: self.edge_manager.get_channel_values(edge_id, channels),
            **clocks,
            stop_patience=STOP_STORAGE - 1.5,
        )
        self.timedata_manager = timedata_manager_of(configuration, self.metadata, self.timedata)
        proxies = TrustedProxies(configuration.backend.trusted_proxies)
        self.edge_manager = edge_manager_of(
            configuration,
            self.metadata,
            self.timedata_manager,
            self.events,
            **clocks,
            app_center=self.app_center,
            oauth_registry=self.oauth_registry,
            proxies=proxies,
            requests=self.requests,
            state_dir=self._state_dir,
        )
        self.handler = handler_of(
            configuration,
            self.metadata,
            self.edge_manager,
            self.timedata_manager,
            self.events,
            **clocks,
            app_center=self.app_center,
            requests=self.requests,
        )
        self.ui = ui_of(
            configuration,
            self.metadata,
            self.edge_manager,
            self.handler,
            self.events,
            reactor=reactor,
            passwords=self.passwords,
            keycloak=self.oauth,
            registration=registration_of(configuration, self.metadata, self.oauth),
            attempts=self.attempts,
            proxies=proxies,
            requests=self.requests,
        )
        self.b2b = B2b(
            configuration,
            self.metadata,
            self.edge_manager,
            self.handler,
            self.passwords,
            reactor=reactor,
            events=self.events,
            proxies=proxies,
            requests=self.requests,
        )
        if isinstance(self.metadata, FileMetadata):
            self.metadata.on_users_changed = self._end_sessions
        self.edge_processes = edge_processes_of(configuration, reactor=reactor)
        self.mailer = mailer_of(configuration, self.metadata, self._state_dir, **clocks)
        self.alerting = alerting_of(configuration, self.metadata, self.mailer, self.events, self._state_dir, **clocks)
        parts = [
            self.oauth,
            self.oauth_registry,
            self.metadata,
            self.edge_manager,
            self.edge_processes,
            self.handler,
            *self.timedata,
            self.ui,
            *self.b2b.parts,
            self.alerting,
            None if self.mailer is self.metadata else self.mailer,
        ]
        self._debug_cycle = DebugCycle(
            [part for part in parts if IDebugLoggable.providedBy(part)],
            [self.timedata_manager],
            reactor=reactor,
            now=now,
        )
        self.metrics = metrics_of(self, [*parts, self.password, self._debug_cycle], **clocks)

    # Life

    async def start(self) -> None:
        """Raises CannotListenError, OSError, ``Locked``: with a reason that names what it was."""
        self._log.info("OpenEMS Backend version [{version}] started", version=VERSION)
        os.makedirs(self._state_dir, mode=0o700, exist_ok=True)
        configuration = self.configuration
        if configuration.health.enabled:
            self._listen_health(configuration.health.interface, configuration.port(configuration.health.port))
        if self.metrics is not None and configuration.metrics_prometheus is not None:
            metrics = configuration.metrics_prometheus
            self.ports["metrics.prometheus"] = self.metrics.start(
                configuration.port(metrics.port), configuration.interface(metrics.interface)
            )
            self._listeners["metrics"] = self.metrics.stop
        self.ports.update(await self.b2b.start_rest(self._login_interface))
        if self.b2b.rest is not None:
            self._listeners["B2B REST"] = self.b2b.rest.stop
        for provider in self.timedata:
            self._storage[f"Timedata {provider.id}"] = provider.stop
            await provider.start()
        self.events.subscribe(MetadataInitialized, lambda _: self._open_later())
        if isinstance(self.password, PasswordService):
            self._storage["Passwords"] = self.password.stop
            self.password.start()
        if self.oauth is not None:
            self._storage["Keycloak"] = self.oauth.stop
            self.oauth.start()
        if self.oauth_registry is not None:
            self._storage["OAuth registry"] = self.oauth_registry.stop
        await self.metadata.start()
        self._storage["Metadata"] = self.metadata.stop
        self._start_alerting()
        if self.metadata.initialized:
            self._open_later()

    def _start_alerting(self) -> None:
        """Ends before the listeners do: that all edges go with them is no outage."""
        mailer = self.mailer if isinstance(self.mailer, SmtpMailer) else None
        if mailer is not None:
            mailer.open()
            self._listeners["Mail"] = mailer.stop
        if self.alerting is not None:
            self.alerting.start()
            self._listeners["Alerting"] = self.alerting.stop
        if mailer is not None:
            # After alerting, which says what mails from before are still good for.
            self.events.subscribe(MetadataInitialized, lambda _: mailer.start())
            if self.metadata.initialized:
                mailer.start()

    async def listening(self) -> None:
        """Returns when every port is open, which may be long: while the metadata file is missing. Raises
        CannotListenError."""
        await self._listening

    def summary(self) -> str:
        return "listening: " + ", ".join(f"{name} {port}" for name, port in self.ports.items())

    def _listen_health(self, interface: str, port: int) -> None:
        listener = self._reactor.listenTCP(port, health.site(self.health), interface=interface)
        self.ports["health"] = listener.getHost().port
        self._listeners["health"] = listener.stopListening

    def _open_later(self) -> None:
        if self._stopping or self._opening:
            return
        self._opening = True
        opened = Deferred.fromCoroutine(self._open())
        opened.addCallbacks(self._listening.callback, self._listening.errback)

    async def _open(self) -> None:
        configuration = self.configuration
        manager, edge, ui = configuration.edge_manager, configuration.edge, configuration.ui_websocket
        self._listeners["Edges"] = self.edge_manager.stop
        await self.edge_manager.start()
        if edge is not None and self.edge_processes is None:
            self.ports["edge"] = await self.edge_manager.listen_edges(
                configuration.port(edge.port), configuration.interface(edge.interface)
            )
        if manager is not None:
            self.ports["edge.manager"] = await self.edge_manager.listen_applications(
                configuration.port(manager.port), configuration.interface(manager.interface)
            )
        if self.ui is not None and ui is not None:
            self._listeners["UI"] = self.ui.stop
            self.ports["ui.websocket"] = (
                await self.ui.start(configuration.port(ui.port), self._login_interface(ui.interface, "the UI")) or 0
            )
        for name, server in self.b2b.websockets.items():
            self._listeners[name] = server.stop
        self.ports.update(await self.b2b.start_websockets(self._login_interface))
        if self.edge_processes is not None:
            # At last: it takes seconds, in which a stop may come.
            await self._open_edge_processes(self.edge_processes)
            if self._stopping:
                return
        self._debug_cycle.start()
        self._log.info("{summary}", summary=self.summary())

    async def _open_edge_processes(self, processes: EdgeProcesses) -> None:
        """They come in by the listener for edge applications; without one by a listener of their own."""
        headers: dict[str, str] = {}
        manager = self.configuration.edge_manager
        if manager is None:
            # Whoever gets in there learns all keys, and on loopback that is every program of this machine.
            headers["secret"] = self.edge_manager.application_secret = secrets.token_hex(32)
            address, port = LOOPBACK[0], await self.edge_manager.listen_applications(0, LOOPBACK[0])
        else:
            address, port = self.configuration.interface(manager.interface), self.ports["edge.manager"]
        address = {"": LOOPBACK[0], "0.0.0.0": LOOPBACK[0], "::": LOOPBACK[1]}.get(address, address)  # noqa: S104
        self._listeners["Edge processes"] = processes.stop
        await processes.start(f"ws://[{address}]:{port}" if ":" in address else f"ws://{address}:{port}", headers)
        self.ports["edge"] = processes.port

    def _login_interface(self, own: str | None, what: str) -> str:
        """Where logins are not checked, nobody else's machine may reach them unless an address was named."""
        interface = self.configuration.interface(own)
        file = self.configuration.metadata_file
        # Users may vanish from the file later, so what counts is the switch.
        unchecked = self.configuration.metadata_dummy is not None or (file is not None and file.single_user)
        if not unchecked or interface in LOOPBACK:
            return interface
        if not interface:
            self._log.warn("LOGINS ARE NOT CHECKED: {what} is served on 127.0.0.1 only", what=what)
            return LOOPBACK[0]
        self._log.warn("LOGINS ARE NOT CHECKED and {what} is served on {interface}", what=what, interface=interface)
        return interface

    async def stop(self) -> None:
        """Everything that was started; a part that does not end in time is logged and left."""
        self._stopping = True
        self._debug_cycle.stop()
        await self._stop_all(self._listeners, STOP_LISTENERS)
        await self._stop_all(self._storage, STOP_STORAGE)

    async def _stop_all(self, parts: dict[str, Callable[[], Any]], patience: float) -> None:
        await DeferredList([Deferred.fromCoroutine(self._stop_one(*part, patience)) for part in parts.items()])
        parts.clear()

    async def _stop_one(self, name: str, stop: Callable[[], Any], patience: float) -> None:
        try:
            result = stop()
            if result is not None:
                waiting = result if isinstance(result, Deferred) else Deferred.fromCoroutine(result)
                await waiting.addTimeout(patience, self._reactor)
        except Exception:
            self._log.failure("{name} did not stop in order", name=name)

    def _end_sessions(self, logins: set[str]) -> None:
        """Users that are gone, disabled or have another password. Without a Close frame: the UI comes back and finds
        that its token is refused (metadata.md 20.7)."""
        for session in tuple(self.ui.sessions.values()) if self.ui is not None else ():
            if session.user is not None and session.user.id.lower() in logins:
                session.connection.drop()
        self.b2b.users_changed(logins)

    # What works

    def not_ready(self) -> dict[str, str]:
        return {name: component.state for name, component in self.health().items() if not component.ok}

    def health(self) -> dict[str, Component]:
        return components_of(self)
