"""A backend around the B2B servers, in memory."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from openems.backend.b2b.credentials import Credentials
from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.events import EventBus
from openems.backend.interfaces import IAuthUserPasswordAuthenticationService
from openems.backend.models import Authenticated, User
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.role import Role
from openems.testing.services import FakeEdgeManager, FakeMetadata, FakeTimedata

ALICE = User(id="alice", user_id="sub-alice", name="Alice")


def basic(username: str = "alice", password: str = "s3cret") -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@implementer(IAuthUserPasswordAuthenticationService)
class Passwords:
    """``passwords``: user -> password; ``wait``: verifications wait for the Deferreds in ``waiting``."""

    def __init__(self) -> None:
        self.passwords = {"alice": "s3cret", "bob": " blank "}
        self.asked: list[tuple[str, str, str]] = []
        self.wait = False
        self.waiting: list[Deferred[None]] = []
        self.error: Exception | None = None

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        self.asked.append((username, password, remote))
        if self.wait:
            waiting: Deferred[None] = Deferred()
            self.waiting.append(waiting)
            await waiting
        if self.error is not None:
            raise self.error
        if self.passwords.get(username) != password:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return Authenticated(f"sub-{username}", username, "token")

    async def authenticate_with_token(self, token: str) -> Authenticated:
        raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)

    async def logout(self, token: str) -> None:
        pass


class Metadata(FakeMetadata):
    """b2b.md 8: edge4 online with role ADMIN, edge7 offline with role GUEST, edge9 without role."""

    def __init__(self, events: EventBus) -> None:
        super().__init__(events, {"key4": "edge4", "key7": "edge7", "key9": "edge9"})
        self.roles = {"edge4": Role.ADMIN, "edge7": Role.GUEST}
        self.users = {"sub-alice": ALICE, "sub-bob": User(id="bob", user_id="sub-bob", name="Bob")}

    async def get_user_by_external_id(self, user_id: str) -> User:
        user = self.users.get(user_id)
        if user is None:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return user


class World:
    def __init__(self, reactor: Any = None) -> None:
        self.clock = reactor or Clock()
        self.events = EventBus()
        self.metadata = Metadata(self.events)
        self.edges = FakeEdgeManager()
        self.edges.connected.add("edge4")
        self.edges.values["_sum/EssSoc"] = 61
        edge = self.metadata.get_edge("edge4")
        assert edge is not None
        edge.set_online(True)
        self.timedata = FakeTimedata()
        self.handler = JsonRpcRequestHandler(
            self.metadata, self.edges, self.timedata, reactor=self.clock, now=lambda: 0, events=self.events
        )
        self.passwords = Passwords()
        self.credentials = Credentials(
            self.passwords,
            self.metadata,  # type: ignore[arg-type]
            reactor=self.clock,
            random_bytes=bytes,
        )


class SlowHandler:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.requests: list[Any] = []

    async def handle_request(self, context: str, user: Any, request: Any) -> Any:
        self.requests.append((context, user, request))
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return await waiting
