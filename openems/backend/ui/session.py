"""One UI connection: who is logged in, what he asks, what he is told (ui.md 2 to 14).

What happens to a request, in this order (ui.md 4.1):

1. ``authenticateWith...``, ``registerUser``, ``logout``: without login, and not limited by the session's bucket.
2. All others but ``edgeRpc``: the rate limit, else 4005.
3. Without a user: 1001. A session has a user or it has none; nothing else is asked for (ui.md 19, 1).
4. The method, of :mod:`openems.backend.ui.methods` or of the core handler (4001 if nobody knows it), which checks the
   role for the edge.

Logins and logouts of a session run one after the other, and requests that arrive meanwhile wait for their end: they are
judged by the user that was to be when they were sent. User and token change together, only after a login has fully
succeeded; subscriptions end with every change.

Every request gets exactly one reply; pushes go to a session only as long as its user has a role for the edge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.interfaces import IEndpoint
from openems.backend.models import User
from openems.backend.ui import parameters
from openems.backend.ui.labels import label
from openems.backend.ui.login import LoggedIn
from openems.backend.ui.methods import HANDLERS
from openems.backend.ui.methods.authentication import authenticate
from openems.backend.ui.methods.setup import OwnProtocols
from openems.backend.ui.subscriptions import Watcher, edge_rpc
from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError, generic, outcome, printable
from openems.common.jsonrpc import EMPTY, Notification, Request
from openems.common.methods import names
from openems.common.ratelimit import TokenBucket
from openems.common.role import Role
from openems.websocket.peer import Refused

if TYPE_CHECKING:
    from openems.backend.ui.server import UiWebsocket
    from openems.websocket.peer import Connection

#: logMessage notifications a second (ui.md 4.2).
LOG_MESSAGES = 5.0
#: Seconds for which the result of an OAuth code is repeated on the same connection (ui.md 19, 9).
CODE_RESULT = 5.0
CONTEXT = "Ui.Websocket"
#: Of whoever is not logged in: bytes of a message; of requests under way, and of replies he does not read.
MESSAGE_OF_STRANGER = 64 * 1024
WAITING_OF_STRANGER = 256 * 1024
#: Logins and logouts that may wait for the one under way.
MAX_LOGINS = 20


@implementer(IEndpoint)
class Session:
    """Made by :meth:`UiWebsocket.endpoint` for each connection."""

    _log = Logger()

    def __init__(self, server: UiWebsocket, connection: Connection) -> None:
        now = server.reactor.seconds()
        self.server = server
        self.connection = connection
        self.id = connection.id
        self.user: User | None = None
        self.token: str | None = None
        self.watcher = Watcher(connection)
        self.system_logs: set[str] = set()
        #: Setup protocols that are the user's own.
        self.protocols = OwnProtocols()
        #: When metadata last confirmed the user, in the reactor's seconds.
        self.validated = now
        #: When the user logged in.
        self.since = now
        self._requests = TokenBucket(server.request_limit, now=now)
        self._log_messages = TokenBucket(LOG_MESSAGES, now=now)
        self._login = DeferredLock()
        self._closed = False
        self._code_result: tuple[str, str, float, dict[str, Any]] | None = None
        self._replies: dict[Deferred[Any], Deferred[Any]] = {}

    def __str__(self) -> str:
        """For log lines; the token itself never gets there (ui.md 19, 20)."""
        user_id = "UNKNOWN" if self.user is None else self.user.user_id
        return f"UiWebsocket.WsData [userId={user_id}, token={'UNKNOWN' if self.token is None else 'HIDDEN'}]"

    # --- IEndpoint

    def opened(self) -> None:
        if not self.server.admit(self):
            raise Refused()
        self.connection.restrict(MESSAGE_OF_STRANGER, WAITING_OF_STRANGER)

    def received(self, text: bytes) -> bool:
        return False

    def request(self, request: Request) -> Awaitable[Any]:
        work = Deferred.fromCoroutine(self._observed(request))
        if work.called:
            return work
        # The reply is a Deferred of its own, so that a stopping server can answer before the work is done.
        reply: Deferred[Any] = Deferred(lambda _: work.cancel())
        self._replies[reply] = work

        def done(result: Any) -> None:
            self._replies.pop(reply, None)
            if not reply.called:
                if isinstance(result, Failure):
                    reply.errback(result)
                else:
                    reply.callback(result)

        work.addBoth(done)
        return reply

    def notification(self, notification: Notification) -> None:
        """Only logMessage exists (ui.md 13). The lines of one peer's nonsense are limited by the connection."""
        now = self.server.reactor.seconds()
        if notification.method != "logMessage":
            if self._requests.take(now):
                raise generic("Unhandled Notification")
            self.server.dropped_notifications += 1
            return
        if not self._log_messages.take(now):
            self.server.dropped_notifications += 1
            return
        level, text = parameters.log_message(notification.members())
        user = self.user
        # Users choose their names.
        who = "NOT AUTHENTICATED" if user is None else printable(f"{user.id}:{user.name}")
        self._log.info("User [{who}] {severity}-Message: {text}", who=who, severity=level, text=text)

    def closed(self) -> None:
        self._closed = True
        self.server.forget(self)
        if self.token is not None:
            self.server.logins.connection_closed(self.token)
        self._forget_user()

    # --- for the server

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._replies)

    def answer_pending(self, error: OpenemsError) -> int:
        """The server stops: answer what is under way; the number of requests."""
        pending = list(self._replies.items())
        self._replies.clear()
        for reply, work in pending:
            reply.errback(error)
            work.cancel()
        return len(pending)

    def forward(self, edge_id: str, notification: Notification) -> bool:
        """A notification of an edge for this session alone: a line of the system log (ui.md 10.4). False if nobody is
        logged in any more or may not see it."""
        if notification.method == "systemLog":
            if not self.may(edge_id, Role.OWNER):
                return False
            if self.connection.waiting > self.server.slow:
                self.server.dropped_lines += 1
                return True
            notification = parameters.with_exact_time(notification)
        elif not self.may(edge_id, Role.GUEST):
            return False
        return self.connection.send(edge_rpc(edge_id, notification))

    def check_roles(self) -> None:
        """End the subscriptions of edges for which the user has no role any more (ui.md 19, 3)."""
        subscriptions = self.server.subscriptions
        lost = [edge_id for edge_id in self.watcher.edges if not self.may(edge_id, Role.GUEST)]
        if lost:
            self._log.info(
                "{session}: role withdrawn for {edges}", session=str(self), edges=", ".join(sorted(lost)[:5])
            )
            subscriptions.set_edges(self.watcher, self.watcher.edges.difference(lost))
        for edge_id in [edge_id for edge_id in self.watcher.channels if not self.may(edge_id, Role.GUEST)]:
            subscriptions.set_channels(self.watcher, edge_id, ())
        for edge_id in [edge_id for edge_id in self.system_logs if not self.may(edge_id, Role.OWNER)]:
            self._end_system_log(edge_id)

    async def revalidate(self) -> None:
        """Take over what changed in the user; end the session if he is gone (ui.md 19, 4): by dropping TCP, so that
        the UI comes back and gets 1003 for its token."""
        user = self.user
        self.validated = self.server.reactor.seconds()
        if user is None:
            return
        try:
            if not await self.server.logins.still_valid(self.token, user.user_id):
                raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
            changed = await self.server.metadata.get_user_by_external_id(user.user_id)
        except OpenemsError as e:
            if e.code == errors.COMMON_AUTHENTICATION_FAILED and self.user is user:
                self.end("the user does not exist any more")
            return
        self.changed(user, changed)

    def end(self, reason: str) -> None:
        """By dropping TCP, without a Close frame: the UI comes back then, and has to log in. Without a reason: no line,
        strangers can cause any number of these."""
        if reason:
            self._log.info("{session}: dropped, {reason}", session=str(self), reason=reason)
        if self.token is not None:
            self.server.logins.connection_closed(self.token)
        self._forget_user()
        self.connection.drop()

    def may(self, edge_id: str, required: Role) -> bool:
        user = self.user
        if user is None:
            return False
        role = self.server.metadata.get_user_role(user, edge_id)
        return role is not None and role.is_at_least(required)

    # --- dispatch

    async def _observed(self, request: Request) -> Any:
        observe = self.server.observe
        if observe is None:
            return await self._handle(request)
        begun = self.server.reactor.seconds()
        result = "error"
        try:
            answer = await self._handle(request)
            result = "ok"
            return answer
        except OpenemsError as e:
            result = outcome(e)
            raise
        except CancelledError:
            result = "cancelled"
            raise
        finally:
            name = label(request)
            observe(name, self.server.reactor.seconds() - begun)
            if self.server.observe_result is not None:
                self.server.observe_result(name, result)

    async def _handle(self, request: Request) -> Any:
        server = self.server
        if server.stopping:
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        method = request.method
        if method in names.AUTHENTICATION:
            return await authenticate(self, request)
        if method != "edgeRpc" and not self._requests.take(server.reactor.seconds()):
            server.limited += 1
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        if self._login.locked:
            await self._login.acquire()
            self._login.release()
        if self.user is None or self._closed:
            if not server.metadata.initialized:
                raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
            raise OpenemsError(errors.COMMON_USER_NOT_AUTHENTICATED, "[user]")
        handler = HANDLERS.get(method)
        if handler is None:
            return await self.ask_core(self.user, request)
        # Encoded here: a reply that cannot be built is this request's error (T043 of every reply builder).
        return jsonrpc.raw(await handler(self, self.user, request))

    async def ask_core(self, user: User, request: Request) -> Any:
        return await self.server.handler.handle_request(CONTEXT, user, request)

    # --- logins (ui.md 5, 6)

    async def exclusive(self, work: Callable[[], Awaitable[Any]]) -> Any:
        if len(self._login.waiting) >= MAX_LOGINS:
            self.server.limited += 1
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        await self._login.acquire()
        try:
            return await work()
        finally:
            self._login.release()

    async def log_in(self, login: Awaitable[LoggedIn]) -> dict[str, Any]:
        logged_in = await login
        if self._closed:
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        self._forget_user()
        self.server.users[logged_in.user.user_id] += 1
        self.user, self.token = logged_in.user, logged_in.token
        self.connection.trust()
        self.validated = self.since = self.server.reactor.seconds()
        self._log.info("{session} {remote}: logged in", session=str(self), remote=self.connection.remote)
        return logged_in.result

    async def log_in_by_code(self, payload: Request) -> dict[str, Any]:
        # The UI may send the same code again at the next change of its state, and would log out at a refusal.
        members = payload.members()
        identifier, code = members.optional_string("identifier"), members.optional_string("code")
        now = self.server.reactor.seconds()
        known = self._code_result
        if known is not None and known[:2] == (identifier, code) and now - known[2] < CODE_RESULT:
            return known[3]
        result = await self.log_in(self.server.logins.oauth_by_code(payload, self.connection.remote))
        if identifier is not None and code is not None:
            self._code_result = (identifier, code, self.server.reactor.seconds(), result)
        return result

    async def log_out(self) -> Raw:
        token = self.token
        self._forget_user()
        self.connection.restrict(MESSAGE_OF_STRANGER, WAITING_OF_STRANGER)
        if token is not None:
            self.server.logins.logout(token)
        return EMPTY

    def _forget_user(self) -> None:
        """Everything that belongs to the user, subscriptions first: nothing is pushed to nobody."""
        self.server.subscriptions.remove(self.watcher)
        if self.system_logs:
            self.system_logs.clear()
            self.server.edge_manager.unsubscribe_system_logs(self.id)
        if self.user is not None:
            self.server.logged_out(self.user.user_id)
        self.user = None
        self.token = None
        self._code_result = None
        self.protocols.clear()

    def _end_system_log(self, edge_id: str) -> None:
        user = self.user
        self.system_logs.discard(edge_id)
        if user is None:
            return
        request = Request("subscribeSystemLog", Raw(b'{"subscribe":false}'), jsonrpc.new_id())

        async def unsubscribe() -> None:
            await self.server.edge_manager.subscribe_system_log(edge_id, user, Role.GUEST, self.id, request)

        def failed(failure: Failure) -> None:
            # The subscription is forgotten in any case; whether the edge was there to hear it does not matter here.
            if not isinstance(failure.value, OpenemsError):
                self._log.failure("{edge}: end of system log failed", failure=failure, edge=edge_id)

        Deferred.fromCoroutine(unsubscribe()).addErrback(failed)

    def changed(self, user: User, changed: User) -> None:
        # The answer may come after another login.
        if self.user is not None and self.user.user_id == user.user_id:
            self.user = changed
