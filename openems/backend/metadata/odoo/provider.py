"""Metadata.Odoo: edges, users, roles in Odoo (metadata-odoo.md).

- Edges are kept in memory, read from Odoo's PostgreSQL and fresh within seconds (:mod:`.postgres`).
- What edges report is written there in batches (:mod:`.writer`, :mod:`.configs`).
- Users, roles, pages, protocols and mails go over HTTP (:mod:`.rpc`).
- While either is away nothing waits for it longer than its time-out: connected edges and logged-in users go on with
  what is in memory, and what could not be written is written afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.events import EdgesChanged, EventBus, MetadataInitialized
from openems.backend.interfaces import (
    IDebugLoggable,
    IMailDirectory,
    IMailer,
    IMetadata,
    INotificationStamps,
    IUserRegistry,
)
from openems.backend.metadata.configurations import Configurations
from openems.backend.metadata.odoo import monitor
from openems.backend.metadata.odoo.alerting import Alerting
from openems.backend.metadata.odoo.appcenter import OdooAppCenter
from openems.backend.metadata.odoo.assignments import Assignments
from openems.backend.metadata.odoo.configs import OdooConfigs, SystemLog
from openems.backend.metadata.odoo.edges import Changes, EdgeTable
from openems.backend.metadata.odoo.logins import OdooLogins
from openems.backend.metadata.odoo.mailer import OdooMailer
from openems.backend.metadata.odoo.pages import Pages
from openems.backend.metadata.odoo.partners import Models, Partners
from openems.backend.metadata.odoo.postgres import EdgeReader
from openems.backend.metadata.odoo.protocols import Protocols
from openems.backend.metadata.odoo.registration import OdooRegistration, Registration
from openems.backend.metadata.odoo.replies import OdooError, many2one, text_of
from openems.backend.metadata.odoo.rpc import OdooRpc
from openems.backend.metadata.odoo.settings import OdooSettings
from openems.backend.metadata.odoo.stamps import Stamp, Stamps
from openems.backend.metadata.odoo.users import Users
from openems.backend.metadata.odoo.writer import STATEMENT_SECONDS, StatusWriter
from openems.backend.models import Edge, MailRecipient, PageRequest, SetupProtocolCoreInfo, User, UserAlertingSettings
from openems.common.errors import OpenemsError, generic
from openems.common.role import Language, Role
from openems.http.concurrency import Concurrency
from openems.http.exchange import Exchange
from openems.postgres.pool import Pool

ID = "metadata0"
#: Calls to Odoo that may wait for their turn, and statements for a session.
MAX_QUEUE = 1_000
#: Seconds a stop may take for what still waits to be written.
STOP_SECONDS = 3.0
#: Seconds between two looks at an Odoo that is away.
WATCH = 15.0


@implementer(IMetadata, IUserRegistry, IMailer, IMailDirectory, INotificationStamps, IDebugLoggable)
class OdooMetadata:
    """``now``: epoch milliseconds. ``observe(path, status, seconds)``: of each HTTP exchange.

    Belonging services: ``logins`` (None where password logins are off), ``registration``, ``app_center``, ``mailer``.
    """

    _log = Logger()

    def __init__(
        self,
        settings: OdooSettings,
        events: EventBus,
        *,
        reactor: Any,
        now: Callable[[], int],
        observe: Callable[[str, str, float], None] | None = None,
        agent: Any = None,
        pool: Pool | None = None,
    ) -> None:
        self.settings = settings
        self.initialized = False
        self.logins_checked = True
        self._events = events
        self._reactor = reactor
        self._watch: LoopingCall | None = None
        self.pool = pool or Pool(
            ID,
            host=settings.pg_host,
            port=settings.pg_port,
            user=settings.pg_user,
            password=settings.pg_password,
            database=settings.database,
            size=settings.pg_connection_pool_size,
            queue=MAX_QUEUE,
            options={} if settings.pg_ssl_mode is None else {"sslmode": settings.pg_ssl_mode},
            reactor=reactor,
        )
        self.rpc = OdooRpc(
            Exchange(
                reactor=reactor,
                concurrency=Concurrency(settings.request_pool_size, MAX_QUEUE),
                allow_plain_http=True,
                observe=observe,
                agent=agent,
                # Odoo's own server closes after each reply without saying so before.
                persistent=False,
            ),
            url=settings.url,
            database=settings.database,
            login=settings.login,
            password=settings.password,
            uid=settings.uid,
            reactor=reactor,
        )
        self.table = EdgeTable(events)
        self.users = Users(self.rpc, edge_name=self.table.name, reactor=reactor)
        self.reader = EdgeReader(
            self.pool,
            self.table,
            changed=self._edges_changed,
            roles_changed=self.users.roles_changed,
            mark_offline=settings.mark_offline_at_start,
            poll=settings.poll_interval,
            reactor=reactor,
            now=now,
        )
        self.writer = StatusWriter(
            lambda sql, parameters: self.pool.execute(sql, parameters, timeout=STATEMENT_SECONDS),
            events,
            odoo_id=self.table.odoo_id,
            reactor=reactor,
            now=now,
            interval=settings.write_interval,
        )
        self.jobs = (self.reader.job, self.writer.job)
        self.configs = OdooConfigs(self.pool, reactor=reactor, now=now)
        self.system_log = SystemLog(self.pool, reactor=reactor, now=now)
        self.configurations = Configurations(
            events, self.configs, reactor=reactor, is_known=lambda edge_id: edge_id in self.table.edges
        )
        self.models = Models(self.rpc)
        self.partners = Partners(self.models)
        self.pages = Pages(self.rpc, self.users, self.table, wanted=self.reader.wanted)
        self.assignments = Assignments(self.models, self.users, self.table)
        self.protocols = Protocols(
            self.rpc,
            self.models,
            self.partners,
            self.assignments,
            self.users,
            self.table,
            role=self.get_user_role,
            login_suffix=settings.customer_login_suffix,
        )
        self.alerting = Alerting(self.models, self.users, self.table, role=self.get_user_role)
        self.stamps = Stamps(self.models, self.table, reactor=reactor)
        self._registration = Registration(
            self.rpc,
            self.models,
            self.partners,
            reactor=reactor,
            passwords=settings.enable_password_authentication,
            provider_name=settings.auth_oauth_provider_name,
            category_module=settings.category_module,
        )
        self.registration = OdooRegistration(self._registration, strangers=settings.registration)
        self.app_center = OdooAppCenter(self.rpc, role=self.get_user_role, master_key=settings.app_center_master_key)
        self.mailer = OdooMailer(self.rpc)
        self.logins: OdooLogins | None = None
        if settings.enable_password_authentication:
            self.logins = OdooLogins(self.rpc, self.users, reactor=reactor, initialized=lambda: self.initialized)

    # Life

    async def start(self) -> None:
        """Raises nothing: where Odoo's database is away, it is tried again until it is there."""
        settings = self.settings
        self._log.info(
            "Activate. Odoo [{url};PW {odoo}] Postgres [{host}:{port};PW {postgres}] Database [{database}]",
            url=settings.url,
            odoo="ok" if settings.password else "NOT_SET",
            host=settings.pg_host,
            port=settings.pg_port,
            postgres="ok" if settings.pg_password else "NOT_SET",
            database=settings.database,
        )
        await self.pool.start()
        self.configurations.start()
        self.writer.start()
        self.stamps.start()
        self._watch = LoopingCall(self._look_at_odoo)
        self._watch.clock = self._reactor
        watching = self._watch.start(WATCH)
        watching.addErrback(lambda failure: self._log.failure("looking at Odoo failed", failure))
        await self.reader.start()

    def _look_at_odoo(self) -> Deferred[None]:
        """At the start, and while it is away: so that it is known when it is back, also if nobody asks for anything."""
        first = self.users.addon_answers is None
        if not first and self.rpc.down is None:
            return succeed(None)
        # The client has said already what is wrong.
        return Deferred.fromCoroutine(self._probe(first))

    async def _probe(self, first: bool) -> None:
        try:
            await (self.users.try_addon() if first else self.rpc.probe())
        except (OpenemsError, CancelledError):
            pass

    async def stop(self) -> None:
        """What waits is tried once more, for :data:`STOP_SECONDS` in all."""
        if self._watch is not None and self._watch.running:
            self._watch.stop()
        await self.reader.stop()
        try:
            await Deferred.fromCoroutine(self._write_rest()).addTimeout(STOP_SECONDS, self._reactor)
        except DeferredTimeout:
            self._log.warn("not everything could be written to Odoo's database: it does not answer")
        finally:
            await self.pool.stop(0.2)
            await self.rpc.close()

    async def _write_rest(self) -> None:
        self.configs.stop()
        await self.configurations.stop()
        await self.writer.stop()
        await self.system_log.stop()
        await self.stamps.stop()

    def _edges_changed(self, changes: Changes, first: bool) -> None:
        if self.table.shared:
            self._log.error(
                "one API key or setup password belongs to several edges, none of them may use it: {edges}",
                edges=", ".join(self.table.shared[:20]),
            )
        if first:
            self._log.info("Caching Edges from Postgres [finished]: {edges} edges", edges=len(self.table))
            self.initialized = True
            self._events.publish(MetadataInitialized())
        elif changes.keys or changes.added or changes.removed:
            self._log.info(
                "edges in Odoo changed: {added} new, {removed} gone", added=changes.added, removed=changes.removed
            )
            self._events.publish(EdgesChanged())

    def health(self) -> list[str]:
        """Why this does not work as configured, one sentence each."""
        problems = [self.reader.problem] if self.reader.problem else []
        if self.pool.down is not None and not problems:
            problems.append(f"Odoo's database: {self.pool.down}")
        problems += [part.problem for part in (self.writer, self.configs, self.system_log) if part.problem]
        if self.rpc.down is not None:
            problems.append(f"Odoo: {self.rpc.down}")
        return problems

    def warnings(self) -> list[str]:
        """What works but is hardly meant so."""
        found = []
        if self.initialized and not self.table.apikeys:
            found.append("there is no edge in Odoo that may connect")
        if self.table.shared:
            found.append(f"edges share an API key or setup password: {', '.join(self.table.shared[:20])}")
        if self.users.addon_answers is False:
            found.append("the addon in Odoo is too old to answer about users")
        return found

    # Edges

    def get_edge(self, edge_id: str) -> Edge | None:
        return self.table.edges.get(edge_id)

    def edges(self) -> Sequence[Edge]:
        return list(self.table.edges.values())

    def edge_id_for_apikey(self, apikey: str) -> str | None:
        edge_id = self.table.apikeys.get(apikey)
        if edge_id is None and apikey:
            # It may have been made a moment ago: the edge tries again and finds itself known.
            self.reader.wanted()
        return edge_id

    def apikeys_to_edge_ids(self) -> Mapping[str, str]:
        return dict(self.table.apikeys)

    def edge_id_for_setup_password(self, setup_password: str) -> str | None:
        edge_id = self.table.by_setup_password(setup_password)
        if edge_id is None and setup_password:
            self.reader.wanted()
        return edge_id

    async def get_edge_config(self, edge_id: str) -> Raw:
        return await self.configurations.get(edge_id)

    async def get_serial_number(self, edge_id: str) -> str | None:
        value = await self._field(edge_id, "stock_production_lot_id")
        return text_of(value[1]) if many2one(value) is not None and len(value) > 1 else None

    async def get_ems_type(self, edge_id: str) -> str | None:
        return text_of(await self._field(edge_id, "ems_type")) or None

    async def _field(self, edge_id: str, field: str) -> Any:
        """None for an edge Odoo does not know, and where it has no such field. By id: no search finds archived ones."""
        odoo_id = self.table.odoo_id(edge_id)
        if odoo_id is None:
            return None
        try:
            return (await self.models.read_one("openems.device", odoo_id, [field])).get(field)
        except OdooError as e:
            self._log.info("Edge [{edge_id}]: no {field}: {reason}", edge_id=edge_id, field=field, reason=e.message)
            return None

    # Users

    async def get_user_by_external_id(self, user_id: str) -> User:
        return (await self.users.by_external_id(user_id)).user

    def get_user_role(self, user: User, edge_id: str) -> Role | None:
        return self.users.role(user, edge_id) if edge_id in self.table.edges else None

    async def get_page(self, user: User, request: PageRequest) -> list[dict[str, Any]]:
        return await self.pages.page(user, request)

    async def get_edge_metadata(self, user: User, edge_id: str) -> dict[str, Any]:
        return await self.pages.edge(user, edge_id)

    async def add_edge_to_user(self, user: User, edge: Edge) -> None:
        await self.assignments.add_edge(user, edge.id)

    async def get_user_information(self, user: User) -> dict[str, Any]:
        return await self.partners.information(await self.users.odoo_id(user))

    async def set_user_information(self, user: User, information: dict[str, Any]) -> None:
        await self.partners.set_information(await self.users.odoo_id(user), information)

    async def update_user_language(self, user: User, language: Language) -> User:
        number = await self.users.odoo_id(user)
        await self.models.write("res.users", number, {"openems_language": language.value})
        changed = replace(user, language=language)
        self.users.changed(changed)
        return changed

    async def update_user_settings(self, user: User, settings: dict[str, Any]) -> User:
        answer = await self.rpc.call("/openems_backend/set_user_settings", {"settings": settings, "userId": user.id})
        stored = answer.get("settings") if isinstance(answer, dict) else None
        changed = replace(user, settings=stored if isinstance(stored, dict) else {**user.settings, **settings})
        self.users.changed(changed)
        return changed

    async def register_user(self, record: dict[str, Any], oem: str) -> None:
        await self._registration.register(record, oem)

    async def send_mail(self, send_at: int, template_id: str, contexts: Sequence[dict[str, Any]]) -> int:
        return await self.mailer.send_mail(send_at, template_id, contexts)

    async def mail_recipient(self, user_login: str, edge_id: str | None) -> MailRecipient | None:
        return await self.alerting.recipient(user_login, edge_id)

    # Alerting and setup protocols

    async def get_user_alerting_settings(self, edge_id: str) -> list[UserAlertingSettings]:
        return await self.alerting.settings(edge_id)

    async def set_user_alerting_settings(self, user: User, edge_id: str, settings: list[UserAlertingSettings]) -> None:
        await self.alerting.set_settings(user, edge_id, settings)

    def set_last_notification(
        self, edge_id: str, user_login: str, *, offline: int | None = None, sum_state: int | None = None
    ) -> None:
        self.stamps.add(edge_id, user_login, Stamp(offline or 0, sum_state or 0))

    async def submit_setup_protocol(self, user: User, protocol: dict[str, Any]) -> int:
        return await self.protocols.submit(user, protocol)

    async def get_setup_protocol(self, user: User, setup_protocol_id: int) -> bytes:
        return await self.protocols.pdf(user, setup_protocol_id)

    async def get_setup_protocol_data(self, user: User, edge_id: str) -> dict[str, Any]:
        return await self.protocols.data(user, edge_id)

    async def get_setup_protocols_core_info(self, edge_id: str) -> list[SetupProtocolCoreInfo]:
        return await self.protocols.core_info(edge_id)

    def log_generic_system_log(self, edge_id: str, user: User, teaser: str, values: dict[str, str]) -> None:
        odoo_id = self.table.odoo_id(edge_id)
        if odoo_id is None:
            raise generic(f"Unable to find edge with id [{edge_id[:100]}]")
        self.system_log.add(odoo_id, f"{user.id}: {user.name}", teaser, values)

    # IDebugLoggable

    def debug_log(self) -> str | None:
        return monitor.line(self)

    def debug_metrics(self) -> Mapping[str, int | float]:
        return monitor.metrics(ID, self)
