"""Backend2Backend.Rest: JSON-RPC over HTTP for other systems (b2b.md 2, 7).

``POST /jsonrpc``, and whatever lies below it, is the one end point that does something. In this order a request is

1. refused with 503 while the server stops or metadata is not there;
2. refused with 403 where a browser sends it for a page of another site, with 413 or 415 where its body cannot be one
   of ours;
3. authenticated, else 401 (429 where its address tries too often, 503 where nobody can tell);
4. read, else 400, and completed by what may be missing;
5. refused where too much is under way, of this user with 429, of all with 503; logins are not counted, so that
   strangers keep nobody out;
6. handled within its ``timeout``, else 60 s, else 504.

Every failure is a JSON-RPC error with the real code, message and data: 400, or 429 and 503 for the codes that mean it.
Work ends when its client goes away. ``/live``, ``/openapi.json`` and ``/docs`` need no login.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect
from zope.interface import implementer

from openems.backend.b2b import envelope, openapi, page
from openems.backend.b2b.credentials import Credentials, rest_credentials
from openems.backend.b2b.deadline import within
from openems.backend.b2b.methods import label
from openems.backend.b2b.site import MAX_BODY, RETRY_AFTER, RestRequest, RestSite, error_body, too_large, unsent
from openems.backend.interfaces import IDebugLoggable, IJsonRpcRequestHandler, IMetadata
from openems.backend.models import User
from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError, generic, printable, short
from openems.common.jsonrpc import NIL_ID, Request, Success
from openems.common.ratelimit import PerPeer
from openems.websocket.proxies import TrustedProxies

NAME = "Backend2Backend.Rest"
ID = "b2brest0"
#: Seconds a request may take that names no time, and at most.
TIMEOUT = 60
MAX_TIMEOUT = 3600
#: Requests under way of who is logged in, in all and of one user.
MAX_RUNNING = 1000
MAX_RUNNING_OF_USER = 200
#: Seconds the last replies have to leave at the end.
FLUSH = 1.0
FLUSH_STEP = 0.05
#: Bytes of a file that are sent together, seconds until it is looked first whether they were taken, and in which they
#: have to be.
FILE_PART = 128 * 1024
FILE_STEP = 0.005
FILE_SECONDS = 30.0

#: Types of a body that a browser sends to other sites without asking first; nobody who asks gets leave.
_UNASKED = frozenset({"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
_STATUS = {errors.JSONRPC_TOO_MANY_REQUESTS: 429, errors.COMMON_SERVICE_NOT_AVAILABLE: 503}


_F = TypeVar("_F", bound=Callable[..., Any])
_APP: Any = Klein()
_APP.url_map.merge_slashes = False


def _route(path: str, method: str) -> Callable[[_F], _F]:
    return _APP.route(path, methods=[method])


def _failing(kind: type[Exception]) -> Callable[[_F], _F]:
    return _APP.handle_errors(kind)


class _Refusal(Exception):
    """The request ends with this status."""

    def __init__(self, status: int, error: OpenemsError, id: str = NIL_ID) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.id = id


@implementer(IDebugLoggable)
class Backend2BackendRest:
    """``request_limit``: requests a second and user, None: no limit. ``observe(method, seconds)`` is called for each
    request, with names out of a closed set."""

    _log = Logger()
    app = _APP

    def __init__(
        self,
        metadata: IMetadata,
        handler: IJsonRpcRequestHandler,
        credentials: Credentials,
        *,
        reactor: Any,
        version: str,
        max_body: int = MAX_BODY,
        request_limit: int | None = None,
        proxies: TrustedProxies | None = None,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self._metadata = metadata
        self._handler: Any = handler
        self._credentials = credentials
        self._reactor = reactor
        self.observe = observe
        #: Told the method, as ``observe``, and one of openems.common.errors.OUTCOMES.
        self.observe_result: Callable[[str, str], None] | None = None
        self._limit = None if request_limit is None else PerPeer(request_limit, burst=request_limit)
        self._users: Counter[str] = Counter()
        self._work: set[Deferred[Any]] = set()
        self._port: Any = None
        self._stopping = False
        self._openapi = jsonrpc.dumps(openapi.document(version))
        self.site = RestSite(self.app.resource(), reactor=reactor, max_body=max_body, proxies=proxies)
        self.running = 0
        self.completed = 0
        #: Ended with an error; because their client went away; with 503 or 429; of those, because of their rate.
        self.failed = 0
        self.cancelled = 0
        self.rejected = 0
        self.limited = 0

    # --- life

    async def start(self, port: int, interface: str = "") -> int:
        """Open the port (0: any); returns the one that was bound. Raises CannotListenError."""
        self._stopping = False
        self._port = self._reactor.listenTCP(port, self.site, interface=interface)
        bound = int(self._port.getHost().port)
        self._log.info("{name}: listening on port {port}", name=NAME, port=bound)
        return bound

    async def stop(self) -> None:
        """Requests under way get 503, connections end, those that do not take it are dropped. Ends within seconds."""
        self._stopping = True
        if self._port is not None:
            port, self._port = self._port, None
            await port.stopListening()
        for work in tuple(self._work):
            work.cancel()
        for channel in tuple(self.site.channels):
            channel.loseConnection()
        end = self._reactor.seconds() + FLUSH
        while self.site.channels and self._reactor.seconds() < end:
            await deferLater(self._reactor, FLUSH_STEP)
        for channel in tuple(self.site.channels):
            channel.transport.abortConnection()
        await deferLater(self._reactor, 0)  # connections tell their end in the next turn
        self._credentials.stop()

    # --- what is served

    @_route("/jsonrpc", "POST")
    @_route("/jsonrpc/", "POST")
    @_route("/jsonrpc/<path:rest>", "POST")
    async def post_jsonrpc(self, request: RestRequest, rest: str = "") -> bytes:
        try:
            return _json(request, await self._serve(request))
        except _Refusal as refusal:
            self.failed += 1
            return self._refuse(request, refusal.status, refusal.error, refusal.id)
        except CancelledError:
            self.cancelled += 1
            raise

    @_route("/live", "GET")
    def get_live(self, request: RestRequest) -> bytes:
        return _json(request, b'{"status":"ok"}')

    @_route("/openapi.json", "GET")
    def get_openapi(self, request: RestRequest) -> bytes:
        return _json(request, self._openapi)

    @_route("/docs", "GET")
    def get_docs(self, request: RestRequest) -> bytes:
        request.setHeader(b"content-security-policy", page.CONTENT_SECURITY_POLICY)
        return _text(request, b"text/html; charset=utf-8", page.PAGE)

    @_route("/docs/start.js", "GET")
    def get_start(self, request: RestRequest) -> bytes:
        return _text(request, b"text/javascript", page.START)

    @_route("/docs/<name>", "GET")
    async def get_docs_file(self, request: RestRequest, name: str) -> bytes:
        found = page.file(name)
        if found is None:
            raise NotFound
        kind, path = found
        request.setHeader(b"content-type", kind)
        request.setHeader(b"content-length", b"%d" % path.stat().st_size)
        request.setHeader(b"cache-control", b"max-age=3600")
        with path.open("rb") as file:
            while part := file.read(FILE_PART):
                request.write(part)
                # Strangers who do not read it must not make us keep all of it.
                pause, end = FILE_STEP, self._reactor.seconds() + FILE_SECONDS
                while request.channel is not None and unsent(request.channel.transport):
                    if self._reactor.seconds() > end:
                        request.channel.transport.abortConnection()
                    await deferLater(self._reactor, pause)
                    pause = min(1.0, 2 * pause)
        return b""

    @_failing(HTTPException)
    def no_such(self, request: RestRequest, failure: Any) -> bytes:
        error = failure.value
        method = short(request.method.decode(), 40)
        path = short(request.path.decode("utf-8", "replace"), 100)
        if isinstance(error, MethodNotAllowed):
            request.setHeader(b"allow", ", ".join(sorted(error.valid_methods or ())).encode())
            return self._refuse(request, 405, generic(f"Method [{method}] is not supported for [{path}]"))
        # A redirect of the router is no answer to a JSON client.
        status = 404 if isinstance(error, RequestRedirect) or error.code is None else error.code
        text = f"There is no [{path}]; requests go to [/jsonrpc]" if status == 404 else error.name
        return self._refuse(request, status, generic(text))

    @_failing(Exception)
    def unforeseen(self, request: RestRequest, failure: Any) -> bytes:
        self._log.failure("{name}: request failed", failure=failure, name=NAME)
        # The text of an unforeseen failure may hold anything; the client learns its kind only.
        return self._refuse(request, 500, generic(f"Internal error: {failure.type.__name__}"))

    def _refuse(self, request: RestRequest, status: int, error: OpenemsError, id: str = NIL_ID) -> bytes:
        request.setResponseCode(status)
        if status == 401:
            request.setHeader(b"www-authenticate", b'Basic realm="OpenEMS Backend", charset="UTF-8"')
        elif status in (429, 503):
            self.rejected += 1
            request.setHeader(b"retry-after", b"%d" % RETRY_AFTER)
        return _json(request, error_body(error, id))

    # --- one request

    async def _serve(self, request: RestRequest) -> bytes:
        if self._stopping or not self._metadata.initialized:
            raise _Refusal(503, OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE))
        begun = self._reactor.seconds()
        method, result = "other", "error"
        try:
            self._check_request(request)
            user = await self._user(request)
            try:
                asked = envelope.parse(request.body())
            except envelope.BadEnvelope as e:
                raise _Refusal(400, e.error, e.id) from None
            method = label(asked.method)
            reply = await self._answer(user, asked, begun)
            result = "ok"
            return reply
        except _Refusal as refusal:
            result = "timeout" if refusal.status == 504 else errors.outcome(refusal.error)
            raise
        except CancelledError:
            result = "cancelled"
            raise
        finally:
            self.completed += 1
            if self.observe is not None:
                self.observe(method, self._reactor.seconds() - begun)
            if self.observe_result is not None:
                self.observe_result(method, result)

    def _check_request(self, request: RestRequest) -> None:
        if request.overflow == "size":
            raise _Refusal(413, too_large(self.site.max_body))
        if request.overflow:
            raise _Refusal(503, OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE))
        headers = request.requestHeaders
        kind = headers.getRawHeaders(b"content-type", [b""])[0].decode("latin-1").strip().lower()
        site = headers.getRawHeaders(b"sec-fetch-site")
        if site:
            is_foreign = site[0].strip().lower() in (b"cross-site", b"same-site")
        else:
            # Without TLS a browser tells only that it is one.
            is_foreign = headers.hasHeader(b"origin") and kind.partition(";")[0].rstrip() in _UNASKED
        if is_foreign:
            # A browser adds a login it knows to what any page makes it send.
            raise _Refusal(403, generic("Requests from pages of other sites are refused"))
        encoding = headers.getRawHeaders(b"content-encoding")
        if encoding and encoding[0].strip().lower() not in (b"", b"identity"):
            raise _Refusal(415, generic("The body is encoded; send it as it is"))
        if kind:
            _check_type(kind)

    async def _user(self, request: RestRequest) -> User:
        header = request.requestHeaders.getRawHeaders(b"authorization")
        credentials = rest_credentials(header[0].decode("latin-1")) if header else None
        if credentials is None:
            raise _Refusal(401, OpenemsError(errors.COMMON_AUTHENTICATION_FAILED))
        login = self._credentials.rest_user(*credentials, request.remote())
        try:
            user: User = await within(self._reactor, None, login, self._work)
            return user
        except OpenemsError as e:
            raise _Refusal(_STATUS.get(e.code, 401), e) from None
        except CancelledError:
            if self._stopping:
                raise _Refusal(503, OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)) from None
            raise

    async def _answer(self, user: User, asked: Request, begun: float) -> bytes:
        now = self._reactor.seconds()
        if self.running >= MAX_RUNNING:
            raise _Refusal(503, OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE), asked.id)
        if self._users[user.id] >= MAX_RUNNING_OF_USER or (
            self._limit is not None and not self._limit.take(user.id, now)
        ):
            self.limited += 1
            raise _Refusal(429, OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS), asked.id)
        seconds = TIMEOUT if asked.timeout is None or asked.timeout <= 0 else min(asked.timeout, MAX_TIMEOUT)
        self.running += 1
        self._users[user.id] += 1
        try:
            # One deadline for all of it: the login has used some of the time.
            work = self._handler.handle_request(NAME, user, asked)
            result = await within(self._reactor, begun + seconds - now, work, self._work)
            if result is None:
                raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, asked.method)
            return Success(asked.id, jsonrpc.raw(result)).encode()
        except TimeoutError:
            raise _Refusal(504, generic(f"Timeout after [{seconds} s]"), asked.id) from None
        except OpenemsError as e:
            raise _Refusal(_STATUS.get(e.code, 400), e, asked.id) from None
        except CancelledError:
            if self._stopping:
                raise _Refusal(503, OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE), asked.id) from None
            raise
        except Exception as e:
            self._log.failure("{name}: {method} failed", name=NAME, method=printable(short(asked.method, 100)))
            raise _Refusal(500, generic(f"Internal error: {type(e).__name__}"), asked.id) from None
        finally:
            self.running -= 1
            self._users[user.id] -= 1
            if not self._users[user.id]:
                del self._users[user.id]

    # --- IDebugLoggable

    def debug_log(self) -> str | None:
        if self._port is None:
            return f"[{NAME}] [monitor] NOT STARTED"
        return (
            f"[{NAME}] [monitor] Connections: {len(self.site.channels)}, Completed: {self.completed}, "
            f"Active: {self.running}"
        )

    def debug_metrics(self) -> Mapping[str, int | float]:
        return {
            f"{ID}/Connections": len(self.site.channels),
            f"{ID}/Active": self.running,
            f"{ID}/Completed": self.completed,
            f"{ID}/Failed": self.failed,
            f"{ID}/Cancelled": self.cancelled,
            f"{ID}/Rejected": self.rejected,
            f"{ID}/Unparsed": self.site.unparsed,
            f"{ID}/Refused": self.site.refused,
            f"{ID}/Logins": self._credentials.verified,
            f"{ID}/LoginsRefused": self._credentials.refused,
            f"{ID}/LoginsLimited": self._credentials.limited,
        }


def _json(request: RestRequest, body: bytes) -> bytes:
    return _text(request, b"application/json", body)


def _text(request: RestRequest, kind: bytes, body: bytes) -> bytes:
    request.setHeader(b"content-type", kind)
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


def _check_type(kind: str) -> None:
    """What tools call JSON by mistake is taken, as ever; what cannot be JSON is not."""
    if kind.startswith("multipart/"):
        raise _Refusal(415, generic("The body is a form; send JSON"))
    charset = kind.partition("charset=")[2].partition(";")[0].strip(" \"'")
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise _Refusal(415, generic(f"The body is in {short(charset, 40)}; send UTF-8"))
