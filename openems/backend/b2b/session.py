"""One connection of Backend2Backend.Websocket (b2b.md 3).

The upgrade is accepted, then the credentials of its header are judged. Requests that come meanwhile wait, in order, and
are answered when the user is known. Wrong or missing credentials: Close 1000 ``Authentication failed``, no reply; where
nobody can tell, Close 1013 with the reason: come again.

What may be asked: ``subscribeEdgesChannels`` here, everything else by the core handler as with REST. Who asks too often
gets an error and stays connected. Replies come before the values they cause. Edges to which the user has no role any
more are left out of his values; he himself is looked up again from time to time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.b2b.credentials import Login, websocket_credentials
from openems.backend.b2b.deadline import within
from openems.backend.b2b.subscriptions import Content
from openems.backend.interfaces import IEndpoint
from openems.backend.models import User
from openems.backend.roles import assert_user_role
from openems.common import errors
from openems.common.channel import check_addresses
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import EMPTY, Notification, Request
from openems.common.role import Role
from openems.websocket.peer import DEFAULT_TIMEOUT, Refused

if TYPE_CHECKING:
    from openems.backend.b2b.websocket import Backend2BackendWebsocket
    from openems.websocket.peer import Connection

NAME = "Backend2Backend.Websocket"
SUBSCRIBE = "subscribeEdgesChannels"
AUTHENTICATION_FAILED = "Authentication failed"
TOO_MANY = "Too many connections"
#: Requests that may wait for the end of the login.
MAX_EARLY = 100
MAX_EDGES = 10_000

NORMAL = 1000
TRY_AGAIN_LATER = 1013
_NOTHING = Content((), ())


@implementer(IEndpoint)
class Session:
    """Made by :meth:`Backend2BackendWebsocket.endpoint` for each connection."""

    _log = Logger()

    def __init__(self, server: Backend2BackendWebsocket, connection: Connection) -> None:
        self.connection = connection
        self.id = connection.id
        self.user: User | None = None
        #: What was subscribed; what is sent lacks the edges without a role.
        self.wanted = _NOTHING
        self.running = 0
        #: When metadata last confirmed the user, in the reactor's seconds.
        self.validated = server.reactor.seconds()
        self._server = server
        self._last_count = -(2**31)
        self._login: Deferred[Any] | None = None
        self._still_valid: Callable[[], Awaitable[bool]] | None = None
        self._early: list[Deferred[User]] = []
        self._closed = False

    def __str__(self) -> str:
        user_id = "UNDEFINED" if self.user is None else self.user.id
        return f"B2bWebsocket.WsData [user={user_id}]"

    # --- IEndpoint

    def opened(self) -> None:
        if not self._server.admit(self):
            raise Refused(TRY_AGAIN_LATER, TOO_MANY)
        credentials = websocket_credentials(self.connection.headers.get("authorization", ""))
        if credentials is None:
            self._server.unauthenticated += 1
            raise Refused(NORMAL, AUTHENTICATION_FAILED)
        login = Deferred.fromCoroutine(self._server.credentials.login(*credentials, self.connection.remote))
        # A login that ends at once has opened() still running: close what it refuses after that.
        login.addCallbacks(self._logged_in, self._not_logged_in)
        if not login.called:
            self._login = login
            # A login may take long; what strangers send meanwhile is kept up to the size of one message.
            self.connection.restrict(self._server.max_message_size, self._server.max_message_size)

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Request) -> Any:
        self.running += 1
        begun, result = self._server.reactor.seconds(), "error"
        try:
            answer = await self._handle(request)
            result = "ok"
            return answer
        except TimeoutError:
            result = "timeout"
            raise generic(f"Timeout after [{DEFAULT_TIMEOUT:g} s]") from None
        except CancelledError:
            result = "cancelled" if self._closed or not self.connection.is_open else "timeout"
            raise
        except OpenemsError as e:
            result = errors.outcome(e)
            raise
        finally:
            self.running -= 1
            self._server.answered(request, begun, result)

    async def _handle(self, request: Request) -> Any:
        user = await self._known_user()
        if not self._server.may_ask(user):
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        if request.method == SUBSCRIBE:
            return self._subscribe(user, request)
        # A time the client names is kept by the connection itself.
        own = request.timeout is not None and request.timeout > 0
        work = self._server.handler.handle_request(NAME, user, request)
        answer = await within(self._server.reactor, None if own else DEFAULT_TIMEOUT, work)
        if answer is None:
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, request.method)
        return answer

    def notification(self, notification: Notification) -> None:
        raise generic("Unhandled Notification")

    def closed(self) -> None:
        self._closed = True
        if self._login is not None:
            self._login.cancel()
        self._server.forget(self)

    # --- login

    def _logged_in(self, login: Login) -> None:
        self._login = None
        if self._closed or not self.connection.is_open:
            return
        self.connection.trust()
        self.user = user = login.user
        self._still_valid = login.still_valid
        self._log.info(
            "{name} {remote}: user [{user}] logged in", name=NAME, remote=self.connection.remote, user=user.id
        )
        early, self._early = self._early, []
        for waiting in early:
            if not waiting.called:
                waiting.callback(user)

    def _not_logged_in(self, failure: Failure) -> None:
        self._login = None
        self._server.unauthenticated += 1
        error = failure.value
        if not self._closed:
            if isinstance(error, OpenemsError) and error.code == errors.COMMON_AUTHENTICATION_FAILED:
                self.connection.close(NORMAL, AUTHENTICATION_FAILED)
            else:
                reason = error.message if isinstance(error, OpenemsError) else "Internal error"
                self.connection.close(TRY_AGAIN_LATER, reason)
        early, self._early = self._early, []
        for waiting in early:
            if not waiting.called:
                waiting.errback(_unknown())

    async def _known_user(self) -> User:
        if self.user is not None:
            return self.user
        if len(self._early) >= MAX_EARLY or self._login is None:
            raise _unknown()
        waiting: Deferred[User] = Deferred()
        self._early.append(waiting)
        return await waiting

    async def revalidate(self) -> None:
        """Ask for the user again, where his password is judged, too; one that is gone is logged out (auth.md S16).
        Trouble of whoever is asked changes nothing."""
        user = self.user
        if user is None:
            return
        self.validated = self._server.reactor.seconds()
        try:
            if self._still_valid is not None and not await self._still_valid():
                raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
            found = await self._server.metadata.get_user_by_external_id(user.user_id)
        except OpenemsError as e:
            if e.code == errors.COMMON_AUTHENTICATION_FAILED:
                self.end()
            return
        if self.user is user:
            self.user = found

    def end(self) -> None:
        """The user or his password has changed."""
        self.connection.close(NORMAL, AUTHENTICATION_FAILED)

    # --- subscription

    def _subscribe(self, user: User, request: Request) -> Raw:
        members = request.members()
        count = members.integer("count")
        edges = tuple(sorted(set(members.strings("ids"))))
        content = Content(edges, tuple(check_addresses(members.strings("channels"))))
        if len(edges) > MAX_EDGES or content.values > self._server.max_values:
            raise generic(
                f"Too many values: {len(edges)} edges with {len(content.channels)} channels, "
                f"at most {self._server.max_values} values and {MAX_EDGES} edges"
            )
        for edge_id in edges:
            assert_user_role(self._server.metadata, user, edge_id, Role.GUEST, request.method)
        if count <= self._last_count:
            return EMPTY
        if not self._server.may_watch(self, user, content):
            raise generic("Too many values: the limit for all connections of the user is reached")
        self._last_count = count
        self.wanted = content
        # Also the same again begins anew, with values at once.
        self._server.subscriptions.remove(self.connection)
        # The reply goes first.
        self._server.reactor.callLater(0, self.check_roles)
        return EMPTY

    def check_roles(self) -> None:
        """Send what was subscribed and is still allowed; an edge whose role came back comes back."""
        user = self.user
        if user is None or self._closed or not self.connection.is_open:
            return
        role = self._server.metadata.get_user_role
        edges = tuple(e for e in self.wanted.edges if role(user, e) is not None)
        content = self.wanted if len(edges) == len(self.wanted.edges) else Content(edges, self.wanted.channels)
        current = self._server.subscriptions.content(self.connection)
        if content != current and (content.values or current is not None):
            self._server.subscriptions.set(self.connection, content)


def _unknown() -> OpenemsError:
    return OpenemsError(errors.COMMON_USER_NOT_AUTHENTICATED, "UNKNOWN")
