"""Users of a metadata file, their roles and what they changed themselves (metadata.md 20.2, 20.5)."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from openems.backend.metadata.file.audit import AuditLog
from openems.backend.metadata.file.edges import EdgeTable
from openems.backend.metadata.file.model import ANY_EDGE, INFORMATION, FileUser, Model
from openems.backend.metadata.file.state import StateFile, UserState
from openems.backend.models import Edge, User
from openems.common import errors
from openems.common.errors import OpenemsError, generic, short
from openems.common.jsonrpc import dumps
from openems.common.role import Language, Role

#: bytes of JSON: what one user may store as settings.
MAX_SETTINGS = 64 << 10
#: characters of one text of the user's information.
MAX_INFORMATION = 1000
#: The one user of a file without users, when any login is allowed (metadata.md 13.6).
ADMIN = "admin"
DEVELOPER = FileUser(login=ADMIN, name="Administrator", global_role=Role.ADMIN, roles={ANY_EDGE: Role.ADMIN})


class Users:
    """``allow_any_login``: see :class:`openems.backend.metadata.file.provider.FileMetadata`."""

    def __init__(
        self,
        file: StateFile,
        table: EdgeTable,
        audit: AuditLog,
        *,
        allow_any_login: bool,
        default_language: Language,
    ) -> None:
        #: Login -> user; None where the file has no users.
        self.users: dict[str, FileUser] | None = None
        self._file = file
        self._table = table
        self._audit = audit
        self._allow_any_login = allow_any_login
        self._default_language = default_language
        self._accepted = False
        self._external_ids: dict[str, str] = {}

    @property
    def checked(self) -> bool:
        """False: any name and password gets in."""
        return self.users is not None or not self._allow_any_login

    def accept(self, model: Model) -> set[str]:
        """Swap in the users of ``model``; the logins whose sessions must end. Their tokens are forgotten."""
        old = self.everybody() if self._accepted else {}
        self.users, self._accepted = model.users, True
        new = self.everybody()
        self._external_ids = {external_id: login for login, user in new.items() for external_id in user.external_ids}
        ended = {
            login
            for login, user in old.items()
            if login not in new
            or not new[login].enabled
            or new[login].password_hash != user.password_hash
            # Whoever came in unchecked, and found himself to be a user of the same login now.
            or (user is DEVELOPER and new[login] is not DEVELOPER)
        }
        if ended:
            tokens = self._file.state.tokens
            for key in [key for key, token in tokens.items() if token.login in ended]:
                del tokens[key]
            self._file.touch()
        return ended

    def everybody(self) -> dict[str, FileUser]:
        """Login -> user of all who may log in, and of those who are disabled."""
        if self.users is not None:
            return self.users
        return {ADMIN: DEVELOPER} if self._allow_any_login else {}

    def edges_granted(self) -> set[str]:
        return {edge_id for state in self._file.state.users.values() for edge_id in state.grants}

    def forget_edge(self, edge_id: str) -> None:
        """An edge of the same id that comes later may belong to others."""
        for state in self._file.state.users.values():
            state.grants.pop(edge_id, None)

    def file_user(self, login: str) -> FileUser | None:
        """The enabled user of this login, in any letter case."""
        user = (self.users or {}).get(login.strip().lower())
        return user if user is not None and user.enabled else None

    def by_external_id(self, user_id: str, initialized: bool) -> User:
        if self.users is None:
            if initialized and self._allow_any_login:
                return self.made(DEVELOPER)
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        user = self.file_user(self._external_ids.get(user_id, user_id))
        if user is None:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return self.made(user)

    def get_user_role(self, user: User, edge_id: str) -> Role | None:
        known = self.known(user.id)
        return None if known is None or edge_id not in self._table.edges else self.role(known, edge_id)

    def known(self, login: str) -> FileUser | None:
        if self.users is None:
            return DEVELOPER if self._allow_any_login and login == ADMIN else None
        return self.file_user(login)

    def _require(self, user: User) -> FileUser:
        known = self.known(user.id)
        if known is None:
            raise OpenemsError(errors.COMMON_USER_UNDEFINED, user.id)
        return known

    def role(self, user: FileUser, edge_id: str) -> Role | None:
        """The stronger of the role in the file, for the edge or else for ``*``, and the grant.

        A grant never takes anything away, also not from who has ``*``: 20.9 gives what is granted "or the stronger
        existing role"."""
        role = user.roles.get(edge_id, user.roles.get(ANY_EDGE))
        state = self._file.state.users.get(user.login)
        if state is None or edge_id not in state.grants:
            return role
        granted = Role.parse(state.grants[edge_id])
        return granted if role is None else min(role, granted)

    def visible(self, user: User) -> list[tuple[Edge, Role]]:
        known = self.known(user.id)
        if known is None:
            return []
        return [(edge, role) for edge in self._table.edges.values() if (role := self.role(known, edge.id)) is not None]

    def made(self, user: FileUser) -> User:
        state = self._file.state.users.get(user.login) or UserState()
        language = Language.__members__.get(state.language or "") or user.language or self._default_language
        if ANY_EDGE in user.roles:
            visible = len(self._table.edges)
        else:
            visible = len((user.roles.keys() | state.grants.keys()) & self._table.edges.keys())
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

    def state_of(self, login: str) -> UserState:
        return self._file.state.users.setdefault(login, UserState())

    async def add_edge(self, user: User, edge: Edge) -> None:
        """Grants INSTALLER, unless the user has more already; on disk before this returns."""
        known = self._require(user)
        if edge.id not in self._table.edges:
            raise generic(f"Unable to find edge with id [{edge.id}]")
        present = self.role(known, edge.id)
        if present is not None and present.is_at_least(Role.INSTALLER):
            return
        self.state_of(known.login).grants[edge.id] = Role.INSTALLER.json
        self._audit.write(edge.id, known.login, "addEdgeToUser", {"role": Role.INSTALLER.json})
        await self._file.stored()

    async def update_language(self, user: User, language: Language) -> User:
        known = self._require(user)
        self.state_of(known.login).language = language.value
        await self._file.stored()
        return replace(user, language=language)

    async def update_settings(self, user: User, settings: dict[str, Any]) -> User:
        """Members are merged at the top level: the UI sends only those it changed."""
        known = self._require(user)
        state = self.state_of(known.login)
        merged = {**state.settings, **settings}
        # What cannot be written (half characters, too deep) fails here and does not get into the state.
        if len(dumps(merged)) > MAX_SETTINGS:
            raise generic(f"Settings of a user may not be larger than {MAX_SETTINGS} bytes")
        state.settings = merged
        await self._file.stored()
        return replace(user, settings={**known.settings, **merged})

    async def get_information(self, user: User) -> dict[str, Any]:
        known = self._require(user)
        flat = self.information(known)
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

    async def set_information(self, user: User, information: dict[str, Any]) -> None:
        """Shape of ``get_information``; absent members stay, null clears. Other members are not kept."""
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
                raise OpenemsError(errors.JSON_NO_STRING_MEMBER, name, short(dumps(information).decode(), 200))
            if value is not None and len(value) > MAX_INFORMATION:
                raise generic(f"[{name}] may not be longer than {MAX_INFORMATION} characters")
        dumps(flat)  # what cannot be written must not get into the state
        state = self.state_of(known.login)
        state.information = {**state.information, **flat}
        await self._file.stored()

    def information(self, user: FileUser) -> dict[str, str | None]:
        state = self._file.state.users.get(user.login)
        flat: dict[str, str | None] = dict(user.information)
        if state is not None:
            flat |= {name: value for name, value in state.information.items() if name in INFORMATION}
        return flat

    def mail_address(self, login: str) -> str | None:
        """Where mails to this user go: ``information.email``, else a login that is an address."""
        user = self.known(login)
        if user is None:
            return None
        address = self.information(user).get("email") or user.login
        return address if "@" in address else None
