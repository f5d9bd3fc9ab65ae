"""Ui.Websocket: the UIs' server and what the edge side tells them (ui.md 1, 2, 14).

The port opens when metadata is initialised, not before (ui.md 2.1). At the end pending requests are answered with an
error and TCP is dropped without a Close frame: after a clean close the UI would not come back (ui.md 15.3).
"""

from __future__ import annotations

import random as random_
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.authentication.attempts import Attempts
from openems.backend.events import EdgesChanged, EventBus, MetadataInitialized
from openems.backend.interfaces import (
    IAuthUserAuthorizationCodeFlowService,
    IAuthUserPasswordAuthenticationService,
    IAuthUserRegistrationService,
    IDebugLoggable,
    IEdgeManager,
    IJsonRpcRequestHandler,
    IMetadata,
    IUiWebsocket,
)
from openems.backend.rounds import TICK, Rounds
from openems.backend.ui.login import Logins
from openems.backend.ui.session import Session
from openems.backend.ui.subscriptions import Subscriptions, edge_rpc
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification
from openems.common.ratelimit import PerPeer
from openems.websocket.connected import SLOW
from openems.websocket.peer import Connection
from openems.websocket.proxies import TrustedProxies
from openems.websocket.server import MAX_MESSAGE_SIZE, WebSocketServer

NAME = "Ui.Websocket"
ID = "uiwebsocket0"
#: Sessions that are looked after in one tick in any case; watchers that were behind are with each.
CHECKS_AT_ONCE = 100
#: Seconds after which a session's user is asked for again, and how many of them in one tick.
REVALIDATION = 900.0
REVALIDATIONS_AT_ONCE = 50
#: Seconds until a port that was in use is tried again.
RETRY = 5.0
#: Seconds the last replies have to leave before TCP is dropped.
FLUSH = 1.0
FLUSH_STEP = 0.05
MAX_CONNECTIONS = 20_000
#: Sessions that a user keeps though all places are taken; of more the oldest makes room: anybody may register, and one
#: must not take the places of all.
FAIR_SHARE = 100
#: Bytes that may wait for a slow reader before his connection is dropped.
SEND_LIMIT = 16 * 1024 * 1024


@implementer(IUiWebsocket, IDebugLoggable)
class UiWebsocket:
    """``observe(method, seconds)`` is called for each request, with names out of a bounded set."""

    _log = Logger()

    def __init__(
        self,
        metadata: IMetadata,
        edge_manager: IEdgeManager,
        handler: IJsonRpcRequestHandler,
        *,
        reactor: Any,
        password: IAuthUserPasswordAuthenticationService | None = None,
        code_flow: IAuthUserAuthorizationCodeFlowService | None = None,
        registration: IAuthUserRegistrationService | None = None,
        simulation: Any = None,
        events: EventBus | None = None,
        request_limit: int = 20,
        max_connections: int = MAX_CONNECTIONS,
        slow: int = SLOW,
        observe: Callable[[str, float], None] | None = None,
        random: random_.Random | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        proxies: TrustedProxies | None = None,
        attempts: Attempts | None = None,
        origins: Collection[str] = (),
        revalidation: float = REVALIDATION,
        max_session_age: float = 0.0,
    ) -> None:
        self.metadata: Any = metadata
        self.edge_manager: Any = edge_manager
        self.handler: Any = handler
        self.simulation = simulation
        self.reactor = reactor
        self.request_limit = request_limit
        self.slow = slow
        self.observe = observe
        #: Told the method, as ``observe``, and one of openems.common.errors.OUTCOMES.
        self.observe_result: Callable[[str, str], None] | None = None
        self.random = random or random_.SystemRandom()
        self.logins = Logins(
            metadata,
            password=password,
            code_flow=code_flow,
            registration=registration,
            reactor=reactor,
            attempts=attempts,
        )
        self.subscriptions = Subscriptions(self.edge_manager, slow=slow)
        self.sessions: dict[str, Session] = {}
        #: Sessions of each user that is logged in.
        self.users: Counter[str] = Counter()
        self.stopping = False
        #: Setup passwords that are tried: of a user, and of an address, where anybody may register user after user.
        self.setup_attempts = PerPeer(10 / 60, burst=10)
        self.setup_attempts_of_address = PerPeer(30 / 60, burst=30)
        #: Requests refused with 4005, notifications dropped, system-log lines not sent to slow readers, connections
        #: refused.
        self.limited = 0
        self.dropped_notifications = 0
        self.dropped_lines = 0
        self.refused = 0
        self._max_connections = max_connections
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._revalidation = revalidation
        self._max_session_age = max_session_age
        self.websocket = WebSocketServer(
            NAME,
            self.endpoint,
            reactor=reactor,
            max_message_size=max_message_size,
            send_limit=SEND_LIMIT,
            proxies=proxies,
            admits=self._admits,
        )
        self._started = False
        self._rounds: Rounds[Session] = Rounds(self.sessions.values, CHECKS_AT_ONCE)
        self._tick_loop = LoopingCall(self._tick)
        self._tick_loop.clock = reactor
        self._events = events
        self._unsubscribe: list[Callable[[], None]] = []
        self._retry: Any = None

    # --- life

    async def start(self, port: int, interface: str = "") -> int | None:
        """Open the port; returns the bound one, or None if it opens later, when metadata is initialised.

        Raises CannotListenError, naming the port, if it is in use.
        """
        self.stopping = False
        if not self._tick_loop.running:
            self._tick_loop.start(TICK, now=False)
        if self._events is not None:
            self._unsubscribe.append(self._events.subscribe(EdgesChanged, self._edges_changed))
        if self.metadata.initialized or self._events is None:
            return await self._listen(port, interface)
        self._log.info("{name}: port {port} opens when metadata is initialised", name=NAME, port=port)
        self._unsubscribe.append(
            self._events.subscribe(MetadataInitialized, lambda _: self._listen_later(port, interface))
        )
        return None

    async def stop(self) -> None:
        """Answer what is pending, then drop all connections. Ends within seconds."""
        self.stopping = True
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._tick_loop.running:
            self._tick_loop.stop()
        await self.websocket.stop_listening()
        for session in tuple(self.sessions.values()):
            session.answer_pending(OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE))
        # Dropping TCP throws away what is still queued, so give it a moment; a full transport shows in ``waiting``.
        end = self.reactor.seconds() + FLUSH
        while self.sessions:
            await deferLater(self.reactor, FLUSH_STEP)
            if self.reactor.seconds() >= end or not any(s.connection.waiting for s in self.sessions.values()):
                break
        await self.websocket.stop(None)
        self._started = False

    async def _listen(self, port: int, interface: str) -> int:
        bound = await self.websocket.listen(port, interface)
        self._started = True
        return bound

    def _listen_later(self, port: int, interface: str) -> None:
        if self._started or self.stopping:
            return

        async def listen() -> None:
            try:
                await self._listen(port, interface)
            except CannotListenError as e:
                self._log.error(
                    "{name}: unable to open port {port}: {reason}; next try in {seconds} s",
                    name=NAME, port=port, reason=str(e.socketError), seconds=RETRY,
                )  # fmt: skip
                self._retry = self.reactor.callLater(RETRY, self._listen_later, port, interface)

        Deferred.fromCoroutine(listen()).addErrback(lambda f: self._log.failure("start failed", failure=f))

    def endpoint(self, connection: Connection) -> Session:
        """The endpoint factory."""
        return Session(self, connection)

    def _admits(self, headers: Mapping[str, str]) -> bool:
        """Whether a page of that origin may connect (auth.md S25). What is no browser sends none."""
        origin = headers.get("origin")
        if not self._origins or origin is None or origin.lower() in self._origins:
            return True
        self.refused += 1
        return False

    def admit(self, session: Session) -> bool:
        """A session's connection is open. False: there are too many, or the server stops."""
        if self.stopping:
            self.refused += 1
            return False
        if len(self.sessions) >= self._max_connections:
            self.refused += 1
            other = self._in_the_way()
            if other is None:
                return False
            other.end("")
            self.forget(other)
        self.sessions[session.id] = session
        return True

    def _in_the_way(self) -> Session | None:
        """Who has to make room: the stranger who has been there for longest, else the oldest session of the user who
        has the most. Nobody keeps others out by taking all places."""
        # They are in the order of their coming.
        stranger = next((session for session in self.sessions.values() if session.user is None), None)
        if stranger is not None:
            return stranger
        if not self.users:
            return None
        user_id, number = max(self.users.items(), key=lambda entry: entry[1])
        if number <= FAIR_SHARE:
            return None
        return next(
            (session for session in self.sessions.values() if session.user and session.user.user_id == user_id), None
        )

    def logged_out(self, user_id: str) -> None:
        self.users[user_id] -= 1
        if not self.users[user_id]:
            del self.users[user_id]

    def forget(self, session: Session) -> None:
        self.sessions.pop(session.id, None)

    # --- IUiWebsocket

    def send(self, session_id: str, edge_id: str, notification: Notification) -> bool:
        session = self.sessions.get(session_id)
        return session is not None and session.forward(edge_id, notification)

    def send_broadcast(self, edge_id: str, notification: Notification) -> None:
        watchers = self.subscriptions.watchers(edge_id)
        if not watchers:
            return
        text = edge_rpc(edge_id, notification)
        for watcher in watchers:
            watcher.connection.send(text)

    def send_subscribed_channels(self, edge_id: str) -> None:
        self.subscriptions.push(edge_id)

    # --- IDebugLoggable

    def debug_log(self) -> str | None:
        if not self._started:
            return f"[{NAME}] [monitor] NOT STARTED"
        return f"[{NAME}] [monitor] Connections: {len(self.sessions)}, {self.websocket.pool_text()}"

    def debug_metrics(self) -> Mapping[str, int | float]:
        return {
            **self.websocket.pool(ID),
            f"{ID}/Connections": len(self.sessions),
            f"{ID}/Active": self._active(),
            f"{ID}/Pushed": self.subscriptions.pushed,
            f"{ID}/Superseded": self.subscriptions.superseded,
            f"{ID}/Limited": self.limited,
            f"{ID}/DroppedNotifications": self.dropped_notifications,
            f"{ID}/DroppedLines": self.dropped_lines,
            f"{ID}/Refused": self.refused,
        }

    def _active(self) -> int:
        return sum(session.running for session in self.sessions.values())

    # --- the tick

    def _tick(self) -> None:
        try:
            self.subscriptions.catch_up()
            self._check_sessions()
        except Exception:
            self._log.failure("{name}: tick failed", name=NAME)

    def _edges_changed(self, _: EdgesChanged) -> None:
        self._rounds.restart()

    def _check_sessions(self) -> None:
        """Roles and users of whoever's turn it is."""
        now = self.reactor.seconds()
        revalidations = REVALIDATIONS_AT_ONCE
        for session in self._rounds.tick(now):
            if session.user is None:
                continue
            try:
                session.check_roles()
            except Exception:
                self._log.failure("{session}: role check failed", session=str(session))
            if self._max_session_age and session.since <= now - self._max_session_age:
                session.end("it is too old")
                continue
            if revalidations and session.validated < now - self._revalidation:
                revalidations -= 1
                Deferred.fromCoroutine(session.revalidate()).addErrback(self._revalidation_failed)

    def _revalidation_failed(self, failure: Failure) -> None:
        self._log.failure("user check failed", failure=failure)
