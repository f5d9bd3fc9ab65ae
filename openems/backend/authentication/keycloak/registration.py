"""New users: in Keycloak and in metadata, or in neither (auth.md 8.6, S15).

What has begun goes on to its end though whoever asked for it has gone, or waits no longer (metadata may send a mail and
take its time): half a user would be in the way of his next try.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.backend.authentication.keycloak.client import Conflict, KeycloakClient, Rejected, Unavailable
from openems.backend.authentication.keycloak.inputs import MAX_PASSWORD, is_plain
from openems.common import errors
from openems.common.errors import OpenemsError, generic

ROLES = ("INSTALLER", "OWNER")
MAX_NAME = 255
#: Registrations under way; each ends by the deadlines of what it asks.
MAX_RUNNING = 100
#: What Keycloak refuses in names of persons (auth.md 7.7).
_FORBIDDEN = frozenset('<>&"$%!#?§;*~/\\|^=[]{}()')
CONFLICT = "Http 409 Conflict"


class Registration:
    """``user_registry``: metadata that provides IUserRegistry, or None. ``neutral``: an address that is known already
    is answered like a new one, so that nobody learns which are."""

    _log = Logger()

    def __init__(
        self,
        client: KeycloakClient,
        metadata: Any,
        user_registry: Any,
        *,
        roles: Collection[str] = ROLES,
        neutral: bool = False,
    ) -> None:
        self.registered = 0
        self.undone = 0
        #: Users that could be created and not be removed again.
        self.left_over = 0
        self._client = client
        self._metadata = metadata
        self._user_registry = user_registry
        self._roles = frozenset(roles)
        self._neutral = neutral
        self._running: set[Deferred[None]] = set()

    def stop(self) -> None:
        for running in tuple(self._running):
            running.cancel()

    async def register(self, record: dict[str, Any]) -> None:
        """Raises :class:`OpenemsError`: code 1 for what is wrong with the record, 1006 while it is not possible."""
        await self._to_its_end(self._register_new(record))

    async def register_if_not_exist(self, record: dict[str, Any]) -> None:
        """A user known to Keycloak and not to metadata is made known there (auth.md Q19)."""
        await self._to_its_end(self._register_unless_known(record))

    async def _to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._running) >= MAX_RUNNING:
            work.close()
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        # Whoever gives up, gives up this one only.
        answer: Deferred[None] = Deferred(lambda _: None)
        running = Deferred.fromCoroutine(work)
        self._running.add(running)

        def ended(result: Any) -> None:
            self._running.discard(running)
            if not answer.called:
                answer.callback(result)
            elif isinstance(result, Failure):
                self._log.info("registration: failed when nobody waited any more: {reason}", reason=str(result.value))

        running.addBoth(ended)
        await answer

    async def _register_new(self, record: dict[str, Any]) -> None:
        if record["role"] not in self._roles:
            raise generic(f"Registration with Role [{record['role']}] is not allowed")
        try:
            await self._register(record)
        except Conflict:
            if not self._neutral:
                raise generic(CONFLICT) from None

    async def _register_unless_known(self, record: dict[str, Any]) -> None:
        try:
            await self._register(record)
        except Conflict:
            await self._register_known(record)

    async def _register(self, record: dict[str, Any]) -> None:
        account, registry = self._ready()
        check(record)
        user: dict[str, Any] = {
            "username": record["email"],
            "email": record["email"],
            "firstName": record["firstname"],
            "lastName": record["lastname"],
            "enabled": True,
        }
        if record.get("password") is not None:
            # With the user, so that none is left without one.
            user["credentials"] = [{"type": "password", "value": record["password"], "temporary": False}]
        try:
            user_id = await self._client.create_user(user)
        except Rejected as e:
            raise generic(str(e)) from None
        except Unavailable as e:
            self._log.warn("registration: {reason}", reason=str(e))
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
        try:
            await registry.register_user(_with_link(record, user_id), account.oem)
        except Exception as e:
            await self._undo(user_id)
            if isinstance(e, OpenemsError):
                raise
            self._log.error("registration: metadata failed: {kind}", kind=type(e).__name__)
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
        self.registered += 1

    async def _register_known(self, record: dict[str, Any]) -> None:
        account, registry = self._ready()
        try:
            user_id = await self._client.find_user(record["email"])
        except Unavailable as e:
            self._log.warn("registration: {reason}", reason=str(e))
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
        if user_id is None:
            # The name is taken by a user with another address: he is not who is meant.
            raise generic(CONFLICT)
        try:
            await self._metadata.get_user_by_external_id(user_id)
        except OpenemsError as e:
            if e.code != errors.COMMON_AUTHENTICATION_FAILED:
                raise
            # Not with the password that was made up for a new user: this one has his own.
            known = {name: value for name, value in record.items() if name != "password"}
            known["includePasswordInRegistrationEmail"] = False
            await registry.register_user(_with_link(known, user_id), account.oem)

    def _ready(self) -> tuple[Any, Any]:
        """Before anything is created: whether all that is needed is there."""
        if self._client.service_account is None:
            raise generic("No OEM config found for service account")
        if self._user_registry is None:
            raise generic("Registration is not available on this server: its metadata cannot create users")
        return self._client.service_account, self._user_registry

    async def _undo(self, user_id: str) -> None:
        try:
            await self._client.delete_user(user_id)
        except Exception as e:
            self.left_over += 1
            self._log.error(
                "registration: Keycloak user {user} is left without one in metadata, remove it: {reason}",
                user=user_id, reason=str(e) or type(e).__name__,
            )  # fmt: skip
            return
        self.undone += 1


def check(record: dict[str, Any]) -> None:
    """What no server would take; the values are not repeated. Raises code 1."""
    for name in ("firstname", "lastname"):
        text = record[name]
        if not is_plain(text, MAX_NAME) or _FORBIDDEN.intersection(text):
            raise generic(f"Member [{name}] is empty, too long or has a character that is not allowed")
    email = record["email"]
    local, at, domain = email.rpartition("@")
    if not is_plain(email, MAX_NAME) or not at or not local or not domain or " " in email or "@" in local:
        raise generic("Member [email] is no email address")
    password = record.get("password")
    if password is not None and not is_plain(password, MAX_PASSWORD):
        raise generic("Member [password] is empty, too long or has a character that is not allowed")
    for name, text in (("phone", record.get("phone", "")), *record.get("address", {}).items()):
        if text and not is_plain(text, MAX_NAME):
            raise generic(f"Member [{name}] is too long or has a character that is not allowed")


def _with_link(record: dict[str, Any], user_id: str) -> dict[str, Any]:
    return {**record, "oauthProviderId": -1, "oauthUid": user_id}
