"""A backend around Ui.Websocket, in memory: everything it asks is a fake that remembers."""

from __future__ import annotations

import random
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from openems.backend.events import EventBus
from openems.backend.interfaces import (
    IAuthUserAuthorizationCodeFlowService,
    IAuthUserPasswordAuthenticationService,
    IAuthUserRegistrationService,
    IJsonRpcRequestHandler,
)
from openems.backend.models import Authenticated, Edge, OAuthStart, OAuthTokens, User, UserAlertingSettings
from openems.backend.ui.server import UiWebsocket
from openems.backend.ui.session import Session
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import EMPTY, Request
from openems.common.role import Role
from openems.testing.connections import FakeConnection

ID = "0b6b9d3a-5d51-4d5f-9c0e-5a2f0e5f7a01"
INNER = "dd030000-0000-4000-8000-000000000001"


class Metadata:
    """``roles``: edge id -> role of whoever asks; ``users``: external id -> user."""

    def __init__(self, events: EventBus) -> None:
        self.initialized = True
        self.roles: dict[str, Role] = {}
        self.users = {"sub-anna": User(id="anna@example.org", user_id="sub-anna", name="Anna Smith")}
        self.edges_ = {"edge0": Edge("edge0", events)}
        self.alerting: list[UserAlertingSettings] = []
        self.calls: list[tuple[Any, ...]] = []
        self.protocols: dict[str, list[Any]] = {}
        self.fail: Exception | None = None

    def get_edge(self, edge_id: str) -> Edge | None:
        return self.edges_.get(edge_id)

    def edge_id_for_setup_password(self, setup_password: str) -> str | None:
        return "edge0" if setup_password == "3rzE-K9pA-qV8i-Ape7" else None

    async def get_user_by_external_id(self, user_id: str) -> User:
        if self.fail is not None:
            raise self.fail
        user = self.users.get(user_id)
        if user is None:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return user

    def get_user_role(self, user: User, edge_id: str) -> Role | None:
        return self.roles.get(edge_id)

    async def get_page(self, user: User, request: Any) -> list[dict[str, Any]]:
        self.calls.append(("get_page", request))
        if self.fail is not None:
            raise self.fail
        return [edge.metadata_json(Role.OWNER) for edge in self.edges_.values()]

    async def get_edge_metadata(self, user: User, edge_id: str) -> dict[str, Any]:
        edge = self.edges_.get(edge_id)
        if edge is None:
            raise generic(f"Unable to find edge with id [{edge_id}]")
        return edge.metadata_json(Role.OWNER)

    async def add_edge_to_user(self, user: User, edge: Edge) -> None:
        self.calls.append(("add_edge_to_user", user.id, edge.id))

    async def get_serial_number(self, edge_id: str) -> str | None:
        return "FH-123"

    async def get_ems_type(self, edge_id: str) -> str | None:
        return None

    async def get_user_information(self, user: User) -> dict[str, Any]:
        return {"firstname": "Anna", "unbuildable": object()} if self.fail is not None else {"firstname": "Anna"}

    async def set_user_information(self, user: User, information: dict[str, Any]) -> None:
        self.calls.append(("set_user_information", information))

    async def update_user_language(self, user: User, language: Any) -> User:
        return User(id=user.id, user_id=user.user_id, name=user.name, language=language)

    async def update_user_settings(self, user: User, settings: dict[str, Any]) -> User:
        return User(id=user.id, user_id=user.user_id, name=user.name, settings=settings)

    async def get_user_alerting_settings(self, edge_id: str) -> list[UserAlertingSettings]:
        return self.alerting

    async def set_user_alerting_settings(self, user: User, edge_id: str, settings: Any) -> None:
        self.calls.append(("set_user_alerting_settings", edge_id, settings))

    async def submit_setup_protocol(self, user: User, protocol: dict[str, Any]) -> int:
        self.calls.append(("submit_setup_protocol", protocol))
        return 4711

    async def get_setup_protocol(self, user: User, setup_protocol_id: int) -> bytes:
        return b"%PDF-1.4\n"

    async def get_setup_protocol_data(self, user: User, edge_id: str) -> dict[str, Any]:
        return {"edge": {"id": edge_id}}

    async def get_setup_protocols_core_info(self, edge_id: str) -> list[Any]:
        return self.protocols.get(edge_id, [])


class EdgeManager:
    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.values: dict[str, dict[str, Any]] = {}
        self.system_logs: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def is_connected(self, edge_id: str) -> bool:
        return edge_id in self.connected

    def get_channel_values(self, edge_id: str, channels: Any) -> dict[str, Any]:
        self.asked.append((edge_id, tuple(channels)))
        known = self.values.get(edge_id, {})
        return {channel: known.get(channel) for channel in sorted(channels)}

    async def subscribe_system_log(
        self, edge_id: str, user: User, role: Role, session_id: str, request: Request
    ) -> Raw:
        if request.members().boolean("subscribe"):
            self.system_logs.add((edge_id, session_id))
        else:
            self.system_logs.discard((edge_id, session_id))
        if edge_id not in self.connected:
            raise OpenemsError(errors.BACKEND_EDGE_NOT_CONNECTED, edge_id)
        return Raw(b'{"payload":{"jsonrpc":"2.0","id":"%b","result":{}}}' % request.id.encode())

    def unsubscribe_system_logs(self, session_id: str) -> None:
        self.system_logs = {entry for entry in self.system_logs if entry[1] != session_id}


@implementer(IJsonRpcRequestHandler)
class Handler:
    """The core handler. ``answers``: (payload) method -> result, an exception, or a Deferred."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[Request] = []

    async def handle_request(self, context: str, user: User, request: Request) -> Any:
        self.requests.append(request)
        method = request.members().request().method if request.method == "edgeRpc" else request.method
        if method not in self.answers:
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, method)
        answer = self.answers[method]
        if isinstance(answer, Deferred):
            return await answer
        if isinstance(answer, Exception):
            raise answer
        return answer


@implementer(IAuthUserPasswordAuthenticationService)
class Password:
    def __init__(self) -> None:
        self.fail: Exception | None = None
        self.wait: Deferred[None] | None = None
        self.logouts: list[str] = []

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        if self.wait is not None:
            await self.wait
        if self.fail is not None:
            raise self.fail
        if password != "s3cret":
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return Authenticated("sub-anna" if username == "anna@example.org" else f"sub-{username}", username, "token-1")

    async def authenticate_with_token(self, token: str) -> Authenticated:
        if token != "token-1":
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return Authenticated("sub-anna", "anna@example.org", token)

    async def logout(self, token: str) -> None:
        self.logouts.append(token)
        if self.fail is not None:
            raise self.fail


@implementer(IAuthUserAuthorizationCodeFlowService)
class CodeFlow:
    def __init__(self) -> None:
        self.used: set[str] = set()

    async def initiate_connect(self, oem: str | None, redirect_uri: str | None, remote: str) -> OAuthStart:
        if oem is None:
            raise generic("Unable to initiate connection")
        return OAuthStart("i1", "i1", "https://login.example.org/auth")

    async def token_by_code(self, oem: str, identifier: str, code: str) -> OAuthTokens:
        if identifier in self.used:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        self.used.add(identifier)
        return OAuthTokens("access", "refresh", "sub-anna")

    async def token_by_refresh_token(self, oem: str, refresh_token: str) -> OAuthTokens:
        return OAuthTokens("access2", "refresh2", "sub-anna")


@implementer(IAuthUserRegistrationService)
class Registration:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    async def register_user(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    async def register_user_if_not_exist(self, record: dict[str, Any]) -> None:
        self.records.append(record)


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.events = EventBus()
        self.metadata = Metadata(self.events)
        self.edges = EdgeManager()
        self.handler = Handler()
        self.password = Password()
        self.code_flow = CodeFlow()
        self.registration = Registration()
        settings: dict[str, Any] = {
            "password": self.password,
            "code_flow": self.code_flow,
            "registration": self.registration,
            "events": self.events,
            "reactor": self.clock,
            "random": random.Random(7),
        }
        self.server = UiWebsocket(self.metadata, self.edges, self.handler, **{**settings, **options})  # type: ignore[arg-type]

    def start(self) -> None:
        """Everything but the port: it would open when metadata is initialised."""
        self.metadata.initialized = False
        Deferred.fromCoroutine(self.server.start(0))
        self.metadata.initialized = True

    def connect(self, *, remote: str = "192.0.2.1:4711") -> Ui:
        return Ui(self, remote)

    def login(self) -> Ui:
        ui = self.connect()
        reply = ui.ask("authenticateWithPassword", {"username": "anna@example.org", "password": "s3cret"})
        assert "result" in reply, reply
        return ui


class Ui:
    """One connection and what its UI does."""

    def __init__(self, world: World, remote: str) -> None:
        self.connection = FakeConnection(clock=world.clock, remote=remote)
        self.session: Session = world.server.endpoint(self.connection)
        self.connection.open(self.session)

    def send(self, method: str, params: dict[str, Any], id: str = ID) -> None:
        self.connection.receive({"jsonrpc": "2.0", "method": method, "params": params, "requiredState": 9, "id": id})

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send, and the one message that came back."""
        messages = self.ask_all(method, params)
        assert len(messages) == 1, messages
        return messages[0]

    def ask_all(self, method: str, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        self.connection.take()
        self.send(method, params or {})
        return self.connection.take()

    def edge_rpc(
        self, method: str, params: dict[str, Any] | None = None, edge_id: str = "edge0"
    ) -> list[dict[str, Any]]:
        payload = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": INNER}
        return self.ask_all("edgeRpc", {"edgeId": edge_id, "payload": payload})

    def subscribe(self, *channels: str, edge_id: str = "edge0") -> list[dict[str, Any]]:
        return self.edge_rpc("subscribeChannels", {"count": 0, "channels": list(channels)}, edge_id)

    def notify(self, method: str, params: dict[str, Any]) -> None:
        self.connection.receive({"jsonrpc": "2.0", "method": method, "params": params})

    def pushes(self) -> list[dict[str, Any]]:
        """The params of the currentData received."""
        return [
            message["params"]["payload"]["params"]
            for message in self.connection.take()
            if message.get("method") == "edgeRpc" and message["params"]["payload"]["method"] == "currentData"
        ]


def ok(result: Any, id: str = ID) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def payload(result: Any) -> dict[str, Any]:
    return ok({"payload": {"jsonrpc": "2.0", "id": INNER, "result": result}})


def failed(code: int, message: str, *data: Any, id: str = ID) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, "data": list(data)}}


__all__ = ["EMPTY", "ID", "INNER", "Ui", "World", "failed", "ok", "payload"]
