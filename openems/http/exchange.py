"""HTTP with servers that others run, as identity providers and Odoo: one request, one bounded reply, one deadline for
all of it (auth.md S4, S20 to S22).

- The deadline covers waiting for a turn, connecting, headers and body.
- A request is never repeated: what may have arrived may have had an effect.
- No redirect is followed, no cookie kept, certificates are verified; plain http only to this machine, unless allowed.
- Neither texts of failures nor logs hold anything of a request but its method and path.
"""

from __future__ import annotations

import ipaddress
import time as time_
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import treq.client
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from openems.common.redact import hide, is_secret, redacted, redacted_text
from openems.http.body import Bytes, TooLong, body_of
from openems.http.concurrency import Busy, Concurrency
from openems.http.connections import KeptConnections

#: Seconds for one exchange, and for connecting within it.
TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0
#: Seconds an idle connection is kept for the next request; servers and proxies close theirs after longer.
IDLE = 20.0
MAX_BODY = 1024 * 1024
JSON_TYPES = ("application/json", "application/jwk-set+json")


class ExchangeError(Exception):
    """No usable reply; ``kind`` is one of ``busy``, ``timeout``, ``connection``, ``redirect``, ``too large``,
    ``no JSON``, ``status``. ``sent`` tells whether the request may have had an effect."""

    def __init__(self, kind: str, where: str, detail: str = "", *, sent: bool = True) -> None:
        super().__init__(f"{where}: {kind}{': ' if detail else ''}{detail}")
        self.kind = kind
        self.sent = sent


class Reply(msgspec.Struct, frozen=True):
    """``headers``: lower-case name -> value. ``set_cookies``: all headers of that name."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    where: str
    phrase: str = ""
    set_cookies: tuple[str, ...] = ()

    @property
    def status_text(self) -> str:
        """As the Java program names a status (auth.md 11)."""
        try:
            named = HTTPStatus(self.status).phrase
        except ValueError:
            named = self.phrase[:60] if self.phrase.isprintable() else ""
        return f"Http {self.status} {named}".replace("Teapot", "teapot").rstrip()

    def json(self) -> Any:
        """The decoded body. Raises :class:`ExchangeError`."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in JSON_TYPES and not kind.endswith("+json"):
            raise ExchangeError("no JSON", self.where, f"content type {redacted_text(kind, 60) or 'absent'}")
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # The last one: nested too deep. Without the decoder's text, which may show a piece of the body.
            raise ExchangeError("no JSON", self.where, "malformed") from None

    def object(self) -> dict[str, Any]:
        value = self.json()
        if not isinstance(value, dict):
            raise ExchangeError("no JSON", self.where, "no object")
        return value


class Exchange:
    """``observe(path, status, seconds)`` is told of each, with the path's template; status ``-1`` without a reply.
    ``debug`` logs the exchanges, redacted. ``persistent``: connections are kept for the next request."""

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        concurrency: Concurrency,
        agent: Any = None,
        persistent: bool = True,
        timeout: float = TIMEOUT,
        allow_plain_http: bool = False,
        observe: Callable[[str, str, float], None] | None = None,
        debug: bool = False,
    ) -> None:
        self.concurrency = concurrency
        self.timeout = timeout
        self.failures = 0
        self._reactor = reactor
        self._allow_plain_http = allow_plain_http
        self._observe = observe
        self._debug = debug
        self._closed = False
        self._under_way: set[Deferred[Reply]] = set()
        self._kept: KeptConnections | None = None
        if agent is None:
            self._kept = KeptConnections(reactor, per_host=concurrency.limit, idle=IDLE, persistent=persistent)
            agent = Agent(reactor, connectTimeout=CONNECT_TIMEOUT, pool=self._kept)
        # Cookies of one user's login must not travel with another's.
        nothing = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
        self._client = treq.client.HTTPClient(agent, cookiejar=nothing, data_to_body_producer=Bytes)

    async def close(self) -> None:
        """Ends what is under way and the idle connections; nothing can be asked any more."""
        self._closed = True
        for waiting in tuple(self._under_way):
            waiting.cancel()
        if self._kept is not None:
            await self._kept.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        json: Any = None,
        content: tuple[str, bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        path: str | None = None,
        max_body: int = MAX_BODY,
        timeout: float | None = None,
    ) -> Reply:
        """Any status but a redirect is a reply. ``content``: a type and a body of it. ``path`` names the exchange in
        metrics and texts, without ids.

        Raises :class:`ExchangeError`.
        """
        parts = urlsplit(url)
        where = f"{method} {path or parts.path}"
        if parts.scheme != "https" and not (parts.scheme == "http" and (self._allow_plain_http or is_local(url))):
            raise ExchangeError("connection", where, "plain http to another machine is not allowed", sent=False)
        given = {"Accept": "application/json", **(headers or {})}
        data: bytes | None = None
        if form is not None:
            given["Content-Type"] = "application/x-www-form-urlencoded"
            data = form_body(form)
        elif json is not None:
            given["Content-Type"] = "application/json"
            data = msgspec.json.encode(json)
        elif content is not None:
            given["Content-Type"], data = content
        begun = time_.monotonic()
        status = "-1"
        sent = False

        async def perform() -> Reply:
            nonlocal sent
            sent = True
            response = await self._client.request(
                method, url, headers=Headers({k: [v] for k, v in given.items()}), data=data, allow_redirects=False,
                unbuffered=True,
            )  # fmt: skip
            body = await body_of(response, max_body)
            names = {
                name.decode("latin-1").lower(): values[-1].decode("latin-1")
                for name, values in response.headers.getAllRawHeaders()
            }
            cookies = response.headers.getRawHeaders(b"set-cookie", [])
            return Reply(
                response.code,
                names,
                body,
                where,
                response.phrase.decode("latin-1"),
                tuple(cookie.decode("latin-1") for cookie in cookies),
            )

        if self._closed:
            raise self._failed("connection", where, "closed", sent=False)
        waiting = Deferred.fromCoroutine(self.concurrency.run(perform))
        self._under_way.add(waiting)
        # Whatever the cancelled request says of itself.
        waiting.addTimeout(
            self.timeout if timeout is None else timeout, self._reactor, lambda _, __: Failure(DeferredTimeout())
        )
        try:
            reply = await waiting
            status = str(reply.status)
        except CancelledError:
            raise
        except Busy:
            raise self._failed("busy", where, sent=False) from None
        except DeferredTimeout:
            raise self._failed("timeout", where, sent=sent) from None
        except TooLong:
            raise self._failed("too large", where, f"more than {max_body} bytes") from None
        except Exception as e:
            # Only the kind: texts of the client may hold the request.
            raise self._failed("connection", where, _kind(e)) from None
        finally:
            self._under_way.discard(waiting)
            if self._observe is not None:
                self._observe(path or parts.path, status, time_.monotonic() - begun)
        if self._debug:
            # A reply may repeat what was sent.
            sent_secrets = [value for name, value in (form or {}).items() if is_secret(name)]
            shown = hide(f"{redacted(dict(form or {}))} -> {status} {redacted(_shown(reply))}", sent_secrets)
            self._log.info("{where} {shown}", where=where, shown=shown)
        if 300 <= reply.status < 400:
            raise self._failed("redirect", where, f"status {reply.status}")
        return reply

    def _failed(self, kind: str, where: str, detail: str = "", *, sent: bool = True) -> ExchangeError:
        self.failures += 1
        return ExchangeError(kind, where, detail, sent=sent)


def _kind(error: BaseException) -> str:
    """The kind of a failure, the inner one where the HTTP client wraps it."""
    for reason in getattr(error, "reasons", ()):
        if isinstance(reason, Failure):
            return _kind(reason.value) if reason.value is not None else "failure"
    return type(error).__name__


def _shown(reply: Reply) -> Any:
    try:
        return reply.json()
    except ExchangeError:
        return f"{len(reply.body)} bytes"


def encoded(text: str) -> str:
    """Percent-encoding as in forms and queries of the Java program (auth.md 5.5).

    >>> encoded("va lu+e~*")
    'va%20lu%2Be%7E*'
    """
    return quote(text, safe="*-._").replace("~", "%7E")


def form_body(fields: Mapping[str, str]) -> bytes:
    return "&".join(f"{name}={encoded(value)}" for name, value in fields.items()).encode("ascii")


def is_local(url: str) -> bool:
    """Whether the URL's host is this machine by its name: what is sent there stays here.

    >>> is_local("http://127.0.0.1:7900/x"), is_local("http://localhost"), is_local("http://localhost.evil.example")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
