"""Who wants to be told of which edge, when he was, and what alerting must know after a restart (metadata.md 20.8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Raw

from openems.backend.metadata.file.edges import EdgeTable
from openems.backend.metadata.file.model import MAX_DELAY, Delays
from openems.backend.metadata.file.state import AlertingState, StateFile
from openems.backend.metadata.file.users import Users
from openems.backend.models import MailRecipient, User, UserAlertingSettings
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.role import Role


class Alerting:
    def __init__(self, file: StateFile, table: EdgeTable, users: Users) -> None:
        self._file = file
        self._table = table
        self._users = users
        #: Edge -> logins with delays for it in the metadata file: alerting asks for thousands of edges at once.
        self._with_delays: dict[str, list[str]] = {}

    def accept(self) -> None:
        """The users changed."""
        self._with_delays = {}
        for login, user in self._users.everybody().items():
            for edge_id in user.alerting:
                self._with_delays.setdefault(edge_id, []).append(login)

    def edges(self) -> Iterable[str]:
        """Edges of which something is kept."""
        state = self._file.state
        return state.alerting.keys() | state.pending.keys()

    def forget_edge(self, edge_id: str) -> None:
        self._file.state.alerting.pop(edge_id, None)
        self._file.state.pending.pop(edge_id, None)

    async def settings(self, edge_id: str) -> list[UserAlertingSettings]:
        """One entry for each user with a role for the edge who ever had settings for it."""
        if edge_id not in self._table.edges:
            return []
        stored = self._file.state.alerting.get(edge_id, {})
        result = []
        for login in sorted({*stored, *self._with_delays.get(edge_id, ())}):
            user = self._users.known(login)
            if user is None or self._users.role(user, edge_id) is None:
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

    async def set_settings(self, user: User, edge_id: str, settings: Sequence[UserAlertingSettings]) -> None:
        """Own settings need a role for the edge, others' settings ADMIN. All or nothing."""
        role = self._users.get_user_role(user, edge_id)
        if role is None:
            raise OpenemsError(errors.COMMON_ROLE_UNDEFINED, "setUserAlertingConfigs", user.id)
        logins = []
        for entry in settings:
            known = self._users.known(entry.user_login)
            if entry.user_login != user.id and not role.is_at_least(Role.ADMIN):
                raise generic(f"Not allowed to update/set alerting information for other users as user [{user.id}]")
            if known is None or self._users.role(known, edge_id) is None:
                raise OpenemsError(errors.COMMON_USER_UNDEFINED, entry.user_login)
            if max(entry.offline_delay, entry.fault_delay, entry.warning_delay) > MAX_DELAY:
                raise generic(f"A delay may not be longer than {MAX_DELAY} minutes")
            logins.append(known.login)
        stored = self._file.state.alerting.setdefault(edge_id, {})
        for login, entry in zip(logins, settings, strict=True):
            before = stored.get(login) or AlertingState()
            stored[login] = AlertingState(
                offline=entry.offline_delay,
                fault=entry.fault_delay,
                warning=entry.warning_delay,
                last_offline=before.last_offline if entry.last_offline is None else entry.last_offline,
                last_sum_state=before.last_sum_state if entry.last_sum_state is None else entry.last_sum_state,
            )
        await self._file.stored()

    def set_last_notification(
        self, edge_id: str, user_login: str, *, offline: int | None = None, sum_state: int | None = None
    ) -> None:
        """Remember when the last mail of a kind went out, in epoch milliseconds. A time never goes back."""
        user = self._users.known(user_login)
        if user is None or edge_id not in self._table.edges:
            return
        stored = self._file.state.alerting.setdefault(edge_id, {})
        entry = stored.setdefault(user.login, _initial(user.alerting.get(edge_id)))
        if offline is not None:
            entry.last_offline = max(offline, entry.last_offline or 0)
        if sum_state is not None:
            entry.last_sum_state = max(sum_state, entry.last_sum_state or 0)
        self._file.touch()

    def pending(self) -> Mapping[str, Raw]:
        return dict(self._file.state.pending)

    def keep_pending(self, edge_id: str, pending: Raw | None) -> None:
        if pending is not None:
            self._file.state.pending[edge_id] = pending
        elif self._file.state.pending.pop(edge_id, None) is None:
            return
        self._file.touch()

    async def recipient(self, user_login: str, edge_id: str | None) -> MailRecipient | None:
        user = self._users.known(user_login)
        address = self._users.mail_address(user_login)
        if user is None or address is None or (edge_id is not None and self._users.role(user, edge_id) is None):
            return None
        information = self._users.information(user)
        made = self._users.made(user)
        timezone = made.settings.get("timezone")
        names = information.get("firstname") or "", information.get("lastname") or ""
        if not any(names) and made.name != user.login:
            names = made.name, ""
        return MailRecipient(
            login=user.login,
            address=address,
            firstname=names[0],
            lastname=names[1],
            language=made.language,
            timezone=timezone if isinstance(timezone, str) else None,
        )


def _initial(delays: Delays | None) -> AlertingState:
    delays = delays or Delays()
    return AlertingState(offline=delays.offline, fault=delays.fault, warning=delays.warning)
