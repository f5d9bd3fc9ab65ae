"""Users of Odoo and their roles for edges, kept for a while (metadata-odoo.md 11.2, 11.3, 12, 13).

- ``get_user_role`` is asked for each request and must not wait: all roles of a user come with the user. With our own
  addon in the same answer, with others by XML-RPC.
- Older roles are taken, and renewed meanwhile. While Odoo is away they stay: who is logged in goes on.
- An addon that ignores whom it is asked about (the public one of 2024) answers for the administrator. That is found out
  by asking about nobody, and then users are read by XML-RPC (quirk Q3).
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from openems.backend.metadata.odoo.known import Known, parse_user
from openems.backend.metadata.odoo.once import Once, TooMany
from openems.backend.metadata.odoo.replies import (
    Fault,
    OdooError,
    OdooUnavailable,
    Refused,
    RouteMissing,
    many2one,
    text_of,
)
from openems.backend.metadata.odoo.rpc import OdooRpc, Session
from openems.backend.models import User
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.role import Role

INFO = "/openems_backend/info"
#: Seconds in which an answer about a user is not asked for again, and after which it is while Odoo can be asked.
FRESH = 5.0
#: The age of roles at which they are renewed when somebody needs them. Notifications tell of changed roles, but not of
#: users who were archived or left a group.
RENEW = 300.0
#: Somebody without a role asks for an edge: the role may be new, but this often is enough.
MISS = 10.0
#: How long a user is taken as he was while Odoo is away.
STALE = 86_400.0
MAX_USERS = 20_000
MAX_RENEWING = 10
PREFIX = "Unable to read from Odoo"


class Users:
    """``edge_name(odoo id)`` names an edge. ``now`` in seconds is the reactor's."""

    _log = Logger()

    def __init__(self, rpc: OdooRpc, *, edge_name: Callable[[int], str | None], reactor: Any) -> None:
        #: None until it was tried: whether the addon answers about whom it is asked.
        self.addon_answers: bool | None = None
        self._rpc = rpc
        self._edge_name = edge_name
        self._reactor = reactor
        self._users: OrderedDict[str, Known] = OrderedDict()
        self._logins: OrderedDict[str, str] = OrderedDict()
        self._ids: dict[int, str] = {}
        self._once: Once[str, Known] = Once()
        self._addon_once: Once[None, None] = Once()
        self._asked_for: OrderedDict[str, float] = OrderedDict()
        self._groups: dict[str, int | None] = {}
        self._roles_changed_at = float("-inf")

    def __len__(self) -> int:
        return len(self._users)

    # --- who

    def cached(self, login: str) -> Known | None:
        return self._users.get(login)

    async def by_external_id(self, external_id: str) -> Known:
        """Raises 1003 where Odoo knows no such user."""
        now = self._reactor.seconds()
        login = self._logins.get(external_id, external_id)
        known = self._users.get(login)
        if known is not None and known.complete and now - known.at <= FRESH:
            return self._as(known, external_id)
        try:
            return self._as(await self._once.run(external_id, lambda: self._ask(external_id)), external_id)
        except TooMany:
            raise OdooUnavailable("too many questions about users", sent=False) from None
        except OdooUnavailable:
            known = self._users.get(login)
            if known is None or self._reactor.seconds() - known.at > STALE:
                raise
            return self._as(known, external_id)
        except Refused:
            self.forget(login)
            raise

    @staticmethod
    def _as(known: Known, external_id: str) -> Known:
        if known.user.user_id == external_id:
            return known
        return msgspec.structs.replace(known, user=msgspec.structs.replace(known.user, user_id=external_id))

    async def by_session(self, session: Session) -> Known:
        """The user of an own login. With our addon there is nothing more to ask."""
        login = text_of(session.info.get("username"))
        if not login:
            raise Refused()
        told = session.info.get("openems")
        if isinstance(told, dict):
            known = parse_user(login, told, self._now())
            if known.odoo_id != session.info.get("uid"):
                raise Refused()
            return await self._completed(known, session.asked_at)
        known = await self.by_external_id(login)
        if known.odoo_id != session.info.get("uid"):
            # Never take one user's answer for another's.
            self.forget(known.user.id)
            raise Refused()
        return known

    async def _ask(self, external_id: str) -> Known:
        if not external_id.strip():
            raise Refused()
        await self.try_addon()
        asked_at = self._now()
        if not self.addon_answers:
            return await self._completed(await self._read_user(external_id), asked_at)
        answer = await self._rpc.call(INFO, {"external_uid": external_id})
        known = parse_user(external_id, answer.get("user") if isinstance(answer, dict) else None, self._now())
        return await self._completed(known, asked_at)

    async def try_addon(self) -> None:
        """Whom would it answer about, asked about nobody? Once."""
        if self.addon_answers is None:
            await self._addon_once.run(None, self._try_addon)

    async def _try_addon(self) -> None:
        try:
            answer = await self._rpc.call(INFO, {"external_uid": f"nobody-{secrets.token_hex(12)}"})
        except OdooUnavailable:
            raise
        except RouteMissing:
            self.addon_answers = False
        except (OdooError, Refused):
            self.addon_answers = True
            return
        else:
            self.addon_answers = not (isinstance(answer, dict) and answer.get("user"))
        if not self.addon_answers:
            self._log.warn("the addon in Odoo answers for the administrator only; users are read without it")

    async def _read_user(self, external_id: str) -> Known:
        """Without the addon's help."""
        fields = ["login", "name", "global_role", "openems_language"]
        for field in ("oauth_uid", "login"):
            try:
                found = await self._rpc.execute(
                    PREFIX,
                    "res.users",
                    "search_read",
                    [[[field, "=", external_id]]],
                    {"fields": fields, "limit": 2},
                )
            except Fault:
                if field == "login":
                    raise
                continue  # without the module auth_oauth there is no such field
            if isinstance(found, list) and len(found) == 1:
                record = found[0]
                record = {**record, "language": record.get("openems_language"), "settings": "{}"}
                return parse_user(external_id, record, self._now())
        raise Refused()

    async def _completed(self, known: Known, asked_at: float) -> Known:
        if not known.complete:
            known.roles = await self._read_roles(known.odoo_id)
            if known.default is None:
                known.default = await self._read_default(known.odoo_id)
            known.complete = True
            multiple = known.user.has_multiple_edges or known.default is not None or len(known.roles) > 1
            global_role = Role.ADMIN if known.default is Role.ADMIN else known.user.global_role
            known.user = msgspec.structs.replace(known.user, has_multiple_edges=multiple, global_role=global_role)
        self._keep(known, asked_at)
        return known

    async def _read_roles(self, odoo_id: int) -> dict[str, Role]:
        records = await self._rpc.execute(
            PREFIX,
            "openems.device_user_role",
            "search_read",
            [[["user_id", "=", odoo_id]]],
            {"fields": ["device_id", "role"]},
        )
        roles = {}
        for record in records if isinstance(records, list) else ():
            name = self._edge_name(many2one(record.get("device_id")) or 0)
            if name is not None:
                roles[name] = Role.parse(text_of(record.get("role")))
        return roles

    async def _read_default(self, odoo_id: int) -> Role | None:
        for name, role in (("group_openems_manager", Role.ADMIN), ("group_openems_reader", Role.GUEST)):
            group = await self._group(name)
            if group is None:
                continue
            domain = [["id", "=", odoo_id], ["groups_id", "in", [group]]]
            if await self._rpc.execute(PREFIX, "res.users", "search", [domain], {}):
                return role
        return None

    async def _group(self, name: str) -> int | None:
        if name not in self._groups:
            try:
                found = await self._rpc.execute(PREFIX, "ir.model.data", "check_object_reference", ["openems", name])
            except Fault:
                found = None
            self._groups[name] = found[1] if isinstance(found, list) and len(found) == 2 else None
        return self._groups[name]

    # --- kept

    def _now(self) -> float:
        now: float = self._reactor.seconds()
        return now

    def _keep(self, known: Known, asked_at: float) -> None:
        login = known.user.id
        # The same user under the login he had, and another one who had this login.
        for old in (self._users.pop(self._ids.get(known.odoo_id, login), None), self._users.pop(login, None)):
            if old is not None:
                self._ids.pop(old.odoo_id, None)
        if asked_at <= self._roles_changed_at:
            # The answer may be older than the change.
            known.at = self._outdated()
        self._users[login] = known
        self._ids[known.odoo_id] = login
        if known.user.user_id != login:
            self._logins[known.user.user_id] = login
        if len(self._users) > MAX_USERS:
            _, dropped = self._users.popitem(last=False)
            self._ids.pop(dropped.odoo_id, None)
        if len(self._logins) > MAX_USERS:
            self._logins.popitem(last=False)

    def forget(self, login: str) -> None:
        known = self._users.pop(login, None)
        if known is not None:
            self._ids.pop(known.odoo_id, None)
            self._logins.pop(known.user.user_id, None)

    def _find(self, user: User) -> Known | None:
        """His login may have changed in Odoo since he logged in."""
        return self._users.get(self._logins.get(user.user_id, user.id))

    def changed(self, user: User) -> None:
        """What was written to Odoo just now."""
        known = self._find(user)
        if known is not None:
            known.user = msgspec.structs.replace(user, id=known.user.id, user_id=known.user.user_id)

    async def odoo_id(self, user: User) -> int:
        """The id in res.users. Raises 1004 for a user Odoo does not know."""
        known = self._find(user)
        if known is None:
            try:
                known = await self.by_external_id(user.user_id)
            except Refused:
                raise OpenemsError(errors.COMMON_USER_UNDEFINED, user.id) from None
        return known.odoo_id

    async def odoo_id_of_login(self, login: str) -> int:
        """Raises OpenemsError."""
        known = self._users.get(login)
        if known is not None:
            return known.odoo_id
        found = await self._rpc.execute(PREFIX, "res.users", "search", [[["login", "=", login]]], {})
        if not isinstance(found, list) or len(found) != 1:
            raise generic(f"User not found for email [{login}]")
        number: int = found[0]
        return number

    # --- roles

    def role(self, user: User, edge_id: str) -> Role | None:
        """No I/O; renews what it knows in the background."""
        known = self._find(user)
        if known is None:
            self._renew(user, MISS)
            return None
        self._users.move_to_end(known.user.id)
        role = known.roles.get(edge_id, known.default)
        self._renew(user, RENEW if role is not None else MISS)
        return role

    def learn_role(self, user: User, edge_id: str, role: Role | None) -> None:
        """What an answer of Odoo said; None: nothing to do with it any more."""
        known = self._find(user)
        if known is None:
            return
        if role is not None:
            known.roles[edge_id] = role
        else:
            known.roles.pop(edge_id, None)

    def roles_changed(self, odoo_id: int | None) -> None:
        """In Odoo, of one user or, None, of any."""
        self._roles_changed_at = self._now()
        if odoo_id is None:
            self._asked_for.clear()
            for each in self._users.values():
                each.at = min(each.at, self._outdated())
            return
        login = self._ids.get(odoo_id)
        known = self._users.get(login) if login is not None else None
        if known is not None and login is not None:
            known.at = min(known.at, self._outdated())
            self._asked_for.pop(login, None)
            self._renew(known.user, 0.0)

    def _outdated(self) -> float:
        return self._now() - RENEW - 1

    def _renew(self, user: User, age: float) -> None:
        """Ask for a user whose answer is older than ``age``, unless that was tried just now."""
        now = self._now()
        known = self._find(user)
        if known is not None and now - known.at <= age:
            return
        if now - self._asked_for.get(user.id, -MISS) < MISS or len(self._once) >= MAX_RENEWING:
            return
        login, external_id = (user.id, user.user_id) if known is None else (known.user.id, known.user.user_id)
        if external_id in self._once:
            return
        self._asked_for.pop(user.id, None)
        self._asked_for[user.id] = now
        if len(self._asked_for) > MAX_USERS:
            self._asked_for.popitem(last=False)
        renewed = Deferred.fromCoroutine(self._once.run(external_id, lambda: self._ask(external_id)))
        renewed.addErrback(self._not_renewed, login)

    def _not_renewed(self, failure: Any, login: str) -> None:
        if failure.check(Refused):
            # He is not there any more, or may not log in.
            self.forget(login)
        elif not failure.check(OpenemsError, TooMany, CancelledError):
            self._log.failure("roles could not be renewed", failure)
