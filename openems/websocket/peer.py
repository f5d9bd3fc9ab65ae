"""One JSON-RPC peer over WebSocket: the same class behind every server and client (wire.md 3).

What it promises:

- ``opened`` comes first, then the messages in the order they arrived, ``closed`` last.
- Requests of a connection are *started* in order; a slow one may be overtaken. Each is answered exactly once, also when
  its handler fails or building the reply fails; never after the connection is gone.
- A request we send always ends: with the peer's answer, at its deadline, or when the connection closes.
- Nothing a peer sends that is no valid message closes the connection or gets a reply (wire.md 1.6), except invalid
  UTF-8 (Close 1007) and a message over the size limit (Close 1009).
- What waits for a slow reader is bounded: over ``send_limit`` bytes the connection is dropped.
- Requests under way are bounded in number and bytes: further ones get 4005.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Raw
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger

from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError, as_openems_error, generic, printable, short
from openems.common.jsonrpc import Failed, Malformed, Notification, Request, Success

#: Seconds a request of ours waits for its answer where the caller names no time.
DEFAULT_TIMEOUT = 60.0
#: Requests of ours that may wait for answers on one connection.
MAX_PENDING = 10_000
#: Requests of a peer that may be under way on one connection.
MAX_RUNNING = 2_000
#: Bytes of those requests; a single one may be longer.
MAX_RUNNING_BYTES = 64 * 1024 * 1024
#: Bytes that may wait for a slow reader before its connection is dropped.
SEND_LIMIT = 64 * 1024 * 1024
#: Lines about nonsense that one connection may cause.
MAX_COMPLAINTS = 5


class Refused(Exception):
    """An endpoint does not want this connection. ``close_code`` None: TCP is dropped without a Close frame."""

    def __init__(self, close_code: int | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.reason = reason


class Wire(Protocol):
    """What carries a connection's texts: an Autobahn protocol, or a fake."""

    @property
    def waiting(self) -> int: ...
    def write_text(self, text: bytes) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def drop(self, *, abort: bool = True) -> None: ...
    def invalid_utf8(self) -> None: ...
    def limit_messages(self, size: int | None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Connection:
    """The domain's handle on one peer."""

    __slots__ = (
        "_complaints",
        "_endpoint",
        "_observe",
        "_pending",
        "_reactor",
        "_restricted",
        "_running",
        "_running_bytes",
        "_send_limit",
        "_wire",
        "headers",
        "id",
        "is_open",
        "name",
        "on_flow",
        "remote",
    )
    _log = Logger()

    def __init__(
        self,
        wire: Wire,
        *,
        name: str,
        headers: Mapping[str, str],
        remote: str,
        reactor: Any,
        send_limit: int = SEND_LIMIT,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.name = name
        self.headers = headers
        self.remote = remote
        self.is_open = False
        self._wire = wire
        self._reactor = reactor
        self._send_limit = send_limit
        self._observe = observe
        self._endpoint: Any = None
        self._pending: dict[str, tuple[Deferred[Raw], Any]] = {}
        self._running: set[Deferred[None]] = set()
        self._running_bytes = 0
        self._restricted: int | None = None
        self._complaints = 0
        #: Called with False when the peer stops taking what is sent (64 KiB wait), with True when all of it is taken.
        self.on_flow: Callable[[bool], None] | None = None

    # --- for the domain

    @property
    def waiting(self) -> int:
        """Bytes queued that the peer has not taken yet."""
        return self._wire.waiting

    def send(self, text: bytes) -> bool:
        """One text frame; False if the connection is closed or its reader too slow (then it is dropped)."""
        if not self.is_open:
            return False
        limit = self._send_limit if self._restricted is None else self._restricted
        if self._wire.waiting > limit:
            self._log.warn("{name} {remote}: does not read, dropped", name=self.name, remote=self.remote)
            self.drop()
            return False
        self._wire.write_text(text)
        return True

    def restrict(self, message_size: int, waiting: int) -> None:
        """Until :meth:`trust`: a longer message ends the connection (Close 1009), and so does more than ``waiting``
        bytes that the peer does not read; requests under way may have that many bytes."""
        self._restricted = waiting
        self._wire.limit_messages(message_size)

    def trust(self) -> None:
        self._restricted = None
        self._wire.limit_messages(None)

    @property
    def running(self) -> int:
        """Requests of the peer under way."""
        return len(self._running)

    @property
    def pending(self) -> int:
        """Requests of ours that wait for the peer's answer."""
        return len(self._pending)

    def notify(self, notification: Notification) -> bool:
        return self.send(notification.encode())

    def request(
        self,
        method: str,
        params: Any,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        id: str | None = None,
        wire_timeout: int | None = None,
    ) -> Deferred[Raw]:
        """Send a request; fires with the ``result`` object.

        Fails with the peer's error; 4000 if ``id`` is waiting already; 4004 if the connection is not open; code 1 when
        ``timeout`` seconds have passed or the connection closes. ``wire_timeout`` is sent to the peer (wire.md 1.4).
        """
        request_id = id or jsonrpc.new_id()
        if request_id in self._pending:
            return fail(OpenemsError(errors.JSONRPC_ID_NOT_UNIQUE, request_id))
        if len(self._pending) >= MAX_PENDING:
            return fail(OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE))
        if not self.send(Request(method, jsonrpc.raw(params), request_id, wire_timeout).encode()):
            return fail(OpenemsError(errors.JSONRPC_SEND_FAILED))

        def forget(_: Deferred[Raw]) -> None:
            entry = self._pending.pop(request_id, None)
            if entry is not None and entry[1].active():
                entry[1].cancel()

        def expire() -> None:
            deferred = self._pending.pop(request_id)[0]
            deferred.errback(generic(f"No answer to [{method}] within {timeout:g} seconds"))

        waiting: Deferred[Raw] = Deferred(forget)
        self._pending[request_id] = (waiting, self._reactor.callLater(timeout, expire))
        return waiting

    def pause_reading(self) -> None:
        """Take nothing from this peer until :meth:`resume_reading`; what was received already still comes."""
        self._wire.pause_reading()

    def resume_reading(self) -> None:
        if self.is_open:
            self._wire.resume_reading()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a Close frame."""
        if self.is_open:
            self._wire.resume_reading()  # for the peer's own Close frame
            self.is_open = False
            self._wire.close(code, reason)

    def drop(self) -> None:
        """End the TCP connection without a Close frame; what waits to be sent is lost."""
        self.is_open = False
        self._wire.drop()

    # --- for the wire

    def flows(self, flowing: bool) -> None:
        if self.on_flow is not None:
            self.on_flow(flowing)

    def open(self, endpoint: Any) -> None:
        """The handshake is done: ``endpoint`` takes over."""
        self.is_open = True
        self._endpoint = endpoint
        try:
            endpoint.opened()
        except Refused as refusal:
            if refusal.close_code is None:
                self.is_open = False
                self._wire.drop(abort=False)  # the reply to the handshake must still go out
            else:
                self.close(refusal.close_code, refusal.reason)
        except Exception:
            self._log.failure("{name} {remote}: open failed", name=self.name, remote=self.remote)
            self.drop()

    def text_received(self, text: bytes) -> None:
        endpoint = self._endpoint
        if endpoint is None or not self.is_open:
            return
        try:
            if endpoint.received(text):
                return
        except Exception:
            self._log.failure("{name} {remote}: message failed", name=self.name, remote=self.remote)
            return
        try:
            text.decode()
        except UnicodeDecodeError:
            self._wire.invalid_utf8()
            return
        try:
            message = jsonrpc.parse(text)
        except Malformed as e:
            self._complain(str(e))
            return
        if type(message) is Request:
            self._start(message, len(text))
        elif type(message) is Notification:
            try:
                endpoint.notification(message)
            except OpenemsError as e:
                self._complain(f"{message.method}: {e.message}")
            except Exception:
                self._log.failure(
                    "{name} {remote}: {method} failed",
                    name=self.name,
                    remote=self.remote,
                    method=printable(message.method[:100]),
                )
        else:
            self._response(message)  # type: ignore[arg-type]

    def lost(self) -> None:
        """The wire is gone. Pending requests fail, running ones are cancelled, then the endpoint is told."""
        endpoint, self._endpoint = self._endpoint, None
        self.is_open = False
        for running in tuple(self._running):
            running.cancel()
        while self._pending:
            _, (waiting, deadline) = self._pending.popitem()
            deadline.cancel()
            waiting.errback(generic("Websocket connection closed"))
        if endpoint is not None:
            try:
                endpoint.closed()
            except Exception:
                self._log.failure("{name} {remote}: close failed", name=self.name, remote=self.remote)

    # --- requests of the peer

    def _start(self, request: Request, size: int) -> None:
        most = MAX_RUNNING_BYTES if self._restricted is None else self._restricted
        if self._running and (len(self._running) >= MAX_RUNNING or self._running_bytes + size > most):
            self.send(Failed(request.id, OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)).encode())
            return
        running = Deferred.fromCoroutine(self._answer(request))
        if running.called:
            return
        self._running.add(running)
        self._running_bytes += size
        deadline = None
        if request.timeout is not None and request.timeout > 0:
            deadline = self._reactor.callLater(request.timeout, running.cancel)

        def ended(_: Any) -> None:
            self._running.discard(running)
            self._running_bytes -= size
            if deadline is not None and deadline.active():
                deadline.cancel()

        running.addBoth(ended)

    async def _answer(self, request: Request) -> None:
        begun = self._reactor.seconds() if self._observe is not None else 0.0
        work: Any = None
        try:
            work = self._endpoint.request(request)
            result = await work
            if result is None:
                raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, request.method)
            reply = Success(request.id, jsonrpc.raw(result)).encode()
        except CancelledError as e:
            reply = Failed(request.id, generic(f"Request timed out after {request.timeout} seconds")).encode()
            _let_go(e, work)
        except OpenemsError as e:
            reply = Failed(request.id, e).encode()
            _let_go(e, work)
        except Exception as e:
            self._log.failure(
                "{name} {remote}: {method} failed",
                name=self.name,
                remote=self.remote,
                method=printable(request.method[:100]),
            )
            # The text of an unforeseen failure may hold anything; the peer learns its kind only.
            reply = Failed(request.id, generic(f"Internal error: {type(e).__name__}")).encode()
        if self._observe is not None:
            self._observe(jsonrpc.qualified_method(request), self._reactor.seconds() - begun)
        self.send(reply)

    # --- answers of the peer

    def _response(self, message: Success | Failed) -> None:
        entry = self._pending.pop(message.id, None)
        if entry is None:
            self._complain(f"response without request [{message.id}]")
            return
        waiting, deadline = entry
        if deadline.active():
            deadline.cancel()
        if type(message) is Success:
            waiting.callback(message.result)
        else:
            waiting.errback(as_openems_error(message.error))  # type: ignore[union-attr]

    def _complain(self, text: str) -> None:
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            more = " (no more such lines for this connection)" if self._complaints == MAX_COMPLAINTS else ""
            self._log.warn(
                "{name} {remote}: {text}{more}",
                name=self.name,
                remote=self.remote,
                text=printable(short(text, 300)),
                more=more,
            )


def _let_go(error: BaseException | None, work: Any) -> None:
    """An exception holds the frames it came through, and these hold it, or the Deferred that has it as its result:
    without this only the garbage collector frees all that a refused request had in hand, in a pause for everybody."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
    if isinstance(work, Deferred):
        work.addErrback(lambda failure: None)
