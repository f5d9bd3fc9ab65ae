"""Metadata.File: edges, users and roles from a file that its administrator writes (metadata.md 20).

The file is never written here (:mod:`.watch` reads it); what users and edges change is in the state file beside it
(:mod:`.state`). A changed file is read again within two seconds. A broken one never replaces good data: the old data
stays, :meth:`FileMetadata.health` and one log line say what is wrong and where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.events import EdgesChanged, EventBus, MetadataInitialized
from openems.backend.interfaces import IAlertingStore, IMailDirectory, IMetadata
from openems.backend.metadata.configurations import Configurations, FileConfigs
from openems.backend.metadata.file.alerting import Alerting
from openems.backend.metadata.file.audit import AuditLog
from openems.backend.metadata.file.edges import EdgeTable
from openems.backend.metadata.file.model import FileUser, Model
from openems.backend.metadata.file.protocols import Protocols
from openems.backend.metadata.file.state import InThread, State, StateFile
from openems.backend.metadata.file.users import Users
from openems.backend.metadata.file.watch import FileWatch
from openems.backend.metadata.page import page, shape
from openems.backend.models import Edge, MailRecipient, PageRequest, SetupProtocolCoreInfo, User, UserAlertingSettings
from openems.common.errors import generic
from openems.common.role import Language, Role


@implementer(IMetadata, IAlertingStore, IMailDirectory)
class FileMetadata:
    """``path``: the metadata file. ``state_path``: the state file; the configurations of the edges are in a directory
    and the audit log in a file beside it. ``now``: epoch milliseconds.

    ``allow_any_login``: a development switch for a file without ``users``. Every login is then the same ADMIN of
    everything; the caller must not do this but on a loopback address. It has no effect on a file with users.
    """

    _log = Logger()

    def __init__(
        self,
        path: str,
        state_path: str,
        events: EventBus,
        *,
        reactor: Any,
        now: Callable[[], int],
        allow_any_login: bool = False,
        allow_empty: bool = False,
        default_language: Language = Language.DE,
        in_thread: InThread | None = None,
    ) -> None:
        self.initialized = False
        #: Logins whose sessions must end: removed, disabled, or with a new password. Set by whoever owns sessions.
        self.on_users_changed: Callable[[set[str]], None] = lambda logins: None
        self._events = events
        self._allow_any_login = allow_any_login
        in_thread = in_thread or (lambda f: deferToThreadPool(reactor, reactor.getThreadPool(), f))
        stem = state_path.removesuffix(".json")
        self.file = StateFile(state_path, reactor=reactor, now=now, in_thread=in_thread)
        self.audit = AuditLog(f"{stem}-audit.jsonl", now=now, in_thread=in_thread)
        self.table = EdgeTable(events, self.file, now=now)
        self.file.before_write = self.table.gather
        self.configurations = Configurations(
            events,
            FileConfigs(f"{stem}-configs", in_thread),
            reactor=reactor,
            is_known=lambda edge_id: edge_id in self.table.edges,
        )
        self.users = Users(
            self.file, self.table, self.audit, allow_any_login=allow_any_login, default_language=default_language
        )
        self.alerting = Alerting(self.file, self.table, self.users)
        self.protocols = Protocols(f"{stem}-protocols", self.file, self.users, self.audit, now=now, in_thread=in_thread)
        self.watch = FileWatch(
            path,
            self._accept,
            has_edges=lambda: bool(self.table.edges),
            allow_empty=allow_empty,
            reactor=reactor,
            now=now,
            in_thread=in_thread,
        )
        self.jobs = (self.watch.job, self.file.job)

    # Life

    async def start(self) -> None:
        """Lock and read the state, read the file, begin to watch it. A missing or broken file is no failure.

        Raises ``Locked`` and ``NewerState`` of :mod:`openems.backend.metadata.file.state`, or OSError if the state may
        not be read.
        """
        self.file.open()
        self.table.start()
        self.configurations.start()
        await self.watch.start()

    async def stop(self) -> None:
        self.watch.stop()
        await self.configurations.stop()
        self.table.stop()
        try:
            await self.audit.flush()
        finally:
            await self.file.close()

    async def reload(self) -> None:
        """Read the file now, whether it changed or not."""
        await self.watch.reload()

    def _accept(self, model: Model) -> None:
        """Swap in ``model`` within one turn of the reactor, then tell the others."""
        had_users = self.users.users is not None
        ended = self.users.accept(model)
        changed = self.table.accept(model)
        self.alerting.accept()
        kept = {*self.alerting.edges(), *self.protocols.edges(), *self.users.edges_granted()}
        for edge_id in self.table.forget(kept):
            self.alerting.forget_edge(edge_id)
            self.protocols.forget_edge(edge_id)
            self.users.forget_edge(edge_id)
        if ended:
            self.on_users_changed(ended)
        self._log.info(
            "metadata file {path}: {edges} edges, {apikeys} of them with an apikey, {users} users",
            path=self.watch.path,
            edges=len(self.table.edges),
            apikeys=len(self.table.apikeys),
            users=len(model.users or {}),
        )
        if not self.table.apikeys:
            self._log.warn("metadata file {path}: no edge may connect", path=self.watch.path)
        if model.users is None and (not self.initialized or had_users):
            self._warn_about_logins()
        if not self.initialized:
            self.initialized = True
            self._events.publish(MetadataInitialized())
        elif changed:
            self._events.publish(EdgesChanged())

    def _warn_about_logins(self) -> None:
        if self._allow_any_login:
            self._log.warn(
                'metadata file {path} has no "users": LOGINS ARE NOT CHECKED, everybody is ADMIN of every edge',
                path=self.watch.path,
            )
        else:
            self._log.warn(
                'metadata file {path} has no "users": every login is refused. Add "users" with a "passwordHash" '
                "from hash-password",
                path=self.watch.path,
            )

    @property
    def state(self) -> State:
        return self.file.state

    @property
    def logins_checked(self) -> bool:
        """False: any name and password gets in. Then the UI listener belongs on a loopback address (20.3)."""
        return self.users.checked

    def health(self) -> list[str]:
        """Why this does not work as configured, one sentence each; empty if it does."""
        return [reason for reason in (self.watch.problem, self.file.problem) if reason]

    def warnings(self) -> list[str]:
        """What works as configured but is hardly meant so, and what happened at the start."""
        reasons = []
        if self.initialized and not self.table.apikeys:
            reasons.append(f"metadata file {self.watch.path} has no edge that may connect")
        if self.initialized and self.users.users is None:
            text = "logins are not checked" if self._allow_any_login else "every login is refused"
            reasons.append(f'metadata file {self.watch.path} has no "users": {text}')
        return reasons + self.file.messages

    def debug_metrics(self) -> dict[str, int | float]:
        return {
            "Metadata.File/Valid": int(self.watch.problem is None),
            "Metadata.File/Edges": len(self.table.edges),
            "Metadata.File/Reloads": self.watch.reloads,
            "Metadata.File/Refusals": self.watch.refusals,
            "Metadata.File/StateWaiting": self.file.waiting,
            "Metadata.File/ConfigsWaiting": self.configurations.waiting,
            "Metadata.File/ConfigsDropped": self.configurations.dropped,
            "Metadata.File/AuditDropped": self.audit.dropped,
        }

    # Edges

    def get_edge(self, edge_id: str) -> Edge | None:
        return self.table.edges.get(edge_id)

    def edges(self) -> Sequence[Edge]:
        return list(self.table.edges.values())

    def edge_id_for_apikey(self, apikey: str) -> str | None:
        return self.table.apikeys.get(apikey)

    def apikeys_to_edge_ids(self) -> Mapping[str, str]:
        return dict(self.table.apikeys)

    def edge_id_for_setup_password(self, setup_password: str) -> str | None:
        return self.table.by_setup_password(setup_password)

    async def get_edge_config(self, edge_id: str) -> Raw:
        return await self.configurations.get(edge_id)

    async def get_serial_number(self, edge_id: str) -> str | None:
        entry = self.table.entries.get(edge_id)
        return None if entry is None else entry.serial_number

    async def get_ems_type(self, edge_id: str) -> str | None:
        entry = self.table.entries.get(edge_id)
        return None if entry is None else entry.ems_type

    # Users

    async def get_user_by_external_id(self, user_id: str) -> User:
        return self.users.by_external_id(user_id, self.initialized)

    def get_user_role(self, user: User, edge_id: str) -> Role | None:
        return self.users.get_user_role(user, edge_id)

    async def get_page(self, user: User, request: PageRequest) -> list[dict[str, Any]]:
        return page(self.users.visible(user), request)

    async def get_edge_metadata(self, user: User, edge_id: str) -> dict[str, Any]:
        role = self.get_user_role(user, edge_id)
        if role is None:
            raise generic(f"Unable to find edge with id [{edge_id}]")
        return shape(self.table.edges[edge_id], role)

    async def add_edge_to_user(self, user: User, edge: Edge) -> None:
        await self.users.add_edge(user, edge)

    async def get_user_information(self, user: User) -> dict[str, Any]:
        return await self.users.get_information(user)

    async def set_user_information(self, user: User, information: dict[str, Any]) -> None:
        await self.users.set_information(user, information)

    async def update_user_language(self, user: User, language: Language) -> User:
        return await self.users.update_language(user, language)

    async def update_user_settings(self, user: User, settings: dict[str, Any]) -> User:
        return await self.users.update_settings(user, settings)

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
        self.alerting.set_last_notification(edge_id, user_login, offline=offline, sum_state=sum_state)

    def pending_alerts(self) -> Mapping[str, Raw]:
        return self.alerting.pending()

    def keep_pending_alert(self, edge_id: str, pending: Raw | None) -> None:
        self.alerting.keep_pending(edge_id, pending)

    async def submit_setup_protocol(self, user: User, protocol: dict[str, Any]) -> int:
        return await self.protocols.submit(user, protocol)

    async def get_setup_protocol(self, user: User, setup_protocol_id: int) -> bytes:
        """There is none (metadata.md 15)."""
        raise generic("FileMetadata.getSetupProtocol() is not implemented")

    async def get_setup_protocol_data(self, user: User, edge_id: str) -> dict[str, Any]:
        return await self.protocols.data(user, edge_id)

    async def get_setup_protocols_core_info(self, edge_id: str) -> list[SetupProtocolCoreInfo]:
        return await self.protocols.core_info(edge_id)

    def log_generic_system_log(self, edge_id: str, user: User, teaser: str, values: dict[str, str]) -> None:
        # The values may be commands with secrets in them: they go to the audit file only, which its owner alone reads.
        self._log.info(
            "[Metadata.File] {user!r} on {edge!r} executed {teaser!r}", user=user.id, edge=edge_id, teaser=teaser
        )
        self.audit.write(edge_id, user.id, teaser, values)

    # For the service of logins

    def file_user(self, login: str) -> FileUser | None:
        """The enabled user of this login, in any letter case."""
        return self.users.file_user(login)

    def touch(self) -> None:
        """Something in ``state`` changed."""
        self.file.touch()

    async def flush(self) -> None:
        """Everything in ``state`` is on disk when this returns; else code 1."""
        await self.file.stored()
