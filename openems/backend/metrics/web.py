"""The endpoint: ``/metrics``, ``/-/healthy``, ``/-/ready`` and a page at ``/`` (metrics.md 3, 18).

With tokens every path asks for one, as in Java, unless health checks are let through. Everything else is 404, another
method 405.
"""

from __future__ import annotations

import gzip
import hmac
from collections.abc import Callable, Collection, Iterable, Sequence
from time import perf_counter
from typing import Any

import msgspec
from prometheus_client.core import Metric
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from openems.backend.metrics.exposition import TEXT, content_type, pieces, wanted
from openems.backend.metrics.pages import PageSite

#: Seconds of work after which the reactor gets its turn.
SLICE = 0.005
#: Scrapes that may wait for the one that runs; further ones get 503.
MAX_WAITING = 4
MAX_NAMES = 100
_PLAIN = b"text/plain; charset=utf-8"
_PAGE = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>OpenEMS Backend</title></head><body><h1>OpenEMS Backend</h1>
<ul><li><a href="metrics">metrics</a></li><li><a href="-/healthy">healthy</a></li><li><a href="-/ready">ready</a></li>
</ul></body></html>
"""


class Tokens:
    """``tokens``: any of them lets in; none: everybody is let in."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = [token.strip().encode() for token in tokens if token.strip()]

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def allow(self, authorization: Sequence[bytes]) -> bool:
        """``authorization``: the values of that header; the first one counts. Takes the same time for every wrong token
        of a length."""
        if not self._tokens:
            return True
        scheme, _, token = (authorization[0] if authorization else b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        token = token.rstrip(b" \t")
        # All are compared, whichever fits.
        return any([hmac.compare_digest(token, known) for known in self._tokens])


class MetricsPages(Resource):
    """``collect(names)`` gives the families; ``ready()`` what is not ready, name -> why; ``healthy()`` whether the
    reactor comes round."""

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        collect: Callable[[], Iterable[Metric]],
        *,
        reactor: Any,
        tokens: Tokens,
        ready: Callable[[], dict[str, str]],
        healthy: Callable[[], bool],
        open_health: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scrapes = 0
        self.refused = 0
        #: Seconds of the last scrape that the reactor could do nothing else, and the longest part of it.
        self.reactor_seconds = 0.0
        self.longest_block = 0.0
        self._collect = collect
        self._reactor = reactor
        self._tokens = tokens
        self._ready = ready
        self._healthy = healthy
        self._open_health = open_health
        self._lock = DeferredLock()

    def render(self, request: Request) -> bytes | int:
        path: bytes = request.path
        is_health = path in (b"/-/healthy", b"/-/ready")
        is_known = self._tokens.allow(request.requestHeaders.getRawHeaders(b"authorization", []))
        if not is_known and not (is_health and self._open_health):
            self.refused += 1
            request.setHeader(b"www-authenticate", b"Bearer")
            return self._text(request, 401, b"")
        if not is_health and path not in (b"/", b"/metrics", b"/metrics/"):
            return self._text(request, 404, b"Not found; there is /metrics\n")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return self._text(request, 405, b"Only GET and HEAD\n")
        if path == b"/":
            request.setHeader(b"content-type", b"text/html; charset=utf-8")
            return _PAGE
        if path == b"/-/healthy":
            healthy = self._healthy()
            return (
                self._text(request, 200, b"Exporter is healthy.\n") if healthy else self._text(request, 503, b"late\n")
            )
        if path == b"/-/ready":
            return self._readiness(request, is_known)
        if len(self._lock.waiting) >= MAX_WAITING:
            request.setHeader(b"retry-after", b"1")
            return self._text(request, 503, b"Too many scrapes at once\n")
        self._scrape_later(request)
        return NOT_DONE_YET

    @staticmethod
    def _text(request: Request, code: int, body: bytes) -> bytes:
        request.setResponseCode(code)
        if body:
            request.setHeader(b"content-type", _PLAIN)
        request.setHeader(b"cache-control", b"no-store")
        return body

    def _readiness(self, request: Request, is_known: bool) -> bytes:
        # Reasons name servers, databases and their users: nothing for who has no token where others have one.
        failed = [
            {"component": name, "reason": why if is_known else "not ready"} for name, why in self._ready().items()
        ]
        request.setResponseCode(503 if failed else 200)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        return msgspec.json.encode({"ready": not failed, "failed": failed}) + b"\n"

    # --- the scrape

    def _scrape_later(self, request: Request) -> None:
        scrape = Deferred.fromCoroutine(self._scrape(request))
        # Who has hung up is not worked for any longer.
        request.notifyFinish().addErrback(lambda _: scrape.cancel())

        def failed(failure: Any) -> None:
            if failure.check(CancelledError):
                return
            self._log.failure("scrape failed", failure=failure)
            if not request._disconnected and not request.finished:
                request.setResponseCode(500)
                request.setHeader(b"content-type", _PLAIN)
                request.write(b"The metrics could not be collected; the log tells why\n")
                request.finish()

        scrape.addErrback(failed)

    async def _scrape(self, request: Request) -> None:
        accept = b",".join(request.requestHeaders.getRawHeaders(b"accept", [])).decode("latin-1")
        form = content_type(accept[:1000])
        names = {name.decode("utf-8", "replace") for name in request.args.get(b"name[]", [])[:MAX_NAMES]}
        await self._lock.acquire()
        try:
            body = await self._body(form, names)
        finally:
            self._lock.release()
        request.setHeader(b"content-type", (TEXT if form == TEXT else form).encode())
        request.setHeader(b"cache-control", b"no-store")
        request.setHeader(b"vary", b"accept, accept-encoding")
        if _takes_gzip(request.requestHeaders.getRawHeaders(b"accept-encoding", [])):
            request.setHeader(b"content-encoding", b"gzip")
            body = gzip.compress(body, 1)
        request.setHeader(b"content-length", b"%d" % len(body))
        if request.method != b"HEAD":
            request.write(body)
        request.finish()

    async def _body(self, form: str, names: Collection[str]) -> bytes:
        parts: list[bytes] = []
        total = longest = 0.0
        begun = perf_counter()
        families = (family for family in self._collect() if wanted(family.name, names))
        for part in pieces(families, form):
            parts.append(part)
            spent = perf_counter() - begun
            if spent > SLICE:
                total += spent
                longest = max(longest, spent)
                await deferLater(self._reactor, 0)
                begun = perf_counter()
        spent = perf_counter() - begun
        self.reactor_seconds, self.longest_block = total + spent, max(longest, spent)
        self.scrapes += 1
        return b"".join(parts)


def _takes_gzip(accept_encoding: Iterable[bytes]) -> bool:
    """``gzip`` with any quality but 0."""
    for element in b",".join(accept_encoding).lower().split(b","):
        name, _, parameters = element.strip().partition(b";")
        if name.strip() in (b"gzip", b"x-gzip"):
            quality = parameters.strip().removeprefix(b"q=").strip()
            return not quality or quality.strip(b"0.") != b""
    return False


def site(pages: MetricsPages, reactor: Any = None) -> PageSite:
    return PageSite(pages, timeout=60, reactor=reactor)
