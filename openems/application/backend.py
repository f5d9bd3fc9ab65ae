"""Builds the services of a configuration and wires them (core.md 8.2): the only place that knows all of them.

Start: history, metadata, then the listeners, which open when metadata is initialised: before that every edge and every
login would be refused. Stop: nothing new is accepted; edges and edge applications get Close 1001; UI connections are
dropped without a Close frame, because the UI comes back by itself only then; at last history and state are written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from openems.application import VERSION, health
from openems.application.config import Configuration, TimedataSqlite, listeners
from openems.application.health import Component
from openems.backend.core.debugcycle import DebugCycle
from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.edge.manager import EdgeManager
from openems.backend.events import EventBus, MetadataInitialized
from openems.backend.interfaces import IDebugLoggable
from openems.backend.metadata.appcenter import AppCenterMetadata
from openems.backend.metadata.dummy import DummyLogins, DummyMetadata
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.password import PasswordService
from openems.backend.timedata.dummy import DummyTimedata
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.backend.ui.server import UiWebsocket
from openems.common.role import Language
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
        self._now = now
        #: Name -> how to stop it.
        self._listeners: dict[str, Callable[[], Any]] = {}
        self._storage: dict[str, Callable[[], Any]] = {}
        self._stopping = False
        self._opening = False
        self._listening: Deferred[None] = Deferred()
        self._state_dir = Path(configuration.backend.state_dir)
        self.metadata, self.password, self.app_center = self._metadata()
        self.timedata: list[Any] = [self._sqlite(section) for section in configuration.timedata_sqlite]
        self.timedata += [DummyTimedata(section.id) for section in configuration.timedata_dummy]
        core = configuration.core_jsonrpcrequesthandler
        self.timedata_manager = TimedataManager(
            self.timedata,
            configuration.core_timedatamanager.ids,
            is_edge=lambda edge_id: self.metadata.get_edge(edge_id) is not None,
        )
        proxies = TrustedProxies(configuration.backend.trusted_proxies)
        self.edge_manager = EdgeManager(
            self.metadata,
            self.timedata_manager,
            self.events,
            reactor=reactor,
            now=now,
            app_center=self.app_center,
            max_message_size=configuration.backend.max_message_size,
            proxies=proxies,
        )
        self.handler = JsonRpcRequestHandler(
            self.metadata,
            self.edge_manager,
            self.timedata_manager,
            reactor=reactor,
            now=now,
            app_center=self.app_center,
            pool_size=core.query_thread_pool_size,
            max_queue_size=core.query_thread_pool_max_queue_size,
            events=self.events,
        )
        self.ui: UiWebsocket | None = None
        if configuration.ui_websocket is not None:
            self.ui = UiWebsocket(
                self.metadata,
                self.edge_manager,
                self.handler,
                reactor=reactor,
                password=self.password,
                events=self.events,
                request_limit=configuration.ui_websocket.request_limit,
                max_message_size=configuration.backend.max_message_size,
                proxies=proxies,
            )
            self.edge_manager.ui = self.ui
            if isinstance(self.metadata, FileMetadata):
                self.metadata.on_users_changed = self._end_sessions
        parts = [self.metadata, self.edge_manager, self.handler, self.timedata_manager, *self.timedata, self.ui]
        self._debug_cycle = DebugCycle(
            [part for part in parts if IDebugLoggable.providedBy(part)],
            [self.timedata_manager],
            reactor=reactor,
            now=now,
        )

    # Building

    def _metadata(self) -> tuple[Any, Any, Any]:
        section, dummy = self.configuration.metadata_file, self.configuration.metadata_dummy
        if section is not None:
            file = FileMetadata(
                section.path,
                section.state or f"{os.path.splitext(section.path)[0]}-state.json",
                self.events,
                reactor=self._reactor,
                now=self._now,
                allow_any_login=section.single_user,
                allow_empty=section.allow_empty,
                default_language=Language.parse(section.language),
            )
            return file, PasswordService(file, reactor=self._reactor, now=self._now), None
        assert dummy is not None  # noqa: S101 - the configuration is checked
        made = DummyMetadata(
            self.events,
            reactor=self._reactor,
            edge_id_template=dummy.edge_id_template,
            edge_id_max=dummy.edge_id_max,
        )
        return made, DummyLogins(made), AppCenterMetadata()

    def _sqlite(self, section: TimedataSqlite) -> SqliteTimedata:
        return SqliteTimedata(
            section.id,
            section.path or str(self._state_dir / f"{section.id}.sqlite"),
            reactor=self._reactor,
            now=self._now,
            retention_days_raw=section.retention_days_raw,
            retention_days_rollup=section.retention_days_rollup,
            stop_patience=STOP_STORAGE - 0.5,
        )

    # Life

    async def start(self) -> None:
        """Raises CannotListenError, OSError, ``Locked``: with a reason that names what it was."""
        self._log.info("OpenEMS Backend version [{version}] started", version=VERSION)
        os.makedirs(self._state_dir, exist_ok=True)
        configuration = self.configuration
        if configuration.health.enabled:
            self._listen_health(configuration.health.interface, configuration.port(configuration.health.port))
        for provider in self.timedata:
            self._storage[f"Timedata {provider.id}"] = provider.stop
            await provider.start()
        self.events.subscribe(MetadataInitialized, lambda _: self._open_later())
        if isinstance(self.password, PasswordService):
            self._storage["Passwords"] = self.password.stop
            self.password.start()
        await self.metadata.start()
        self._storage["Metadata"] = self.metadata.stop
        if self.metadata.initialized:
            self._open_later()

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
        if edge is not None:
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
                await self.ui.start(configuration.port(ui.port), self._ui_interface(ui.interface)) or 0
            )
        self._debug_cycle.start()
        self._log.info("{summary}", summary=self.summary())

    def _ui_interface(self, own: str | None) -> str:
        """Where logins are not checked, nobody else's machine may reach them unless an address was named."""
        interface = self.configuration.interface(own)
        file = self.configuration.metadata_file
        # Users may vanish from the file later, so what counts is the switch.
        unchecked = self.configuration.metadata_dummy is not None or (file is not None and file.single_user)
        if not unchecked or interface in LOOPBACK:
            return interface
        if not interface:
            self._log.warn("LOGINS ARE NOT CHECKED: the UI is served on 127.0.0.1 only")
            return LOOPBACK[0]
        self._log.warn("LOGINS ARE NOT CHECKED and the UI is served on {interface}", interface=interface)
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

    # What works

    def health(self) -> dict[str, Component]:
        problems: list[str] = self.metadata.health()
        state = f"{len(self.metadata.edges())} edges"
        components = {
            "Metadata": Component(bool(self.metadata.initialized) and not problems, "; ".join(problems) or state)
        }
        for provider in self.timedata:
            text = provider.debug_log() if IDebugLoggable.providedBy(provider) else ""
            components[f"Timedata {provider.id}"] = Component("CANNOT WRITE" not in (text or ""), text or "")
        for name in listeners(self.configuration):
            port = self.ports.get(name)
            components[name] = Component(port is not None, f"port {port}" if port else "not open")
        return components
