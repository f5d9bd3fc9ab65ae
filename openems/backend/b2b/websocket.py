"""Backend2Backend.Websocket: JSON-RPC and values for other systems (b2b.md 3). Several may run, each on its port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.b2b.credentials import Credentials
from openems.backend.b2b.methods import label
from openems.backend.b2b.session import NAME, TOO_MANY, TRY_AGAIN_LATER, Session
from openems.backend.b2b.subscriptions import Content, Subscriptions
from openems.backend.events import EdgesChanged, EventBus
from openems.backend.interfaces import IDebugLoggable, IEdgeManager, IJsonRpcRequestHandler, IMetadata
from openems.backend.models import User
from openems.backend.rounds import TICK, Rounds
from openems.common.jsonrpc import Request
from openems.common.ratelimit import PerPeer
from openems.websocket.connected import SLOW
from openems.websocket.peer import Connection
from openems.websocket.proxies import TrustedProxies
from openems.websocket.server import WebSocketServer

#: Sessions that are looked after in one tick in any case.
CHECKS_AT_ONCE = 20
#: Seconds after which a session's user is asked for again, and how many of them in one tick.
REVALIDATION = 900.0
REVALIDATIONS_AT_ONCE = 20
MAX_CONNECTIONS = 2000
#: Values (edges times channels) of one subscription, and of the different ones of one user.
MAX_VALUES = 50_000
MAX_VALUES_OF_USER = 500_000
#: Bytes of one message of a client.
MAX_MESSAGE_SIZE = 1024 * 1024


@implementer(IDebugLoggable)
class Backend2BackendWebsocket:
    """``number`` tells several apart in metrics. ``request_limit``: requests a second and user, over all connections to
    this server; None: no limit. ``observe(method, seconds)`` is called for each request, with names out of a closed
    set."""

    _log = Logger()

    def __init__(
        self,
        metadata: IMetadata,
        edge_manager: IEdgeManager,
        handler: IJsonRpcRequestHandler,
        credentials: Credentials,
        *,
        reactor: Any,
        events: EventBus | None = None,
        number: int = 0,
        max_values: int = MAX_VALUES,
        max_connections: int = MAX_CONNECTIONS,
        slow: int = SLOW,
        request_limit: int | None = None,
        observe: Callable[[str, float], None] | None = None,
        proxies: TrustedProxies | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
    ) -> None:
        self.metadata: Any = metadata
        self.handler: Any = handler
        self.credentials = credentials
        self.reactor = reactor
        self.id = f"b2bwebsocket{number}"
        self.max_values = max_values
        self.max_message_size = max_message_size
        self.subscriptions = Subscriptions(edge_manager, reactor=reactor, slow=slow)
        self.sessions: dict[str, Session] = {}
        #: Requests answered; refused because of their rate; connections ended for their credentials, and because there
        #: were too many.
        self.completed = 0
        self.limited = 0
        self.unauthenticated = 0
        self.refused = 0
        self.observe = observe
        #: Told the method, as ``observe``, and one of openems.common.errors.OUTCOMES.
        self.observe_result: Callable[[str, str], None] | None = None
        self._max_connections = max_connections
        self._limit = None if request_limit is None else PerPeer(request_limit, burst=request_limit)
        self.websocket = WebSocketServer(
            NAME,
            self.endpoint,
            reactor=reactor,
            max_message_size=max_message_size,
            proxies=proxies,
            admits=_is_no_foreign_page,
        )
        self._started = False
        self._rounds: Rounds[Session] = Rounds(self.sessions.values, CHECKS_AT_ONCE)
        self._tick_loop = LoopingCall(self._tick)
        self._tick_loop.clock = reactor
        self._events = events
        self._unsubscribe: Callable[[], None] | None = None

    # --- life

    async def start(self, port: int, interface: str = "") -> int:
        """Open the port (0: any); returns the one that was bound. Raises CannotListenError."""
        bound = await self.websocket.listen(port, interface)
        self._started = True
        self._tick_loop.start(TICK, now=False)
        if self._events is not None:
            self._unsubscribe = self._events.subscribe(EdgesChanged, self._edges_changed)
        return bound

    async def stop(self) -> None:
        """Connections get Close 1001. Ends within seconds."""
        self._started = False
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._tick_loop.running:
            self._tick_loop.stop()
        await self.websocket.stop(1001)
        self.credentials.stop()

    def endpoint(self, connection: Connection) -> Session:
        """The endpoint factory."""
        return Session(self, connection)

    def admit(self, session: Session) -> bool:
        """A session's connection is open. False: there are too many. The stranger who has been there for longest makes
        room: nobody keeps others out by logins that take long."""
        if len(self.sessions) >= self._max_connections:
            self.refused += 1
            stranger = next((other for other in self.sessions.values() if other.user is None), None)
            if stranger is None:
                return False
            self.forget(stranger)
            stranger.connection.close(TRY_AGAIN_LATER, TOO_MANY)
        self.sessions[session.id] = session
        return True

    def forget(self, session: Session) -> None:
        self.sessions.pop(session.id, None)
        self.subscriptions.remove(session.connection)

    def answered(self, request: Request, begun: float, result: str) -> None:
        self.completed += 1
        name = label(request.method)
        if self.observe is not None:
            self.observe(name, self.reactor.seconds() - begun)
        if self.observe_result is not None:
            self.observe_result(name, result)

    def may_ask(self, user: User) -> bool:
        """Whether the user has not asked too often."""
        if self._limit is None or self._limit.take(user.id, self.reactor.seconds()):
            return True
        self.limited += 1
        return False

    def may_watch(self, session: Session, user: User, content: Content) -> bool:
        """Whether all different subscriptions of the user together are few enough."""
        contents = {
            other.wanted for other in self.sessions.values() if other is not session and _is_same(other.user, user)
        }
        return sum(c.values for c in contents | {content}) <= MAX_VALUES_OF_USER

    def end_sessions(self, logins: set[str]) -> None:
        """Users that are gone, disabled or have another password; ``logins`` in lower case."""
        for session in tuple(self.sessions.values()):
            if session.user is not None and session.user.id.lower() in logins:
                session.end()

    # --- IDebugLoggable

    def debug_log(self) -> str | None:
        if not self._started:
            return f"[{NAME}] [monitor] NOT STARTED"
        return f"[{NAME}] [monitor] Connections: {len(self.sessions)}, Active: {self._active()}"

    def debug_metrics(self) -> Mapping[str, int | float]:
        subscriptions = self.subscriptions
        return {
            **self.websocket.pool(self.id),
            f"{self.id}/Connections": len(self.sessions),
            f"{self.id}/Active": self._active(),
            f"{self.id}/Completed": self.completed,
            f"{self.id}/Limited": self.limited,
            f"{self.id}/Subscriptions": len(subscriptions),
            f"{self.id}/Groups": subscriptions.groups,
            f"{self.id}/Pushed": subscriptions.pushed,
            f"{self.id}/Encoded": subscriptions.encoded,
            f"{self.id}/Skipped": subscriptions.skipped,
            f"{self.id}/FailedRuns": subscriptions.failed,
            f"{self.id}/Unauthenticated": self.unauthenticated,
            f"{self.id}/Refused": self.refused,
        }

    def _active(self) -> int:
        return sum(session.running for session in self.sessions.values())

    # --- the tick

    def _edges_changed(self, _: EdgesChanged) -> None:
        self._rounds.restart()

    def _tick(self) -> None:
        """Roles and users of whoever's turn it is."""
        now = self.reactor.seconds()
        revalidations = REVALIDATIONS_AT_ONCE
        for session in self._rounds.tick(now):
            try:
                session.check_roles()
            except Exception:
                self._log.failure("{session}: role check failed", session=str(session))
            if revalidations and session.user is not None and session.validated < now - REVALIDATION:
                revalidations -= 1
                Deferred.fromCoroutine(session.revalidate()).addErrback(self._revalidation_failed)

    def _revalidation_failed(self, failure: Failure) -> None:
        self._log.failure("user check failed", failure=failure)


def _is_no_foreign_page(headers: Mapping[str, str]) -> bool:
    """A browser adds a login it knows to a connection that any page opens, and tells of which site that is."""
    return headers.get("sec-fetch-site", "none").lower() in ("none", "same-origin")


def _is_same(one: User | None, other: User) -> bool:
    return one is not None and one.user_id == other.user_id
