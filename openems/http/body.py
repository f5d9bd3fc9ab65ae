"""Bodies of requests and replies: small ones are sent at once, replies are read up to a limit."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


class TooLong(Exception):
    """A reply of more bytes than the caller takes."""


@implementer(IBodyProducer)
class Bytes:
    """A small body, written at once and not by and by."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


def body_of(response: Any, limit: int) -> Deferred[bytes]:
    """Fails with :class:`TooLong` where there are more than ``limit`` bytes; the connection ends then, as it does when
    the Deferred is cancelled."""
    collector: _Collector
    done: Deferred[bytes] = Deferred(lambda _: collector.give_up())
    collector = _Collector(limit, done)
    length = response.length
    if isinstance(length, int) and length > limit:
        collector.too_long()
    response.deliverBody(collector)
    return done


class _Collector(Protocol):
    def __init__(self, limit: int, done: Deferred[bytes]) -> None:
        self._limit = limit
        self._done: Deferred[bytes] | None = done
        self._parts: list[bytes] = []
        self._size = 0

    def connectionMade(self) -> None:
        if self._done is None:
            self._stop()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self.too_long()
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._end(b"".join(self._parts) if reason is None or reason.check(ResponseDone, PotentialDataLoss) else reason)

    def too_long(self) -> None:
        self._parts.clear()
        self._end(Failure(TooLong()))
        self._stop()

    def give_up(self) -> None:
        """Whoever waits has been told otherwise."""
        self._done = None
        self._stop()

    def _stop(self) -> None:
        # Not loseConnection where there is a choice: that may read the rest.
        transport: Any = self.transport
        end = getattr(transport, "abortConnection", None) or getattr(transport, "loseConnection", None)
        if end is not None:
            end()

    def _end(self, result: Any) -> None:
        done, self._done = self._done, None
        if done is not None and not done.called:
            done.callback(result)
