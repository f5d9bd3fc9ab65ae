"""Exchanges with an InfluxDB server: one deadline for each, slots of their own for reads and writes (timedata.md 11).

The token is in no text and no log line.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import treq.client
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseNeverReceived
from twisted.web.http_headers import Headers

from openems.http.body import Bytes, TooLong, body_of
from openems.http.concurrency import Busy, Concurrency
from openems.http.connections import KeptConnections

CONNECT_TIMEOUT = 10.0
WRITE_TIMEOUT = 30.0
READ_TIMEOUT = 60.0
IDLE = 60.0
#: Of one answer, unpacked.
MAX_BODY = 256 << 20
MAX_TEXT = 1_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class InfluxError(Exception):
    """The server refused or could not be asked. ``status`` 0: no answer. The text is the server's, cut, in one line."""

    def __init__(self, status: int, text: str) -> None:
        self.text = _CONTROL.sub(" ", text)[:MAX_TEXT].strip()
        self.status = status
        super().__init__(f"{status} {self.text}" if status else self.text)

    @property
    def away(self) -> bool:
        """Whether the same may work later without anybody changing anything."""
        return self.status in (0, 408, 429) or self.status >= 500


def _timed_out(value: Any, _: float) -> Any:
    return Failure(DeferredTimeout()) if isinstance(value, Failure) else value


def _base(url: str) -> str:
    """Scheme, host, port and path, without query, with a slash at its end."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"


class Client:
    """``token`` is sent as it is; ``user:password`` for InfluxDB 1. ``slots`` bounds reads and, apart, writes."""

    def __init__(
        self, url: str, org: str, token: str, *, reactor: Any, slots: int = 10, waiting: int = 1_000, agent: Any = None
    ) -> None:
        self.url = _base(url)
        self._org = org
        self._reactor = reactor
        self.reads = Concurrency(slots, waiting)
        self.writes = Concurrency(slots, waiting)
        self._kept: KeptConnections | None = None
        if agent is None:
            self._kept = KeptConnections(reactor, per_host=2 * slots, idle=IDLE)
            agent = Agent(reactor, connectTimeout=CONNECT_TIMEOUT, pool=self._kept)
        self._client = treq.client.HTTPClient(agent, data_to_body_producer=Bytes)
        self._token = token
        #: True: a server so old that it does not know the newer write address.
        self.old_write = False

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    async def close(self) -> None:
        if self._kept is not None:
            await self._kept.close()

    def _authorization(self, old: bool = False) -> dict[bytes, list[bytes]]:
        if not self._token:
            return {}
        if old and ":" in self._token:
            return {b"Authorization": [b"Basic " + base64.b64encode(self._token.encode())]}
        return {b"Authorization": [b"Token " + self._token.encode()]}

    async def write(self, bucket: str, lines: str, precision: str, timeout: float = WRITE_TIMEOUT) -> None:
        """Lines into a bucket (InfluxDB 1: ``database/policy``). Raises :class:`InfluxError`, :class:`Busy`."""
        packer = zlib.compressobj(1, wbits=31)
        data = packer.compress(lines.encode()) + packer.flush()

        async def send() -> tuple[int, bytes]:
            if not self.old_write:
                names = {"org": self._org, "bucket": bucket, "precision": precision, "consistency": "all"}
                status, body = await self._post(f"api/v2/write?{urlencode(names)}", data, _LINES)
                if status != 404 or body.startswith(b"{"):
                    return status, body
                self.old_write = True
            database, _, policy = bucket.partition("/")
            names = {"db": database, "precision": precision, **({"rp": policy} if policy else {})}
            return await self._post(f"write?{urlencode(names)}", data, _LINES, old=True)

        status, body = await self._exchange(self.writes, send, timeout)
        if status not in (200, 204):
            raise InfluxError(status, _message(body))

    async def influxql(self, database: str, policy: str, query: str, timeout: float = READ_TIMEOUT) -> bytes:
        """The JSON answer. Raises :class:`InfluxError`, :class:`Busy`."""
        names = {"db": database, "epoch": "ms", **({"rp": policy} if policy else {})}
        data = urlencode({"q": query}).encode()
        return await self._read(f"query?{urlencode(names)}", data, _FORM, timeout)

    async def flux(self, query: str, timeout: float = READ_TIMEOUT) -> bytes:
        """The annotated CSV answer. Raises :class:`InfluxError`, :class:`Busy`."""
        data = msgspec.json.encode({"query": query, "type": "flux", "dialect": _DIALECT})
        return await self._read(f"api/v2/query?{urlencode({'org': self._org})}", data, _JSON, timeout)

    async def _read(self, path: str, data: bytes, headers: dict[bytes, list[bytes]], timeout: float) -> bytes:
        async def send() -> tuple[int, bytes]:
            old = self.old_write and path.startswith("query")
            try:
                return await self._post(path, data, headers, old=old)
            except ResponseNeverReceived as error:
                if any(reason.check(CancelledError) for reason in error.reasons):
                    raise
                # A connection that the server had just given up. Reading twice does no harm.
                return await self._post(path, data, headers, old=old)

        status, body = await self._exchange(self.reads, send, timeout)
        if status != 200:
            raise InfluxError(status, _message(body))
        return body

    async def _exchange(
        self, slots: Concurrency, send: Callable[[], Awaitable[tuple[int, bytes]]], timeout: float
    ) -> tuple[int, bytes]:
        """``timeout`` covers everything: the turn, the connection, the answer to its last byte."""
        waiting: Deferred[tuple[int, bytes]] = Deferred.fromCoroutine(slots.run(send))  # type: ignore[arg-type]
        waiting.addTimeout(timeout, self._reactor, onTimeoutCancel=_timed_out)
        # What is cancelled fails in many ways below, according to how far it was.
        ended: list[bool] = []

        def end(_: Any) -> None:
            ended.append(True)
            waiting.cancel()

        result: Deferred[tuple[int, bytes]] = Deferred(end)
        waiting.addBoth(result.callback)
        try:
            try:
                return await result
            except Exception:
                if ended:
                    raise CancelledError from None
                raise
        except DeferredTimeout:
            raise InfluxError(0, f"{self.url}: no answer within {timeout:g} s") from None
        except (InfluxError, Busy, CancelledError):
            raise
        except (ConnectError, OSError) as error:
            raise InfluxError(0, f"{self.url}: {error}") from None
        except ResponseNeverReceived as error:
            reason = error.reasons[0].getErrorMessage() if error.reasons else "connection lost"
            raise InfluxError(0, f"{self.url}: {reason}") from None
        except zlib.error:
            raise InfluxError(0, f"{self.url}: the answer is damaged") from None
        except Exception as error:
            raise InfluxError(0, f"{self.url}: {type(error).__name__} {error}") from None

    async def _post(
        self, path: str, data: bytes, headers: dict[bytes, list[bytes]], old: bool = False
    ) -> tuple[int, bytes]:
        response = await self._client.request(
            "POST",
            self.url + path,
            headers=Headers({**headers, **self._authorization(old)}),
            data=data,
            allow_redirects=False,
            unbuffered=True,
        )
        try:
            return response.code, await body_of(response, MAX_BODY)
        except TooLong:
            raise InfluxError(413, f"the answer is longer than {MAX_BODY} bytes") from None


_ACCEPT = {b"Accept": [b"application/json"]}
_LINES = {
    **_ACCEPT,
    b"Content-Type": [b"text/plain; charset=utf-8"],
    b"Content-Encoding": [b"gzip"],
}
_FORM = {**_ACCEPT, b"Content-Type": [b"application/x-www-form-urlencoded"]}
_JSON = {b"Accept": [b"application/csv"], b"Content-Type": [b"application/json"]}
_DIALECT = {
    "header": True,
    "delimiter": ",",
    "annotations": ["datatype"],
    "commentPrefix": "#",
    "dateTimeFormat": "RFC3339",
}


class _ErrorBody(msgspec.Struct):
    message: str = ""
    error: str = ""


def _message(body: bytes) -> str:
    """What the server says in its error body."""
    try:
        told = msgspec.json.decode(body[: 1 << 16], type=_ErrorBody)
    except msgspec.MsgspecError:
        return body[:MAX_TEXT].decode(errors="replace")
    return told.message or told.error
