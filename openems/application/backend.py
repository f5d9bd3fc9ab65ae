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

from openems.application import VERSION, edgeprocess, health
from openems.application.alerting import alerting_of, mailer_of
from openems.application.b2b import B2b
from openems.application.config import Configuration, listeners
from openems.application.config.history import TimedataSqlite
from openems.application.config.logins import oauth_realm, oems
from openems.application.health import Component
from openems.application.influx import aggregatedinfluxdb_of, influxdb_of
from openems.application.odoo import odoo_of
from openems.application.timescaledb import timescaledb_of
from openems.backend.alerting.service import AlertingService
from openems.backend.authentication.attempts import ADDRESS, PAIR, Attempts
from openems.backend.authentication.choice import choose
from openems.backend.authentication.keycloak.service import Keycloak
from openems.backend.authentication.keycloak.stored import DAY, StoredSessions
from openems.backend.core.debugcycle import DebugCycle
from openems.backend.core.jsonrpcrequesthandler import ID as CORE
from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.edge.manager import EdgeManager
from openems.backend.edgeapplication.processes import EdgeProcesses
from openems.backend.events import EventBus, MetadataInitialized
from openems.backend.interfaces import IDebugLoggable, IUserRegistry
from openems.backend.mail.smtp import SmtpMailer
from openems.backend.metadata.appcenter import AppCenterMetadata
from openems.backend.metadata.dummy import DummyLogins, DummyMetadata
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.password import PasswordService
from openems.backend.metrics.mails import Mails
from openems.backend.metrics.pools import Pools, pools_of
from openems.backend.metrics.prometheus import Prometheus
from openems.backend.metrics.requests import Requests
from openems.backend.metrics.servers import ServerPool
from openems.backend.oauthregistry.registry import OAuthRegistry, Provider
from openems.backend.timedata.dummy import DummyTimedata
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.backend.ui.server import ID as UI
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
        #: What has ended, for the metrics; None where nobody reads it.
        self.requests = None if configuration.metrics_prometheus is None else Requests()
        self.metadata, self.password, self.app_center = self._metadata()
        self.attempts = Attempts(
            PAIR._replace(free=configuration.authentication.attempts_of_user),
            ADDRESS._replace(free=configuration.authentication.attempts_of_address),
        )
        self.oauth = self._oauth()
        #: What every listener asks for passwords: of metadata, of the identity provider, or of both.
        self.passwords: Any = choose(
            configuration.authentication.passwords,
            self.password,
            self.oauth,
            oauth_passwords=any(c.service_account for c in configuration.authentication_oauth_clientconfig),
        )
        self.oauth_registry = self._oauth_registry()
        self.timedata: list[Any] = [self._sqlite(section) for section in configuration.timedata_sqlite]
        self.timedata += [
            timescaledb_of(section, self._state_dir, reactor=reactor, now=now, stop_patience=STOP_STORAGE - 1.5)
            for section in configuration.timedata_timescaledb
        ]
        self.timedata += self._influx()
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
            oauth_registry=self.oauth_registry,
            observe=None if self.requests is None else self.requests.of_edges,
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
            observe=None if self.requests is None else self.requests.of_pool(CORE),
        )
        self.ui: UiWebsocket | None = None
        if configuration.ui_websocket is not None:
            self.ui = UiWebsocket(
                self.metadata,
                self.edge_manager,
                self.handler,
                reactor=reactor,
                password=self.passwords,
                code_flow=self.oauth,
                registration=self._registration(),
                attempts=self.attempts,
                origins=configuration.ui_websocket.origins,
                revalidation=configuration.ui_websocket.revalidation,
                max_session_age=configuration.ui_websocket.max_session_age,
                events=self.events,
                request_limit=configuration.ui_websocket.request_limit,
                max_message_size=configuration.backend.max_message_size,
                proxies=proxies,
            )
            self.edge_manager.ui = self.ui
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
        self.edge_processes = self._edge_processes()
        clocks: dict[str, Any] = {"reactor": reactor, "now": now}
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
        self.metrics = self._metrics([*parts, self.password, self._debug_cycle])

    # Building

    def _metrics(self, parts: list[Any]) -> Prometheus | None:
        section = self.configuration.metrics_prometheus
        if section is None or self.requests is None:
            return None
        self.edge_manager.requests.observe_result = self.requests.result_observer("edge")
        if self.ui is not None:
            self.ui.observe = self.requests.observer(UI)
            self.ui.observe_result = self.requests.result_observer("ui")
        metrics = Prometheus(
            reactor=self._reactor,
            now=self._now,
            version=VERSION,
            metadata=self.metadata,
            edge_manager=self.edge_manager,
            timedata_manager=self.timedata_manager,
            query_pool=self.handler.pool,
            requests=self.requests,
            ready=self._not_ready,
            parts=[part for part in parts if hasattr(part, "debug_metrics")],
            ui=self.ui,
            tokens=[section.bearer_token, section.next_bearer_token],
            open_health=section.open_health,
        )
        self.edge_manager.metrics_consumers.append(metrics.applications)
        metrics.add("pools", Pools(pools_of(parts)).collect)
        if isinstance(self.mailer, SmtpMailer):
            metrics.add("mails", Mails(self.mailer).collect)
        metrics.servers.add_b2b(list(self.b2b.websockets.values()), self.b2b.rest)
        for server in self.b2b.websockets.values():
            metrics.components.parts.insert(0, ServerPool(server))
        return metrics

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
        if self.configuration.metadata_odoo is not None:
            observe = None if self.requests is None else self.requests.http("metadata0")
            clocks: dict[str, Any] = {"reactor": self._reactor, "now": self._now}
            odoo = odoo_of(self.configuration.metadata_odoo, self.events, observe=observe, **clocks)
            return odoo, odoo.logins, odoo.app_center
        assert dummy is not None  # noqa: S101 - the configuration is checked
        made = DummyMetadata(
            self.events,
            reactor=self._reactor,
            edge_id_template=dummy.edge_id_template,
            edge_id_max=dummy.edge_id_max,
        )
        return made, DummyLogins(made), AppCenterMetadata()

    def _oauth(self) -> Keycloak | None:
        section = self.configuration.authentication_oauth
        if section is None:
            return None
        registry = self.metadata if IUserRegistry.providedBy(self.metadata) else None
        life = section.password_session_days * DAY
        path = str(self._state_dir / "keycloak-sessions.sqlite")
        return Keycloak(
            oauth_realm(section),
            oems(self.configuration.authentication_oauth_clientconfig),
            self.metadata,
            reactor=self._reactor,
            now=lambda: self._now() / 1000,
            user_registry=registry,
            attempts=self.attempts,
            max_concurrent=section.max_concurrent_requests,
            max_queue=section.max_waiting_requests,
            timeout=section.request_timeout,
            allow_plain_http=section.allow_plain_http,
            algorithms=section.algorithms,
            audience=section.audience,
            keys_refresh=section.keys_refresh,
            keys_interval=section.keys_min_interval,
            registration_roles=section.registration_roles,
            neutral_registration=section.registration_conflict == "neutral",
            stored=StoredSessions(path, life=life) if life else None,
            debug=section.debug_mode == "DETAILED",
            observe=None if self.requests is None else self.requests.http("auth0"),
        )

    def _registration(self) -> Any:
        """Where users register: at the identity provider, else in Odoo; None where nobody may."""
        section, odoo = self.configuration.authentication_oauth, self.configuration.metadata_odoo
        if section is not None:
            return self.oauth if section.registration else None
        return None if odoo is None else self.metadata.registration

    def _oauth_registry(self) -> OAuthRegistry | None:
        clients = self.configuration.oauthregistry_client
        if not clients:
            return None
        providers = [
            Provider(
                identifier=client.identifier,
                authentication_url=client.authentication_url,
                token_url=client.token_url,
                client_id=client.client_id,
                client_secret=client.client_secret,
                redirect_uri=client.redirect_uri,
                issuer_url=client.issuer_url,
                edges=client.edges,
                scopes=client.scopes,
            )
            for client in clients
        ]
        return OAuthRegistry(providers, reactor=self._reactor)

    def _influx(self) -> list[Any]:
        configuration = self.configuration
        options: dict[str, Any] = {"reactor": self._reactor, "now": self._now, "stop_patience": STOP_STORAGE - 1.5}
        found: list[Any] = [influxdb_of(s, self._state_dir, **options) for s in configuration.timedata_influxdb]
        aggregated = configuration.timedata_aggregatedinfluxdb
        if aggregated is not None:
            # The manager of edges is made later: it needs whoever writes what they send.
            found.append(
                aggregatedinfluxdb_of(
                    aggregated,
                    self._state_dir,
                    lambda edge_id, channels: self.edge_manager.get_channel_values(edge_id, channels),
                    **options,
                )
            )
        return found

    def _sqlite(self, section: TimedataSqlite) -> SqliteTimedata:
        return SqliteTimedata(
            section.id,
            section.path or str(self._state_dir / f"{section.id}.sqlite"),
            reactor=self._reactor,
            now=self._now,
            retention_days_raw=section.retention_days_raw,
            retention_days_rollup=section.retention_days_rollup,
            stop_patience=STOP_STORAGE - 1.5,
        )

    def _edge_processes(self) -> EdgeProcesses | None:
        edge = self.configuration.edge
        if edge is None or not edge.processes:
            return None
        command, environ = edgeprocess.command()
        return EdgeProcesses(
            edge.processes,
            command,
            port=self.configuration.port(edge.port),
            interface=self.configuration.interface(edge.interface),
            max_message_size=self.configuration.backend.max_message_size,
            trusted_proxies=self.configuration.backend.trusted_proxies,
            environ=environ,
            reactor=self._reactor,
        )

    # Life

    async def start(self) -> None:
        """Raises CannotListenError, OSError, ``Locked``: with a reason that names what it was."""
        self._log.info("OpenEMS Backend version [{version}] started", version=VERSION)
        os.makedirs(self._state_dir, exist_ok=True)
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

    def _not_ready(self) -> dict[str, str]:
        return {name: component.state for name, component in self.health().items() if not component.ok}

    def health(self) -> dict[str, Component]:
        problems: list[str] = self.metadata.health()
        state = f"{len(self.metadata.edges())} edges"
        components = {
            "Metadata": Component(bool(self.metadata.initialized) and not problems, "; ".join(problems) or state)
        }
        for provider in self.timedata:
            text = provider.debug_log() if IDebugLoggable.providedBy(provider) else ""
            components[f"Timedata {provider.id}"] = Component("CANNOT " not in (text or ""), text or "")
        if self.oauth is not None:
            wrong = self.oauth.problems()
            components["Authentication.OAuth"] = Component(not wrong, "; ".join(wrong) or self.oauth.realm.issuer)
        for name, part in (("Alerting", self.alerting), ("Mail.Smtp", self.mailer)):
            if isinstance(part, AlertingService | SmtpMailer):
                wrong = part.health()
                components[name] = Component(not wrong, "; ".join(wrong) or part.debug_log() or "idle")
        for name in listeners(self.configuration):
            port = self.ports.get(name)
            components[name] = Component(port is not None, f"port {port}" if port else "not open")
        if self.edge_processes is not None and "edge" in self.ports:
            components["edge"] = Component(self.edge_processes.healthy(), self.edge_processes.summary())
        return components
