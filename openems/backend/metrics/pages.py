"""Pages for monitors, which take no body: what comes with a request is neither kept nor parsed.

The port may be open to everybody while only the page asks for a token: Twisted would write a stranger's body to the
disk, however long, before anybody looks at it. So a body is thrown away, one longer than :data:`MAX_BODY` ends the
connection, a request has :data:`RECEIVE` seconds to arrive, and connections are limited.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

#: Twisted's web classes are untyped.
_Request: Any = Request
_HTTPChannel: Any = HTTPChannel
_Site: Any = Site

RECEIVE = 20.0
MAX_CONNECTIONS = 200
MAX_BODY = 64 * 1024


class _Head:
    """A page without its body."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def render(self, request: Any) -> bytes | int:
        body: bytes | int = self._page.render(request)
        if not isinstance(body, bytes):
            return body
        request.setHeader(b"content-length", b"%d" % len(body))
        return b""


class PageRequest(_Request):
    _received = 0

    def render(self, resrc: Any) -> None:
        # Left with a body, Twisted writes a line into the log for each look of a monitor.
        super().render(_Head(resrc) if self.method == b"HEAD" else resrc)

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            self.channel.refuse(413, "Content Too Large")

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MAX_BODY:
            self.channel.refuse(413, "Content Too Large")


class _Channel(_HTTPChannel):
    requestFactory = PageRequest
    #: It got its last answer.
    ended = False
    began: float | None = None

    def dataReceived(self, data: bytes) -> None:
        if not self._handlingRequest:
            now = self.site.reactor.seconds()
            if self.began is None:
                self.began = now
            elif now - self.began > RECEIVE:
                self.refuse(408, "Request Timeout")
                return
        super().dataReceived(data)

    def allContentReceived(self) -> None:
        self.began = None
        if not self.ended:
            super().allContentReceived()

    def refuse(self, code: int, reason: str) -> None:
        if self.ended:
            return
        self.ended = True
        self.transport.write(
            f"HTTP/1.1 {code} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        self.dataReceived = self.lineReceived = self.rawDataReceived = lambda *arguments: None  # type: ignore[method-assign]
        self.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        self.site.connections -= 1
        super().connectionLost(reason)


class PageSite(_Site):
    """``refused`` connections are counted."""

    def __init__(self, resource: IResource, *, timeout: float, reactor: Any = None) -> None:
        super().__init__(resource, requestFactory=PageRequest, timeout=timeout, reactor=reactor)
        self.noisy = False
        self.displayTracebacks = False
        self.connections = 0
        self.refused = 0
        self.protocol = _Channel

    def log(self, request: Any) -> None:
        """No line for each look of a monitor."""

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        if self.connections >= MAX_CONNECTIONS:
            self.refused += 1
            return None
        self.connections += 1
        channel: IProtocol = super().buildProtocol(addr)
        return channel
