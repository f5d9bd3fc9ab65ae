"""HTTP for the REST server: what a stranger may cost, and errors that are JSON at every level (b2b.md 7, T091).

Rules
- A body over ``max_body`` is read no further than ``DRAIN`` times that, kept not at all, and answered with 413.
- All bodies being received share ``BUFFERED`` bytes; who comes when they are used up gets 503.
- A request has ``RECEIVE`` seconds to arrive, a connection may be idle for ``IDLE`` seconds. A reply may take as
  long as its reader needs, provided that he takes some of it in every ``IDLE`` seconds.
- Connections are limited, in all and for one address.
- No HTML, no traceback, no redirect leaves this server: also a request that cannot be parsed gets a JSON-RPC error.
"""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import NIL_ID, Failed
from openems.websocket.proxies import TrustedProxies, host_of

#: Twisted's web classes are untyped.
_Request: Any = Request
_HTTPChannel: Any = HTTPChannel
_Site: Any = Site

MAX_BODY = 1024 * 1024
DRAIN = 64
BUFFERED = 64 * 1024 * 1024
RECEIVE = 60.0
IDLE = 30.0
MAX_CONNECTIONS = 2000
MAX_CONNECTIONS_OF_ADDRESS = 500
RETRY_AFTER = 5


def error_body(error: OpenemsError, id: str = NIL_ID) -> bytes:
    return Failed(id, error).encode()


class RestRequest(_Request):
    """A request whose body is bounded and never taken for a form."""

    _log = Logger()
    #: "" while the body is taken; else why it is thrown away.
    overflow = ""
    _received = 0

    def gotLength(self, length: int | None) -> None:
        site = self.channel.site
        self.content = BytesIO()
        if length is not None and length > site.max_body:
            self.overflow = "size"

    def handleContentChunk(self, data: bytes) -> None:
        site = self.channel.site
        self._received += len(data)
        if self._received > site.max_body * DRAIN:
            self.channel.refuse(413, "Content Too Large", too_large(site.max_body))
        elif self.overflow:
            pass
        elif self._received > site.max_body:
            self._throw_away("size")
        elif site.buffered + len(data) > BUFFERED:
            self._throw_away("memory")
        else:
            site.buffered += len(data)
            self.content.write(data)

    def _throw_away(self, reason: str) -> None:
        self.overflow = reason
        self._release()

    def _release(self) -> None:
        """The body is not needed any more."""
        site = self.site or (self.channel.site if self.channel is not None else None)
        if site is not None and self.content is not None and not self.content.closed:
            site.buffered -= len(self.content.getbuffer())
            self.content.close()

    def body(self) -> bytes:
        """The whole body; once."""
        content = self.content
        data: bytes = content.getvalue() if content is not None and not content.closed else b""
        self._release()
        return data

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # Not the inherited one, which parses forms: curl says "form" unless it is told otherwise.
        if self.channel.ended:
            return
        self.channel.began = None
        self.args: dict[bytes, list[bytes]] = {}
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        if self.path.lower().startswith((b"http://", b"https://")):
            # As through a proxy. Who is named there is not judged, as with Host (T017).
            self.path = b"/" + b"".join(self.path.split(b"/", 3)[3:])
        self.process()

    def process(self) -> None:
        self.site = self.channel.site
        self.setHeader(b"server", b"openems-backend")
        self.setHeader(b"date", datetimeToString())  # type: ignore[no-untyped-call]
        self.prepath: list[bytes] = []
        self.postpath = [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]
        try:
            str(b"/".join(self.postpath), "utf-8")
            str(self.method, "ascii")
        except UnicodeDecodeError:
            self.answer(400, generic("The request line is no text"))
            return
        if not self.path.startswith(b"/"):
            self.answer(400, generic("The path does not begin with /"))
            return
        try:
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    def answer(self, code: int, error: OpenemsError, id: str = NIL_ID) -> None:
        """End the request with a JSON-RPC error."""
        body = error_body(error, id)
        self.setResponseCode(code)
        self.setHeader(b"content-type", b"application/json")
        self.setHeader(b"content-length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def processingFailed(self, reason: Failure) -> Failure:
        self._log.failure("Backend2Backend.Rest: request failed", failure=reason)
        if not self._disconnected and not self.finished:
            self.answer(500, generic(f"Internal error: {reason.type.__name__ if reason.type else '?'}"))
        return reason

    def getRequestHostname(self) -> bytes:
        # Not judged (T017), and so not parsed either.
        return b"localhost"

    def remote(self) -> str:
        """The client's address, for limits: what a proxy says of it counts if the proxy is a trusted one."""
        host = str(getattr(self.client, "host", "local"))
        proxies = self.site.proxies
        if host not in proxies:
            return host
        headers = self.requestHeaders
        told = {
            name: ", ".join(value.decode("latin-1") for value in headers.getRawHeaders(name.encode()) or ())
            for name in ("forwarded", "x-forwarded-for", "x-real-ip")
        }
        return str(proxies.remote(told, host, getattr(self.client, "port", 0)))

    def connectionLost(self, reason: Failure) -> None:
        self._release()
        super().connectionLost(reason)

    def finish(self) -> None:
        self._release()
        super().finish()


def too_large(most: int) -> OpenemsError:
    return generic(f"The body is longer than {most} bytes")


def overloaded() -> OpenemsError:
    return OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)


class _Channel(_HTTPChannel):
    """``address``: by which its connection is counted; ``ended``: it got its last answer; ``began``: when the request
    that is arriving did."""

    address = ""
    ended = False
    began: float | None = None
    _left: int | None = None
    requestFactory = RestRequest

    def dataReceived(self, data: bytes) -> None:
        if not self._handlingRequest:
            now = self.site.reactor.seconds()
            if self.began is None:
                self.began = now
            elif now - self.began > RECEIVE:
                self.refuse(408, "Request Timeout", generic(f"The request did not arrive within {RECEIVE:g} seconds"))
                return
        super().dataReceived(data)

    def timeoutConnection(self) -> None:
        left = unsent(self.transport)
        if left and (self._left is None or left < self._left):
            self._left = left
        elif self.transport.disconnecting:
            self.transport.abortConnection()
            return
        elif self.began is not None and not left:
            self.refuse(408, "Request Timeout", generic(f"Half a request, and then nothing for {IDLE:g} seconds"))
        else:
            self.loseConnection()
        self.setTimeout(IDLE)

    def requestDone(self, request: Any) -> None:
        super().requestDone(request)
        if not self.persistent:
            # Twisted waits for ever until the last reply is taken.
            self.setTimeout(IDLE)

    def connectionLost(self, reason: Failure) -> None:
        self.site.disconnected(self)
        super().connectionLost(reason)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400, "Bad Request", generic("No valid HTTP request"))

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(400, "Bad Request", generic(f"A line of the request is longer than {self.MAX_LENGTH} bytes"))

    def _send100Continue(self) -> None:
        if self.requests[-1].overflow:
            # Who asks before he sends is told before he sends.
            self.refuse(413, "Content Too Large", too_large(self.site.max_body))
        else:
            super()._send100Continue()

    def refuse(self, code: int, reason: str, error: OpenemsError) -> None:
        """An answer without a request: nothing more is read, the connection ends."""
        if self.ended:
            return
        self.ended = True
        body = error_body(error)
        self.site.unparsed += 1
        self.transport.write(
            f"HTTP/1.1 {code} {reason}\r\nServer: openems-backend\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        self.dataReceived = self.lineReceived = lambda *arguments: None  # type: ignore[method-assign]
        self.loseConnection()
        self.setTimeout(IDLE)


def unsent(transport: Any) -> int:
    """Bytes that the client has not taken yet."""
    return (
        len(getattr(transport, "dataBuffer", b""))
        - getattr(transport, "offset", 0)
        + int(getattr(transport, "_tempDataLen", 0))
    )


class RestSite(_Site):
    """``reactor`` for the time; ``unparsed`` requests, ``refused`` connections are counted."""

    def __init__(
        self, resource: IResource, *, reactor: Any, max_body: int = MAX_BODY, proxies: TrustedProxies | None = None
    ) -> None:
        super().__init__(resource, requestFactory=RestRequest, timeout=IDLE, reactor=reactor)
        self.noisy = False
        self.max_body = max_body
        self.proxies = proxies or TrustedProxies()
        self.max_connections = MAX_CONNECTIONS
        self.max_connections_of_address = MAX_CONNECTIONS_OF_ADDRESS
        self.buffered = 0
        self.unparsed = 0
        self.refused = 0
        self.channels: set[_Channel] = set()
        self._addresses: Counter[str] = Counter()
        self.protocol = _Channel

    def log(self, request: Any) -> None:
        """No line for a request."""

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        host = str(getattr(addr, "host", "local"))
        address = host_of(host)
        most = self.max_connections if host in self.proxies else self.max_connections_of_address
        if len(self.channels) >= self.max_connections or self._addresses[address] >= most:
            self.refused += 1
            return None
        channel = super().buildProtocol(addr)
        channel.address = address
        self.channels.add(channel)
        self._addresses[address] += 1
        return channel

    def disconnected(self, channel: _Channel) -> None:
        if channel in self.channels:
            self.channels.discard(channel)
            self._addresses[channel.address] -= 1
            if not self._addresses[channel.address]:
                del self._addresses[channel.address]
