"""Metadata.Dummy: made-up edges, everybody is ADMIN of all of them (metadata.md 14). For development only."""

from __future__ import annotations

import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.events import EdgesChanged, EventBus, MetadataInitialized
from openems.backend.interfaces import IAuthUserPasswordAuthenticationService, IMetadata
from openems.backend.metadata.configurations import Configurations, MemoryConfigs
from openems.backend.metadata.page import page, shape
from openems.backend.models import (
    Authenticated,
    Edge,
    PageRequest,
    SetupProtocolCoreInfo,
    User,
    UserAlertingSettings,
)
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.role import Language, Role

_TRAILING_NUMBER = re.compile(r"[^0-9]+([0-9]+)\Z")
MAX_EDGES = 100_000
MAX_USERS = 10_000


def _edge_id(template: str, number: int) -> str:
    """Java's format of one integer. Without a conversion all ids are equal."""
    if "%" not in template.replace("%%", ""):
        return template.replace("%%", "%")
    try:
        return template % number
    except (TypeError, ValueError):
        raise ValueError(f"edgeIdTemplate {template!r} is no format of one integer, such as edge%d") from None


@implementer(IMetadata)
class DummyMetadata:
    """``edge_id_max`` is the last number, inclusive. Raises ValueError for a bad template.

    Initialised ``delay`` seconds after :meth:`start`. Nothing survives a restart.
    """

    _log = Logger()

    def __init__(
        self,
        events: EventBus,
        *,
        reactor: IReactorTime,
        edge_id_template: str = "edge%d",
        edge_id_max: int = 10,
        delay: float = 10.0,
    ) -> None:
        self.initialized = False
        self.logins_checked = False
        self._events = events
        self._reactor = reactor
        self._delay = delay
        self._edges: dict[str, Edge] = {}
        self._apikeys: dict[str, str] = {}
        self._users: OrderedDict[str, User] = OrderedDict()
        self._language = Language.DE
        self._settings: dict[str, Any] = {}
        self._counter = edge_id_max + 1
        self._timer: IDelayedCall | None = None
        self._configs = Configurations(
            events, MemoryConfigs(), reactor=reactor, is_known=lambda edge_id: edge_id in self._edges
        )
        for number in range(edge_id_max + 1):
            self._add(_edge_id(edge_id_template, number), _edge_id(edge_id_template, number), number)

    async def start(self) -> None:
        self._log.warn(
            "Metadata.Dummy: LOGINS ARE NOT CHECKED, everybody is ADMIN of {edges} edges", edges=len(self._edges)
        )
        self._configs.start()
        self._timer = self._reactor.callLater(self._delay, self._initialize)

    async def stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        await self._configs.stop()

    def health(self) -> list[str]:
        return [] if self.initialized else ["Metadata.Dummy is not initialised yet"]

    def _initialize(self) -> None:
        self.initialized = True
        self._events.publish(MetadataInitialized())

    def _add(self, edge_id: str, apikey: str, number: int) -> None:
        self._edges[edge_id] = Edge(edge_id, self._events, comment=f"OpenEMS Edge #{number}")
        self._apikeys[apikey] = edge_id

    # Edges

    def get_edge(self, edge_id: str) -> Edge | None:
        return self._edges.get(edge_id)

    def edges(self) -> Sequence[Edge]:
        return list(self._edges.values())

    def edge_id_for_apikey(self, apikey: str) -> str | None:
        """An unknown key makes a new edge; more than a 32-bit number at its end is an error (14.2)."""
        known = self._apikeys.get(apikey)
        if known is not None:
            return known
        if len(self._edges) >= MAX_EDGES or len(apikey) > 255:
            raise generic("No more edges are made up")
        match = _TRAILING_NUMBER.search(apikey)
        if match is None:
            self._counter += 1
            number, edge_id = self._counter, f"edge{self._counter}"
        else:
            digits = match.group(1)
            number, edge_id = int(digits), apikey
            if number > 0x7FFFFFFF:
                raise generic(f'For input string: "{digits}"')
        self._add(edge_id, apikey, number)
        self._events.publish(EdgesChanged())
        return edge_id

    def apikeys_to_edge_ids(self) -> Mapping[str, str]:
        """The right way round, unlike Java."""
        return dict(self._apikeys)

    def edge_id_for_setup_password(self, setup_password: str) -> str | None:
        """The setup password is the edge id."""
        return setup_password if setup_password and setup_password in self._edges else None

    async def get_edge_config(self, edge_id: str) -> Raw:
        return await self._configs.get(edge_id)

    # Users

    def get_user(self, user_id: str) -> User | None:
        return self._users.get(user_id)

    async def get_user_by_external_id(self, user_id: str) -> User:
        """A user on first sight; a known one is renewed when the common settings or the number of edges changed."""
        known = self._users.get(user_id)
        multiple = len(self._edges) > 1
        if known is not None and known.has_multiple_edges == multiple and known.settings == self._settings:
            self._users.move_to_end(user_id)
            return known
        user = User(
            id=user_id,
            user_id=user_id,
            name=user_id,
            email=user_id,
            language=self._language,
            global_role=Role.ADMIN,
            has_multiple_edges=multiple,
            settings=dict(self._settings),
        )
        self._users[user_id] = user
        if len(self._users) > MAX_USERS:
            self._users.popitem(last=False)
        return user

    def get_user_role(self, user: User, edge_id: str) -> Role | None:
        return Role.ADMIN

    async def get_page(self, user: User, request: PageRequest) -> list[dict[str, Any]]:
        return page(((edge, Role.ADMIN) for edge in self._edges.values()), request)

    async def get_edge_metadata(self, user: User, edge_id: str) -> dict[str, Any]:
        edge = self._edges.get(edge_id)
        if edge is None:
            raise generic(f"Unable to find edge with id [{edge_id}]")
        return shape(edge, Role.ADMIN)

    async def update_user_language(self, user: User, language: Language) -> User:
        """One language for all users."""
        self._language = language
        return replace(user, language=language)

    async def update_user_settings(self, user: User, settings: dict[str, Any]) -> User:
        """One object of settings for all users."""
        self._settings = {**self._settings, **settings}
        return replace(user, settings=dict(self._settings))

    # Alerting: one made-up entry (metadata.md 11)

    async def get_user_alerting_settings(self, edge_id: str) -> list[UserAlertingSettings]:
        return [
            UserAlertingSettings(edge_id=edge_id, user_login="demo", offline_delay=5, fault_delay=10, warning_delay=15)
        ]

    # What there is not (metadata.md 15)

    async def set_user_alerting_settings(self, user: User, edge_id: str, settings: list[UserAlertingSettings]) -> None:
        raise _not_implemented("setUserAlertingSettings")

    async def add_edge_to_user(self, user: User, edge: Edge) -> None:
        raise _not_implemented("addEdgeToUser")

    async def get_serial_number(self, edge_id: str) -> str | None:
        raise _not_implemented("getSerialNumberForEdge")

    async def get_ems_type(self, edge_id: str) -> str | None:
        raise _not_implemented("getEmsTypeForEdge")

    async def get_user_information(self, user: User) -> dict[str, Any]:
        raise _not_implemented("getUserInformation")

    async def set_user_information(self, user: User, information: dict[str, Any]) -> None:
        raise _not_implemented("setUserInformation")

    async def submit_setup_protocol(self, user: User, protocol: dict[str, Any]) -> int:
        raise _not_implemented("submitSetupProtocol")

    async def get_setup_protocol(self, user: User, setup_protocol_id: int) -> bytes:
        raise _not_implemented("getSetupProtocol")

    async def get_setup_protocol_data(self, user: User, edge_id: str) -> dict[str, Any]:
        raise _not_implemented("getSetupProtocolData")

    async def get_setup_protocols_core_info(self, edge_id: str) -> list[SetupProtocolCoreInfo]:
        return []

    def log_generic_system_log(self, edge_id: str, user: User, teaser: str, values: dict[str, str]) -> None:
        self._log.info(
            "[Metadata.Dummy] {user!r} on {edge!r} executed {teaser!r}", user=user.id, edge=edge_id, teaser=teaser
        )


@implementer(IAuthUserPasswordAuthenticationService)
class DummyLogins:
    """Any name and password; tokens live as long as the process (metadata.md 18)."""

    def __init__(self, metadata: DummyMetadata, *, new_token: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._metadata = metadata
        self._new_token = new_token
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._number = 0

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        if not username:
            username, self._number = f"User #{self._number}", self._number + 1
        token = self._new_token()
        self._tokens[token] = username
        if len(self._tokens) > MAX_USERS:
            self._tokens.popitem(last=False)
        return Authenticated(user_id=username, login=username, token=token)

    async def authenticate_with_token(self, token: str) -> Authenticated:
        username = self._tokens.get(token)
        if username is None:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return Authenticated(user_id=username, login=username, token=token)

    async def logout(self, token: str) -> None:
        self._tokens.pop(token, None)


def _not_implemented(method: str) -> OpenemsError:
    return generic(f"DummyMetadata.{method}() is not implemented")
