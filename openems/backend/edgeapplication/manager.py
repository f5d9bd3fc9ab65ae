"""The manager as an edge application sees it: one connection for all edges (edge.md 2.7 to 2.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.edgeapplication import wrapping
from openems.backend.edgeapplication.outbox import OfConnection
from openems.backend.interfaces import IEndpoint
from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError, as_openems_error, generic, short
from openems.common.jsonrpc import Failed, Malformed, Notification, Request, Success
from openems.websocket.peer import Connection

if TYPE_CHECKING:
    from openems.backend.edgeapplication.application import EdgeApplication

#: Seconds until a request is given up that names no time of its own. Longer than what an edge waits for the app
#: center, and than what a manager waits for an edge; it is there so that nothing waits for ever.
PATIENCE = 330.0
#: Seconds given beyond the time that a request names: the peer that named it is to give up first.
GRACE = 5.0
#: The longest time that is believed.
MAX_TIMEOUT = 3600
#: Requests of edges that may wait for the manager.
MAX_PENDING = 20_000


@implementer(IEndpoint)
class ManagerEndpoint:
    def __init__(self, connection: Connection, application: EdgeApplication) -> None:
        self.connection = connection
        self._application = application
        self._reactor = application.reactor
        #: Requests of edges that went up: id on this link -> who waits, and the call that ends it.
        self._pending: dict[str, tuple[Deferred[Raw], Any]] = {}

    def opened(self) -> None:
        self.connection.on_flow = self._flows
        self._application.manager_opened(self)

    def closed(self) -> None:
        self._application.manager_closed(self)
        while self._pending:
            _, (waiting, deadline) = self._pending.popitem()
            deadline.cancel()
            waiting.errback(generic("Websocket connection closed"))

    def _flows(self, flowing: bool) -> None:
        self._application.manager_flows(self, flowing)

    # What comes down

    def received(self, text: bytes) -> bool:
        try:
            if not text.isascii():
                text.decode()
            message = jsonrpc.parse(text)
        except (Malformed, UnicodeDecodeError):
            return False  # the connection itself knows what to do
        if isinstance(message, Success | Failed):
            return self._answered(message)
        if message.method != wrapping.EDGE_RPC:
            return False
        self._application.count_down(text)
        try:
            if isinstance(message, Request):
                self._pass_on(message)
            else:
                edge_id, payload = wrapping.notification_for_edge(message.params)
                edge = self._application.fleet.edges.get(edge_id)
                if edge is not None:
                    edge.connection.send(payload)
        except OpenemsError as e:
            if isinstance(message, Request):
                self._reply(Failed(message.id, e))
            else:
                self._application.complain("manager", f"edgeRpc: {e.message}")
        return True

    def notification(self, notification: Notification) -> None:
        if notification.method == "updateMetadataCache":
            self._application.keys_received(wrapping.apikeys(notification))
        else:
            self._application.complain("manager", f"Unhandled Notification: {short(notification.method, 100)}")

    async def request(self, request: Request) -> None:
        """``edgeRpc`` does not come here: 4001."""
        return None

    def _pass_on(self, request: Request) -> None:
        edge_id, payload = wrapping.request_for_edge(request.params)
        edge = self._application.fleet.edges.get(edge_id)
        if edge is None:
            raise OpenemsError(errors.JSONRPC_SEND_FAILED)
        named = wrapping.longest_timeout(request.timeout, payload)
        patience = PATIENCE if named is None else min(named, MAX_TIMEOUT) + GRACE
        if request.timeout is not None and request.timeout > 0:
            patience = min(request.timeout, MAX_TIMEOUT)
        asked = edge.connection.request(
            payload.method, payload.params, timeout=patience, id=payload.id, wire_timeout=payload.timeout
        )

        def answered(result: Raw) -> None:
            self._reply(Success(request.id, wrapping.answer(payload.id, result)))

        def failed(failure: Failure) -> None:
            self._reply(Failed(request.id, as_openems_error(failure.value or Exception())))

        asked.addCallbacks(answered, failed)

    def _reply(self, reply: Success | Failed) -> None:
        # Through the same queue as everything else, so that it does not overtake what the edge said before.
        if self.connection.is_open:
            self._application.send(OfConnection(reply.encode()))

    # What goes up and waits for an answer

    def ask(self, edge_id: str, request: Request) -> Deferred[Raw]:
        """The ``result`` that an edge's request gets (edge.md 2.6). Fails with 4004, 5003, the manager's own error, or
        code 1 after :data:`PATIENCE` or when the connection is lost."""
        if len(self._pending) >= MAX_PENDING:
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        request_id = jsonrpc.new_id()

        def forget(_: Deferred[Raw]) -> None:
            entry = self._pending.pop(request_id, None)
            if entry is not None:
                entry[1].cancel()

        def expire() -> None:
            self._pending.pop(request_id)[0].errback(generic(f"No answer to [{request.method}]"))

        named = request.timeout if request.timeout is not None and request.timeout > 0 else None
        patience = PATIENCE if named is None else min(named, MAX_TIMEOUT) + GRACE
        waiting: Deferred[Raw] = Deferred(forget)
        self._pending[request_id] = (waiting, self._reactor.callLater(patience, expire))
        waiting.addCallback(wrapping.result_of_answer)
        self._application.send(OfConnection(wrapping.request(edge_id, request, request_id)))
        return waiting

    def _answered(self, message: Success | Failed) -> bool:
        entry = self._pending.pop(message.id, None)
        if entry is None:
            return False
        waiting, deadline = entry
        deadline.cancel()
        if isinstance(message, Success):
            waiting.callback(message.result)
        else:
            waiting.errback(message.error)
        return True
