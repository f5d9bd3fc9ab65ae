"""What the services speak about: edges, users, history, requests for pages (core.md 1.7, metadata.md 4 to 8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from openems.backend import events
from openems.backend.events import EventBus
from openems.common.data import Value
from openems.common.instant import instant
from openems.common.role import Language, Level, Role
from openems.common.semver import ZERO, SemanticVersion

MINUTE = 60_000


class Edge:
    """One edge; its setters publish the events of core.md 7, values given to the constructor publish none."""

    __slots__ = ("_events", "comment", "id", "lastmessage", "online", "producttype", "settings", "sum_state", "version")

    def __init__(
        self,
        id: str,
        events: EventBus,
        *,
        comment: str | None = None,
        producttype: str | None = None,
        version: SemanticVersion = ZERO,
        lastmessage: int | None = None,
        sum_state: Level | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self._events = events
        self.comment = comment
        self.producttype = producttype or ""
        self.version = version
        self.lastmessage = None if lastmessage is None else lastmessage - lastmessage % MINUTE
        self.sum_state = sum_state
        self.online = False
        self.settings = settings

    def set_online(self, online: bool) -> None:
        if online != self.online:
            self.online = online
            self._events.publish(events.OnlineSet(self.id, online))

    def set_lastmessage(self, milliseconds: int) -> None:
        """Cut to the minute; an older time than the known one is ignored (core.md 11, 23)."""
        known = self.lastmessage
        if known is not None and milliseconds < known + MINUTE:
            return
        self.lastmessage = milliseconds - milliseconds % MINUTE
        self._events.publish(events.LastmessageSet(self.id, self.lastmessage))

    def set_sum_state(self, level: Level) -> None:
        if level is not self.sum_state:
            old, self.sum_state = self.sum_state, level
            self._events.publish(events.SumStateSet(self.id, old, level))

    def set_version(self, version: SemanticVersion | None) -> None:
        version = version or ZERO
        if version != self.version:
            old, self.version = self.version, version
            self._events.publish(events.VersionSet(self.id, old, version))

    def set_producttype(self, producttype: str | None) -> None:
        producttype = producttype or ""
        if producttype != self.producttype:
            self.producttype = producttype
            self._events.publish(events.ProducttypeSet(self.id, producttype))

    def metadata_json(self, role: Role, *, first_setup_protocol: int | None = None) -> dict[str, Any]:
        """The EdgeMetadata shape of getEdges and getEdge (wire.md 4.15)."""
        shape: dict[str, Any] = {
            "id": self.id,
            "comment": self.comment,
            "producttype": self.producttype,
            "version": str(self.version),
            "role": role.json,
            "isOnline": self.online,
        }
        if self.lastmessage is not None:
            shape["lastmessage"] = instant(self.lastmessage)
        if self.sum_state is not None:
            shape["sumState"] = self.sum_state.name
        if first_setup_protocol is not None:
            shape["firstSetupProtocol"] = instant(first_setup_protocol)
        if self.settings is not None:
            shape["settings"] = self.settings
        return shape

    def json(self) -> dict[str, Any]:
        """The Edge shape of addEdgeToUser (wire.md 4.15)."""
        shape: dict[str, Any] = {
            "id": self.id,
            "comment": self.comment,
            "version": str(self.version),
            "producttype": self.producttype,
            "online": self.online,
            "sumState": None if self.sum_state is None else self.sum_state.name,
        }
        if self.lastmessage is not None:
            shape["lastmessage"] = instant(self.lastmessage)
        if self.settings is not None:
            shape["settings"] = self.settings
        return shape


class User(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` is the login shown in messages; ``user_id`` the external id (metadata.md 6.1)."""

    id: str
    user_id: str
    name: str
    email: str = ""
    language: Language | None = None
    global_role: Role = Role.GUEST
    has_multiple_edges: bool = False
    settings: dict[str, Any] = {}

    def json(self) -> dict[str, Any]:
        """The ``user`` member of login replies (wire.md 6.2); ``language`` is left out where unknown."""
        shape: dict[str, Any] = {"id": self.id, "name": self.name}
        if self.language is not None:
            shape["language"] = self.language.value
        shape["hasMultipleEdges"] = self.has_multiple_edges
        shape["settings"] = self.settings
        shape["globalRole"] = self.global_role.json
        return shape


class Authenticated(msgspec.Struct, frozen=True):
    """Result of a login: external user id, login name, token that may be stored by the UI."""

    user_id: str
    login: str
    token: str | None

    def __repr__(self) -> str:
        return f"Authenticated(user_id={self.user_id!r})"


class Checked(msgspec.Struct, frozen=True):
    """A password that was right: external user id; ``still_valid()`` is False when the user was disabled or removed
    since, True while nobody can tell."""

    user_id: str
    still_valid: Callable[[], Awaitable[bool]]


class OAuthTokens(msgspec.Struct, frozen=True):
    """``user_id`` is the ``sub`` of the access token."""

    access_token: str
    refresh_token: str
    user_id: str

    def __repr__(self) -> str:
        return f"OAuthTokens(user_id={self.user_id!r})"


class OAuthStart(msgspec.Struct, frozen=True):
    identifier: str
    state: str
    login_url: str


class OrderItem(msgspec.Struct, frozen=True):
    field: str
    descending: bool = False


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of getEdges (metadata.md 8.1). ``None`` means: no filter; ``limit`` 1 to 100."""

    page: int
    limit: int = 20
    query: str | None = None
    producttype: list[str] | None = None
    sum_state: list[Level] | None = None
    is_online: bool | None = None
    order: list[OrderItem] | None = None


class UserAlertingSettings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Delays in minutes, 0 is off. The ``last_...`` stamps are epoch milliseconds of the last mail (alerting.md 5)."""

    edge_id: str
    user_login: str
    offline_delay: int = 0
    fault_delay: int = 0
    warning_delay: int = 0
    last_offline: int | None = None
    last_sum_state: int | None = None


class MailRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """A user as a mailer sees him. ``timezone``: an IANA name, None where he chose none."""

    login: str
    address: str
    firstname: str = ""
    lastname: str = ""
    language: Language | None = None
    timezone: str | None = None


class MailContext(dict[str, Any]):
    """What one mail template is told about one edge (alerting.md 9): ``recipients`` (logins), ``edgeId``, and for
    some templates more. As a mapping it is exactly the object that goes to Odoo.

    For mailers that write the mail themselves there is also ``since``, epoch milliseconds: what the mail is about
    began then, and template, edge, login and ``since`` together name one mail; and ``delays``: login -> minutes.
    """

    __slots__ = ("delays", "since")

    def __init__(
        self,
        recipients: list[str],
        edge_id: str,
        *,
        since: int = 0,
        delays: dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(recipients=recipients, edgeId=edge_id, **more)
        self.since = since
        self.delays = delays or {}

    @property
    def edge_id(self) -> str:
        return str(self["edgeId"])

    @property
    def recipients(self) -> list[str]:
        return list(self["recipients"])


class SetupProtocolCoreInfo(msgspec.Struct, frozen=True):
    """``create_date`` in epoch milliseconds; ``type`` SETUP_PROTOCOL, EMS_EXCHANGE or CAPACITY_EXTENSION."""

    id: int
    create_date: int | None
    type: str | None


class History(msgspec.Struct):
    """A table of history, by column: ``timestamps`` are the starts of the periods in epoch milliseconds, each column
    of ``data`` has as many values, None where there is none. A channel a provider does not know is not a column."""

    timestamps: list[int]
    data: dict[str, list[Value]]
