"""Metadata.File: edges, users and roles from a file that its administrator writes (metadata.md 20).

The file is never written here; what users and edges change is in the state file beside it. A changed file is read
again within two seconds. A broken one never replaces good data: the old data stays, :meth:`FileMetadata.health` and
one log line say what is wrong and where.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.events import (
    EdgesChanged,
    EventBus,
    LastmessageSet,
    MetadataInitialized,
    SumStateSet,
    VersionSet,
)
from openems.backend.interfaces import IAlertingStore, IMailDirectory, IMetadata
from openems.backend.metadata.configurations import Configurations, FileConfigs
from openems.backend.metadata.file.audit import AuditLog
from openems.backend.metadata.file.check import BadFile, read_model
from openems.backend.metadata.file.model import ANY_EDGE, INFORMATION, MAX_DELAY, Delays, FileEdge, FileUser, Model
from openems.backend.metadata.file.state import (
    KEEP_GONE,
    LATER,
    AlertingState,
    EdgeState,
    InThread,
    ProtocolState,
    State,
    StateFile,
    UserState,
)
from openems.backend.metadata.file.storage import write_atomically
from openems.backend.metadata.page import page, shape
from openems.backend.models import (
    Edge,
    MailRecipient,
    PageRequest,
    SetupProtocolCoreInfo,
    User,
    UserAlertingSettings,
)
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Members, dumps
from openems.common.role import Language, Level, Role
from openems.common.semver import SemanticVersion

#: seconds between two looks at the file. It is read when two looks in a row see the same new state of it.
POLL = 1.0
#: bytes of JSON: what one user may store as settings.
MAX_SETTINGS = 64 << 10
#: characters of one text of the user's information.
MAX_INFORMATION = 1000
#: setup protocols of one edge, and bytes of one.
MAX_PROTOCOLS = 100
MAX_PROTOCOL = 256 << 10
#: The one user of a file without users, when any login is allowed (metadata.md 13.6).
ADMIN = "admin"


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
        self.path = path
        self.initialized = False
        #: Logins whose sessions must end: removed, disabled, or with a new password. Set by whoever owns sessions.
        self.on_users_changed: Callable[[set[str]], None] = lambda logins: None
        #: Times a changed file was read and accepted, refused.
        self.reloads = 0
        self.refusals = 0
        self._events = events
        self._reactor = reactor
        self._now = now
        self._allow_any_login = allow_any_login
        self._allow_empty = allow_empty
        self._default_language = default_language
        self._in_thread: InThread = in_thread or (lambda f: deferToThreadPool(reactor, reactor.getThreadPool(), f))
        stem = state_path.removesuffix(".json")
        self._file = StateFile(state_path, reactor=reactor, now=now, in_thread=self._in_thread)
        self._file.before_write = self._gather
        self._audit = AuditLog(f"{stem}-audit.jsonl", now=now, in_thread=self._in_thread)
        self._configs = Configurations(
            events, FileConfigs(f"{stem}-configs", self._in_thread), reactor=reactor, is_known=self._is_edge
        )
        self._protocols = f"{stem}-protocols"
        self._model = Model()
        self._edges: dict[str, Edge] = {}
        self._apikeys: dict[str, str] = {}
        self._setup_passwords: dict[bytes, str] = {}
        self._external_ids: dict[str, str] = {}
        #: Edge -> logins with delays for it in the file: alerting asks for thousands of edges at once.
        self._with_delays: dict[str, list[str]] = {}
        self._touched: set[str] = set()
        self._unsubscribe: list[Callable[[], None]] = []
        self._poll: LoopingCall | None = None
        self._seen: tuple[int, ...] | None = None
        self._read: tuple[int, ...] | None = None
        self._problem: str | None = f"metadata file {path} has not been read yet"

    # Life

    async def start(self) -> None:
        """Lock and read the state, read the file, begin to watch it. A missing or broken file is no failure.

        Raises :class:`openems.backend.metadata.file.state.Locked`, or OSError if the state may not be read.
        """
        self._file.open()
        subscribe = self._events.subscribe
        self._unsubscribe = [
            subscribe(LastmessageSet, lambda event: self._edge_touched(event.edge_id)),
            subscribe(SumStateSet, lambda event: self._edge_touched(event.edge_id)),
            subscribe(VersionSet, lambda event: self._edge_touched(event.edge_id)),
        ]
        self._configs.start()
        self._seen = await self._in_thread(self._look)
        await self._reload()
        self._poll = LoopingCall(self._look_again)
        self._poll.clock = self._reactor
        self._poll.start(POLL, now=False).addErrback(self._failed)

    async def stop(self) -> None:
        if self._poll is not None and self._poll.running:
            self._poll.stop()
        await self._configs.stop()
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        await self._file.close()

    @property
    def state(self) -> State:
        return self._file.state

    @property
    def model(self) -> Model:
        return self._model

    @property
    def logins_checked(self) -> bool:
        """False: any name and password gets in. Then the UI listener belongs on a loopback address (20.3)."""
        return self._model.users is not None or not self._allow_any_login

    def health(self) -> list[str]:
        """Why this does not work as configured, one sentence each; empty if it does."""
        return [reason for reason in (self._problem, self._file.problem) if reason]

    def warnings(self) -> list[str]:
        """What works as configured but is hardly meant so, and what happened at the start."""
        reasons = []
        if self.initialized and not self._apikeys:
            reasons.append(f"metadata file {self.path} has no edge that may connect")
        if self.initialized and self._model.users is None:
            text = "logins are not checked" if self._allow_any_login else "every login is refused"
            reasons.append(f'metadata file {self.path} has no "users": {text}')
        return reasons + self._file.messages

    def debug_metrics(self) -> dict[str, int | float]:
        return {
            "Metadata.File/Valid": int(self._problem is None),
            "Metadata.File/Edges": len(self._edges),
            "Metadata.File/Reloads": self.reloads,
            "Metadata.File/Refusals": self.refusals,
            "Metadata.File/ConfigsDropped": self._configs.dropped,
            "Metadata.File/AuditDropped": self._audit.dropped,
        }

    # The file

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev

    async def _look_again_async(self) -> None:
        look = await self._in_thread(self._look)
        # An editor may be in the middle of writing: wait until the file holds still for one look.
        steady = look == self._seen
        self._seen = look
        if steady and look != self._read:
            await self._reload()

    def _look_again(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_again_async()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("watching {path} failed", failure, path=self.path)

    async def reload(self) -> None:
        """Read the file now, whether it changed or not."""
        self._seen = await self._in_thread(self._look)
        await self._reload()

    async def _reload(self) -> None:
        self._read = self._seen
        try:
            model, warnings = await self._in_thread(lambda: read_model(self.path, allow_empty=self._allow_empty))
            if not model.edges and self._edges and not self._allow_empty:
                raise BadFile(self.path, ["there are no edges any more"])
        except BadFile as e:
            problem = f"metadata file {e}"
            if problem != self._problem:
                kept = "; the data read before stays in force" if self.initialized else "; waiting for it"
                self._log.error("{problem}{kept}", problem=problem, kept=kept)
            self._problem = problem
            self.refusals += 1
            return
        self._problem = None
        for warning in warnings[:20]:
            self._log.warn("metadata file {path}: {finding}", path=self.path, finding=str(warning))
        self.reloads += 1
        self._accept(model)

    def _accept(self, model: Model) -> None:
        """Swap in ``model`` within one turn of the reactor, then tell the others."""
        old, self._model = self._model, model
        apikeys: dict[str, str] = {}
        setup_passwords: dict[bytes, str] = {}
        edges: dict[str, Edge] = {}
        for entry in model.edges.values():
            if not entry.enabled:
                continue
            edges[entry.id] = self._edge_for(entry)
            if entry.apikey:
                apikeys.setdefault(entry.apikey, entry.id)
            if entry.setup_password:
                setup_passwords.setdefault(_digest(entry.setup_password), entry.id)
        gone = [edge for edge_id, edge in self._edges.items() if edge_id not in edges]
        changed = apikeys != self._apikeys or edges.keys() != self._edges.keys()
        for edge in gone:
            # While it is still known, so that every listener finds it.
            edge.set_online(False)
        self._keep_state_of(gone)
        self._edges, self._apikeys, self._setup_passwords = edges, apikeys, setup_passwords
        users = model.users or {}
        self._external_ids = {external_id: login for login, user in users.items() for external_id in user.external_ids}
        self._with_delays = {}
        for login, user in users.items() if model.users is not None else ((ADMIN, _DEVELOPER),):
            for edge_id in user.alerting:
                self._with_delays.setdefault(edge_id, []).append(login)
        self._forget_old_states()
        self._users_changed(old.users or {}, users)
        self._log.info(
            "metadata file {path}: {edges} edges, {apikeys} of them with an apikey, {users} users",
            path=self.path,
            edges=len(edges),
            apikeys=len(apikeys),
            users=len(users),
        )
        if not apikeys:
            self._log.warn("metadata file {path}: no edge may connect", path=self.path)
        if model.users is None and (not self.initialized or old.users is not None):
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
                path=self.path,
            )
        else:
            self._log.warn(
                'metadata file {path} has no "users": every login is refused. Add "users" with a "passwordHash" '
                "from hash-password",
                path=self.path,
            )

    def _edge_for(self, entry: FileEdge) -> Edge:
        """The same object as long as the edge exists: its online state and its subscribers survive."""
        edge = self._edges.get(entry.id)
        if edge is not None:
            edge.comment = entry.comment
            edge.settings = entry.settings
            edge.set_producttype(entry.producttype)
            return edge
        known = self.state.edges.get(entry.id) or EdgeState()
        return Edge(
            entry.id,
            self._events,
            comment=entry.comment,
            producttype=entry.producttype,
            version=SemanticVersion.parse_or_zero(known.version),
            lastmessage=known.lastmessage,
            sum_state=Level.__members__.get(known.sum_state or ""),
            settings=entry.settings,
        )

    def _users_changed(self, old: Mapping[str, FileUser], new: Mapping[str, FileUser]) -> None:
        ended = {
            login
            for login, user in old.items()
            if login not in new or not new[login].enabled or new[login].password_hash != user.password_hash
        }
        if ended:
            tokens = self.state.tokens
            for key in [key for key, token in tokens.items() if token.login in ended]:
                del tokens[key]
            self._file.touch()
            self.on_users_changed(ended)

    # Running state of the edges

    def _edge_touched(self, edge_id: str) -> None:
        if edge_id in self._edges:
            self._touched.add(edge_id)
            self._file.touch(LATER)

    def _gather(self) -> None:
        for edge_id in self._touched:
            edge = self._edges.get(edge_id)
            if edge is not None:
                self.state.edges[edge_id] = _edge_state(edge)
        self._touched.clear()

    def _keep_state_of(self, gone: Sequence[Edge]) -> None:
        for edge in gone:
            entry = _edge_state(edge)
            entry.gone = self._now()
            self.state.edges[edge.id] = entry
        if gone:
            self._file.touch()

    def _forget_old_states(self) -> None:
        now = self._now()
        for edge_id, entry in tuple(self.state.edges.items()):
            if edge_id in self._edges:
                entry.gone = None
            elif entry.gone is None:
                entry.gone = now
            elif now - entry.gone > KEEP_GONE:
                del self.state.edges[edge_id]
                self.state.alerting.pop(edge_id, None)
                self.state.pending.pop(edge_id, None)
                self.state.protocols.pop(edge_id, None)

    # Edges

    def _is_edge(self, edge_id: str) -> bool:
        return edge_id in self._edges

    def get_edge(self, edge_id: str) -> Edge | None:
        return self._edges.get(edge_id)

    def edges(self) -> Sequence[Edge]:
        return list(self._edges.values())

    def edge_id_for_apikey(self, apikey: str) -> str | None:
        return self._apikeys.get(apikey)

    def apikeys_to_edge_ids(self) -> Mapping[str, str]:
        return dict(self._apikeys)

    def edge_id_for_setup_password(self, setup_password: str) -> str | None:
        # Found by a digest: how long it takes tells nothing about the passwords.
        return self._setup_passwords.get(_digest(setup_password)) if setup_password else None

    async def get_edge_config(self, edge_id: str) -> Raw:
        return await self._configs.get(edge_id)

    async def get_serial_number(self, edge_id: str) -> str | None:
        entry = self._model.edges.get(edge_id)
        return None if entry is None else entry.serial_number

    async def get_ems_type(self, edge_id: str) -> str | None:
        entry = self._model.edges.get(edge_id)
        return None if entry is None else entry.ems_type

    # Users and roles

    def file_user(self, login: str) -> FileUser | None:
        """The enabled user of this login, in any letter case."""
        user = (self._model.users or {}).get(login.strip().lower())
        return user if user is not None and user.enabled else None

    async def get_user_by_external_id(self, user_id: str) -> User:
        if self._model.users is None:
            if self.initialized and self._allow_any_login:
                return self._user(_DEVELOPER)
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        user = self.file_user(self._external_ids.get(user_id, user_id))
        if user is None:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return self._user(user)

    def get_user_role(self, user: User, edge_id: str) -> Role | None:
        known = self._known(user.id)
        return None if known is None or edge_id not in self._edges else self._role(known, edge_id)

    async def get_page(self, user: User, request: PageRequest) -> list[dict[str, Any]]:
        return page(self._visible(user), request)

    async def get_edge_metadata(self, user: User, edge_id: str) -> dict[str, Any]:
        role = self.get_user_role(user, edge_id)
        if role is None:
            raise generic(f"Unable to find edge with id [{edge_id}]")
        return shape(self._edges[edge_id], role)

    async def add_edge_to_user(self, user: User, edge: Edge) -> None:
        """Grants INSTALLER, unless the user has more already; on disk before this returns."""
        known = self._require(user)
        if edge.id not in self._edges:
            raise generic(f"Unable to find edge with id [{edge.id}]")
        present = self._role(known, edge.id)
        if present is not None and present.is_at_least(Role.INSTALLER):
            return
        self._user_state(known.login).grants[edge.id] = Role.INSTALLER.json
        self._audit.write(edge.id, known.login, "addEdgeToUser", {"role": Role.INSTALLER.json})
        await self._stored()

    def _known(self, login: str) -> FileUser | None:
        if self._model.users is None:
            return _DEVELOPER if self._allow_any_login and login == ADMIN else None
        return self.file_user(login)

    def _require(self, user: User) -> FileUser:
        known = self._known(user.id)
        if known is None:
            raise OpenemsError(errors.COMMON_USER_UNDEFINED, user.id)
        return known

    def _role(self, user: FileUser, edge_id: str) -> Role | None:
        """The stronger of the role in the file and the grant, else what the file gives for ``*``."""
        roles = [user.roles[edge_id]] if edge_id in user.roles else []
        state = self.state.users.get(user.login)
        if state is not None and edge_id in state.grants:
            roles.append(Role.parse(state.grants[edge_id]))
        return min(roles) if roles else user.roles.get(ANY_EDGE)

    def _visible(self, user: User) -> list[tuple[Edge, Role]]:
        known = self._known(user.id)
        if known is None:
            return []
        return [(edge, role) for edge in self._edges.values() if (role := self._role(known, edge.id)) is not None]

    def _user(self, user: FileUser) -> User:
        state = self.state.users.get(user.login) or UserState()
        language = Language.__members__.get(state.language or "") or user.language or self._default_language
        if ANY_EDGE in user.roles:
            visible = len(self._edges)
        else:
            visible = len((user.roles.keys() | state.grants.keys()) & self._edges.keys())
        return User(
            id=user.login,
            user_id=user.login,
            name=user.name,
            email=self.mail_address(user.login) or user.login,
            language=language,
            global_role=user.global_role,
            has_multiple_edges=visible > 1,
            settings={**user.settings, **state.settings},
        )

    def _user_state(self, login: str) -> UserState:
        return self.state.users.setdefault(login, UserState())

    async def _stored(self) -> None:
        """What a user changed is on disk before he is told so. If that fails it stays in memory and is tried again."""
        try:
            await self._file.flush()
        except OSError:
            raise generic("The change could not be stored") from None

    async def update_user_language(self, user: User, language: Language) -> User:
        known = self._require(user)
        self._user_state(known.login).language = language.value
        await self._stored()
        return replace(user, language=language)

    async def update_user_settings(self, user: User, settings: dict[str, Any]) -> User:
        """Members are merged at the top level: the UI sends only those it changed."""
        known = self._require(user)
        state = self._user_state(known.login)
        merged = {**state.settings, **settings}
        # What cannot be written (half characters, too deep) fails here and does not get into the state.
        if len(dumps(merged)) > MAX_SETTINGS:
            raise generic(f"Settings of a user may not be larger than {MAX_SETTINGS} bytes")
        state.settings = merged
        await self._stored()
        return replace(user, settings={**known.settings, **merged})

    async def get_user_information(self, user: User) -> dict[str, Any]:
        known = self._require(user)
        flat = self._information(known)
        return {
            "firstname": flat.get("firstname"),
            "lastname": flat.get("lastname"),
            "email": flat.get("email") or self.mail_address(known.login),
            "phone": flat.get("phone"),
            "address": {
                "street": flat.get("street"),
                "zip": flat.get("zip"),
                "city": flat.get("city"),
                "country": (flat.get("country") or "").lower() or None,
            },
            "company": {"name": flat.get("company")},
        }

    async def set_user_information(self, user: User, information: dict[str, Any]) -> None:
        """Shape of ``get_user_information``; absent members stay, null clears. Other members are not kept."""
        known = self._require(user)
        flat: dict[str, Any] = {}
        for name in ("firstname", "lastname", "email", "phone"):
            if name in information:
                flat[name] = information[name]
        address = information.get("address")
        if isinstance(address, dict):
            flat |= {name: address[name] for name in ("street", "zip", "city", "country") if name in address}
        company = information.get("company")
        if isinstance(company, dict) and "name" in company:
            flat["company"] = company["name"]
        for name, value in flat.items():
            if value is not None and not isinstance(value, str):
                raise OpenemsError(errors.JSON_NO_STRING_MEMBER, name, dumps(information).decode())
            if value is not None and len(value) > MAX_INFORMATION:
                raise generic(f"[{name}] may not be longer than {MAX_INFORMATION} characters")
        dumps(flat)  # what cannot be written must not get into the state
        state = self._user_state(known.login)
        state.information = {**state.information, **flat}
        await self._stored()

    def _information(self, user: FileUser) -> dict[str, str | None]:
        state = self.state.users.get(user.login)
        flat: dict[str, str | None] = dict(user.information)
        if state is not None:
            flat |= {name: value for name, value in state.information.items() if name in INFORMATION}
        return flat

    def mail_address(self, login: str) -> str | None:
        """Where mails to this user go: ``information.email``, else a login that is an address."""
        user = self._known(login)
        if user is None:
            return None
        address = self._information(user).get("email") or user.login
        return address if "@" in address else None

    # Alerting

    async def get_user_alerting_settings(self, edge_id: str) -> list[UserAlertingSettings]:
        """One entry for each user with a role for the edge who ever had settings for it."""
        if edge_id not in self._edges:
            return []
        stored = self.state.alerting.get(edge_id, {})
        result = []
        for login in sorted({*stored, *self._with_delays.get(edge_id, ())}):
            user = self._known(login)
            if user is None or self._role(user, edge_id) is None:
                continue
            entry = stored.get(login) or _initial(user.alerting.get(edge_id))
            result.append(
                UserAlertingSettings(
                    edge_id=edge_id,
                    user_login=login,
                    offline_delay=entry.offline,
                    fault_delay=entry.fault,
                    warning_delay=entry.warning,
                    last_offline=entry.last_offline,
                    last_sum_state=entry.last_sum_state,
                )
            )
        return result

    async def set_user_alerting_settings(self, user: User, edge_id: str, settings: list[UserAlertingSettings]) -> None:
        """Own settings need a role for the edge, others' settings ADMIN. All or nothing."""
        role = self.get_user_role(user, edge_id)
        if role is None:
            raise OpenemsError(errors.COMMON_ROLE_UNDEFINED, "setUserAlertingConfigs", user.id)
        logins = []
        for entry in settings:
            known = self._known(entry.user_login)
            if entry.user_login != user.id and not role.is_at_least(Role.ADMIN):
                raise generic(f"Not allowed to update/set alerting information for other users as user [{user.id}]")
            if known is None or self._role(known, edge_id) is None:
                raise OpenemsError(errors.COMMON_USER_UNDEFINED, entry.user_login)
            if max(entry.offline_delay, entry.fault_delay, entry.warning_delay) > MAX_DELAY:
                raise generic(f"A delay may not be longer than {MAX_DELAY} minutes")
            logins.append(known.login)
        stored = self.state.alerting.setdefault(edge_id, {})
        for login, entry in zip(logins, settings, strict=True):
            before = stored.get(login) or AlertingState()
            stored[login] = AlertingState(
                offline=entry.offline_delay,
                fault=entry.fault_delay,
                warning=entry.warning_delay,
                last_offline=before.last_offline if entry.last_offline is None else entry.last_offline,
                last_sum_state=before.last_sum_state if entry.last_sum_state is None else entry.last_sum_state,
            )
        await self._stored()

    def set_last_notification(
        self, edge_id: str, user_login: str, *, offline: int | None = None, sum_state: int | None = None
    ) -> None:
        """Remember when the last mail of a kind went out, in epoch milliseconds."""
        user = self._known(user_login)
        if user is None or edge_id not in self._edges:
            return
        stored = self.state.alerting.setdefault(edge_id, {})
        entry = stored.setdefault(user.login, _initial(user.alerting.get(edge_id)))
        if offline is not None:
            entry.last_offline = offline
        if sum_state is not None:
            entry.last_sum_state = sum_state
        self._file.touch()

    def pending_alerts(self) -> Mapping[str, Raw]:
        return dict(self.state.pending)

    def keep_pending_alert(self, edge_id: str, pending: Raw | None) -> None:
        if pending is not None:
            self.state.pending[edge_id] = pending
        elif self.state.pending.pop(edge_id, None) is None:
            return
        self._file.touch()

    async def mail_recipient(self, user_login: str, edge_id: str | None) -> MailRecipient | None:
        user = self._known(user_login)
        address = self.mail_address(user_login)
        if user is None or address is None or (edge_id is not None and self._role(user, edge_id) is None):
            return None
        information = self._information(user)
        made = self._user(user)
        timezone = made.settings.get("timezone")
        return MailRecipient(
            login=user.login,
            address=address,
            firstname=information.get("firstname") or "",
            lastname=information.get("lastname") or "",
            language=made.language,
            timezone=timezone if isinstance(timezone, str) else None,
        )

    # Setup protocols

    async def submit_setup_protocol(self, user: User, protocol: dict[str, Any]) -> int:
        """Stored as it is, under a new number; the customer becomes OWNER if he is a user of the file.

        Needs INSTALLER for ``edge.id``.
        """
        members = Members(protocol)
        edge_id = Members(members.object("edge")).string("id")
        customer = members.object("customer")
        self._assert_role(user, edge_id, Role.INSTALLER, "submitSetupProtocol")
        protocols = self.state.protocols.setdefault(edge_id, [])
        if len(protocols) >= MAX_PROTOCOLS:
            raise generic(f"Edge [{edge_id}] has {MAX_PROTOCOLS} setup protocols already")
        # The first password of a customer is no part of the record.
        kept = {**protocol, "customer": {name: value for name, value in customer.items() if name != "password"}}
        data = dumps(kept)
        if len(data) > MAX_PROTOCOL:
            raise generic(f"A setup protocol may not be larger than {MAX_PROTOCOL} bytes")
        self.state.last_protocol = number = self.state.last_protocol + 1
        try:
            await self._in_thread(lambda: _write_protocol(self._protocol_path(number), data))
        except OSError:
            raise generic("The setup protocol could not be stored") from None
        protocols.append(ProtocolState(id=number, created=self._now()))
        email = customer.get("email")
        owner = self.file_user(email) if isinstance(email, str) else None
        if owner is not None and self._role(owner, edge_id) in (None, Role.GUEST):
            self._user_state(owner.login).grants[edge_id] = Role.OWNER.json
        self._audit.write(edge_id, user.id, "submitSetupProtocol", {"setupProtocolId": str(number)})
        await self._stored()
        return number

    async def get_setup_protocol_data(self, user: User, edge_id: str) -> dict[str, Any]:
        """The newest one, ``{}`` if there is none. It names the customer, so it needs OWNER."""
        self._assert_role(user, edge_id, Role.OWNER, "getSetupProtocolData")
        protocols = self.state.protocols.get(edge_id)
        if not protocols:
            return {}
        path = self._protocol_path(protocols[-1].id)
        try:
            return Members(await self._in_thread(lambda: _read_protocol(path))).as_dict()
        except OSError:
            raise generic("The setup protocol could not be read") from None

    async def get_setup_protocols_core_info(self, edge_id: str) -> list[SetupProtocolCoreInfo]:
        return [
            SetupProtocolCoreInfo(id=protocol.id, create_date=protocol.created, type=protocol.type)
            for protocol in reversed(self.state.protocols.get(edge_id, ()))
        ]

    def _protocol_path(self, number: int) -> str:
        return os.path.join(self._protocols, f"{number}.json")

    def _assert_role(self, user: User, edge_id: str, required: Role, resource: str) -> None:
        role = self.get_user_role(user, edge_id)
        if role is None:
            raise OpenemsError(errors.COMMON_ROLE_UNDEFINED, resource, user.id)
        if not role.is_at_least(required):
            raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, resource, role.name)

    # What there is not (metadata.md 15)

    async def get_setup_protocol(self, user: User, setup_protocol_id: int) -> bytes:
        raise _not_implemented("getSetupProtocol")

    # System commands

    def log_generic_system_log(self, edge_id: str, user: User, teaser: str, values: dict[str, str]) -> None:
        # The values may be commands with secrets in them: they go to the audit file only, which its owner alone reads.
        self._log.info(
            "[Metadata.File] {user!r} on {edge!r} executed {teaser!r}", user=user.id, edge=edge_id, teaser=teaser
        )
        self._audit.write(edge_id, user.id, teaser, values)

    # For the service of logins

    def touch(self) -> None:
        """Something in ``state`` changed."""
        self._file.touch()

    async def flush(self) -> None:
        """Everything in ``state`` is on disk when this returns; else code 1."""
        await self._stored()


_DEVELOPER = FileUser(login=ADMIN, name="Administrator", global_role=Role.ADMIN, roles={ANY_EDGE: Role.ADMIN})


def _initial(delays: Delays | None) -> AlertingState:
    delays = delays or Delays()
    return AlertingState(offline=delays.offline, fault=delays.fault, warning=delays.warning)


def _edge_state(edge: Edge) -> EdgeState:
    return EdgeState(
        lastmessage=edge.lastmessage,
        version=str(edge.version),
        sum_state=None if edge.sum_state is None else edge.sum_state.name,
    )


def _write_protocol(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_atomically(path, data)


def _read_protocol(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _not_implemented(method: str) -> OpenemsError:
    return generic(f"FileMetadata.{method}() is not implemented")
