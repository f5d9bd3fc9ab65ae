"""Alerting settings, and where mails of a user go (metadata-odoo.md 11.8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openems.backend.metadata.file.model import MAX_DELAY
from openems.backend.metadata.odoo.edges import EdgeTable
from openems.backend.metadata.odoo.partners import Models
from openems.backend.metadata.odoo.replies import Fault, Refused, text_of
from openems.backend.metadata.odoo.times import milliseconds
from openems.backend.metadata.odoo.users import Users
from openems.backend.models import MailRecipient, User, UserAlertingSettings
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.role import Language, Role

MODEL = "openems.alerting"
FIELDS = [
    "device_name",
    "user_login",
    "offline_delay",
    "warning_delay",
    "fault_delay",
    "offline_last_notification",
    "sum_state_last_notification",
]


class Alerting:
    """``role(user, edge id)`` as in IMetadata."""

    def __init__(
        self, models: Models, users: Users, table: EdgeTable, *, role: Callable[[User, str], Role | None]
    ) -> None:
        self._models = models
        self._users = users
        self._table = table
        self._role = role

    async def settings(self, edge_id: str) -> list[UserAlertingSettings]:
        """Of all users of the edge."""
        domain = [["device_name", "=", edge_id], ["user_login", "!=", False]]
        try:
            records = await self._models.search_read(MODEL, domain, FIELDS)
        except Fault as e:
            if f"{MODEL} doesn't exist" in e.text:
                return []  # an addon without alerting
            raise
        return [
            UserAlertingSettings(
                edge_id=edge_id,
                user_login=login,
                offline_delay=_delay(record.get("offline_delay")),
                fault_delay=_delay(record.get("fault_delay")),
                warning_delay=_delay(record.get("warning_delay")),
                last_offline=milliseconds(record.get("offline_last_notification")),
                last_sum_state=milliseconds(record.get("sum_state_last_notification")),
            )
            for record in records
            if (login := text_of(record.get("user_login"))) and record.get("device_name") == edge_id
        ]

    async def set_settings(self, user: User, edge_id: str, settings: list[UserAlertingSettings]) -> None:
        """Own settings need a role for the edge, others' settings ADMIN, and then the record is theirs (quirk Q15).
        Everybody is looked up before the first record is written."""
        role = self._role(user, edge_id)
        if role is None:
            raise OpenemsError(errors.COMMON_ROLE_UNDEFINED, "setUserAlertingConfigs", user.id)
        device = self._table.odoo_id(edge_id)
        if device is None:
            raise generic(f"Unable to find edge [{edge_id[:100]}]")
        whose = []
        for entry in settings:
            if entry.user_login != user.id and not role.is_at_least(Role.ADMIN):
                raise generic(f"Not allowed to update/set alerting information for other users as user [{user.id}]")
            if max(entry.offline_delay, entry.fault_delay, entry.warning_delay) > MAX_DELAY:
                raise generic(f"A delay may not be longer than {MAX_DELAY} minutes")
            whose.append(await self._whose(entry.user_login, edge_id))
        for entry, odoo_id in zip(settings, whose, strict=True):
            values: dict[str, Any] = {
                "offline_delay": entry.offline_delay,
                "fault_delay": entry.fault_delay,
                "warning_delay": entry.warning_delay,
            }
            domain = [["device_id", "=", device], ["user_login", "=", entry.user_login]]
            found = await self._models.search(MODEL, domain)
            if found:
                await self._models.write(MODEL, found[0], values)
            else:
                await self._models.create(MODEL, {"device_id": device, "user_id": odoo_id, **values})

    async def _whose(self, login: str, edge_id: str) -> int:
        try:
            known = await self._users.by_external_id(login)
        except Refused:
            raise OpenemsError(errors.COMMON_USER_UNDEFINED, login) from None
        if known.roles.get(edge_id, known.default) is None:
            raise OpenemsError(errors.COMMON_USER_UNDEFINED, login)
        return known.odoo_id

    async def recipient(self, login: str, edge_id: str | None) -> MailRecipient | None:
        fields = ["email", "tz", "openems_language", "name"]
        domain = [["login", "=", login]]
        try:
            found = await self._models.search_read("res.users", domain, [*fields, "firstname", "lastname"])
        except Fault:
            found = await self._models.search_read("res.users", domain, fields)
        address = text_of(found[0].get("email")) if len(found) == 1 else None
        if not address:
            return None
        if edge_id is not None:
            try:
                known = await self._users.by_external_id(login)
            except Refused:
                return None
            if known.roles.get(edge_id, known.default) is None:
                return None
        record = found[0]
        language = text_of(record.get("openems_language"))
        return MailRecipient(
            login=login,
            address=address,
            firstname=text_of(record.get("firstname")) or "",
            lastname=text_of(record.get("lastname")) or text_of(record.get("name")) or "",
            language=None if language is None else Language.parse(language),
            timezone=text_of(record.get("tz")),
        )


def _delay(value: Any) -> int:
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0
