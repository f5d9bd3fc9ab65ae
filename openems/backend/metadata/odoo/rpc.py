"""Odoo over HTTP: web JSON-RPC with one shared session, XML-RPC, reports (metadata-odoo.md 7 to 9).

Rules
- One deadline covers a whole call: its turn, a new login where the session has ended, and the repetition.
- One session of the administrator is shared. Who finds it ended logs in again, once, for all that wait.
- A refused login of the administrator is not tried again at once: after some refusals Odoo refuses every login that
  comes from this machine (odoo-keycloak-verified.md 1.3). A call of XML-RPC is a login, too.
- What is no answer of Odoo (a proxy's page, a redirect) is treated as none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.backend.metadata.odoo.once import Once, TooMany
from openems.backend.metadata.odoo.replies import (
    ACCESS_DENIED,
    COOL_DOWN,
    Fault,
    NoReply,
    OdooError,
    OdooUnavailable,
    Refused,
    SessionExpired,
    decode_reply,
    encode_call,
    result_of,
    session_id,
)
from openems.http.exchange import Exchange, ExchangeError, Reply

T = TypeVar("T")

#: Seconds for one call: of the web interface, of XML-RPC, and of what renders or mails.
WEB_SECONDS = 10.0
XML_SECONDS = 30.0
SLOW_SECONDS = 60.0
#: Seconds after a refused login of the administrator until the next, doubled each time.
FIRST_PAUSE = 5.0
LAST_PAUSE = 120.0
MAX_REPLY = 16 << 20
MAX_REPORT = 32 << 20
LOG_EVERY = 60.0

AUTHENTICATE = "/web/session/authenticate"
DESTROY = "/web/session/destroy"
SESSION_INFO = "/web/session/get_session_info"
OBJECT = "/xmlrpc/2/object"
COMMON = "/xmlrpc/2/common"


class Session(msgspec.Struct, frozen=True):
    """Of a user. ``info``: Odoo's ``session_info``, with the member ``openems`` where our addon is installed.
    ``asked_at``: it is not newer, in the reactor's seconds."""

    id: str
    info: dict[str, Any]
    asked_at: float

    def __repr__(self) -> str:
        return "Session(...)"


class _Refusals:
    """After each refused login a longer pause."""

    def __init__(self) -> None:
        self.until = 0.0
        self._pause = FIRST_PAUSE

    def refused(self, now: float) -> None:
        self.until = now + self._pause
        self._pause = min(LAST_PAUSE, self._pause * 2)

    def accepted(self) -> None:
        self.until = 0.0
        self._pause = FIRST_PAUSE


class OdooRpc:
    """``url`` without a slash at its end. ``uid`` of XML-RPC; 1, the technical user, cannot log in any more and means:
    the administrator's own. Every method raises OpenemsError."""

    _log = Logger()

    def __init__(
        self,
        exchange: Exchange,
        *,
        url: str,
        database: str,
        login: str = "admin",
        password: str,
        uid: int = 1,
        reactor: Any,
    ) -> None:
        self.exchange = exchange
        self.url = url
        self.logins = 0
        self.failures = 0
        #: Why the last call got no answer; None after one that did.
        self.down: str | None = None
        self._database = database
        self._login = login
        self._password = password
        self._uid = uid
        self._reactor = reactor
        self._session: str | None = None
        self._admin_logins: Once[None, str] = Once()
        self._refused_web, self._refused_xml = _Refusals(), _Refusals()
        self._logged_at = -LOG_EVERY
        self._running: set[Deferred[Any]] = set()

    async def close(self) -> None:
        """What runs is given up."""
        for work in tuple(self._running):
            work.cancel()
        await self.exchange.close()

    # --- the web interface

    async def call(self, route: str, params: dict[str, Any], *, timeout: float = WEB_SECONDS) -> Any:
        """A route of the addon with the administrator's session; its ``result``."""
        return await self._within(self._as_admin(lambda session: self._web(route, params, session)), timeout)

    async def log_in(self, login: str, password: str) -> Session:
        """With a user's own credentials. Raises :class:`Refused`."""
        if not login.strip() or not password.strip():
            raise Refused()
        return await self._within(self._log_in(login.lower(), password), WEB_SECONDS)

    async def session_info(self, session: str) -> Session:
        """Who a session belongs to. Raises :class:`Refused` where it belongs to nobody any more."""
        asked_at = self._reactor.seconds()
        try:
            info = await self._within(self._web(SESSION_INFO, {}, session), WEB_SECONDS)
        except SessionExpired:
            raise Refused() from None
        if not isinstance(info, dict) or not info.get("uid"):
            raise Refused()
        return Session(session, info, asked_at)

    async def destroy(self, session: str) -> None:
        """A session that has ended already is no error."""
        try:
            await self._within(self._web(DESTROY, {}, session), WEB_SECONDS)
        except SessionExpired:
            pass

    async def probe(self) -> None:
        """Whether Odoo answers the administrator; ``down`` tells afterwards."""
        await self._within(self._as_admin(lambda session: self._web(SESSION_INFO, {}, session)), WEB_SECONDS)

    async def renew(self) -> None:
        """A new login of the administrator: to Odoo, one success more from this machine."""
        await self._within(self._admin(), WEB_SECONDS)

    async def _log_in(self, login: str, password: str) -> Session:
        body = {
            "jsonrpc": "2.0",
            "method": "call",
            "params": {"db": self._database, "login": login, "password": password},
        }
        asked_at = self._reactor.seconds()
        reply = await self._exchange("POST", AUTHENTICATE, json=body)
        info = self._result(reply, AUTHENTICATE)
        # A cookie comes with a refusal, too: only the reply counts. A user with a second factor has no uid yet.
        session = session_id(reply.set_cookies, info)
        if session is None or not isinstance(info, dict) or not info.get("uid"):
            raise Refused()
        return Session(session, info, asked_at)

    async def _web(self, route: str, params: dict[str, Any], session: str) -> Any:
        body = {"params": params} if route not in (DESTROY, SESSION_INFO) else {}
        reply = await self._exchange("POST", route, json=body, headers={"Cookie": f"session_id={session}"})
        return self._result(reply, route)

    def _result(self, reply: Reply, route: str) -> Any:
        try:
            value = reply.object()
        except ExchangeError:
            raise self._gone(f"{route}: HTTP {reply.status} without JSON") from None
        if reply.status >= 400 and "error" not in value:
            raise self._gone(f"{route}: HTTP {reply.status}")
        return result_of(value, route)

    async def _as_admin(self, work: Callable[[str], Awaitable[T]]) -> T:
        session = self._session or await self._admin()
        try:
            return await work(session)
        except SessionExpired:
            if self._session == session:
                self._session = None
            return await work(self._session or await self._admin())

    async def _admin(self) -> str:
        """The administrator's session, by a login that all who need one share."""
        try:
            return await self._admin_logins.run(None, self._admin_login)
        except TooMany:
            raise OdooUnavailable("too many calls wait for a login", sent=False) from None

    async def _admin_login(self) -> str:
        if self._reactor.seconds() < self._refused_web.until:
            raise OdooUnavailable(f"Odoo refused login and password of {self._login}", sent=False)
        # Who began it may give up, so it has an end of its own.
        try:
            session = await self._limited(self._log_in(self._login, self._password), WEB_SECONDS)
        except Refused:
            self._refused_web.refused(self._reactor.seconds())
            raise self._gone(f"Odoo refuses login and password of {self._login}", sent=False) from None
        except DeferredTimeout:
            raise self._gone("no answer to the login of the administrator") from None
        self.logins += 1
        self._refused_web.accepted()
        self._session = session.id
        return session.id

    # --- XML-RPC

    async def execute(
        self,
        prefix: str,
        model: str,
        method: str,
        arguments: list[Any],
        options: dict[str, Any] | None = None,
        *,
        timeout: float = XML_SECONDS,
    ) -> Any:
        """``prefix`` begins the text of an error. ``options`` None is sent as nil. Raises :class:`Fault`."""

        async def call() -> Any:
            uid = self._uid if self._uid != 1 else await self._admin_uid()
            if self._reactor.seconds() < self._refused_xml.until:
                raise OdooUnavailable(f"Odoo refused user {uid} and the password", sent=False)
            body = encode_call((self._database, uid, self._password, model, method, arguments, options))
            try:
                result = await self._xml(OBJECT, body, prefix)
            except Fault as e:
                if e.fault_code != ACCESS_DENIED:
                    raise
                self._refused_xml.refused(self._reactor.seconds())
                raise self._gone(f"{OBJECT}: Odoo refuses user {uid} and the password", sent=False) from None
            self._refused_xml.accepted()
            return result

        return await self._within(call(), timeout)

    async def check_password(self, login: str, password: str) -> None:
        """Without a new session. Raises :class:`Refused`."""

        async def call() -> None:
            body = encode_call((self._database, login, password, {}), "authenticate")
            try:
                uid = await self._xml(COMMON, body, "Unable to log in")
            except Fault as e:
                if COOL_DOWN in e.text:
                    raise OdooUnavailable("Odoo refuses all logins of this machine for a minute", sent=False) from None
                raise
            if not uid:
                raise Refused()

        await self._within(call(), WEB_SECONDS)

    async def _xml(self, route: str, body: bytes, prefix: str) -> Any:
        reply = await self._exchange("POST", route, content=("text/xml; charset=utf-8", body))
        if reply.status != 200:
            raise self._gone(f"{route}: HTTP {reply.status}")
        try:
            return decode_reply(reply.body, prefix)
        except NoReply:
            raise self._gone(f"{route}: no XML-RPC") from None

    async def _admin_uid(self) -> int:
        info = await self._as_admin(lambda session: self._web(SESSION_INFO, {}, session))
        uid = info.get("uid") if isinstance(info, dict) else None
        if not isinstance(uid, int):
            raise OdooError("Odoo does not tell the id of its administrator")
        self._uid = uid
        return uid

    # --- reports

    async def report(self, name: str, record_id: int) -> bytes:
        """A PDF."""
        route = f"/report/pdf/{name}/{record_id}"

        async def get(session: str) -> bytes:
            try:
                reply = await self._exchange(
                    "GET",
                    f"{route}?session_id={session}",
                    headers={"Cookie": f"session_id={session}", "Accept": "application/pdf"},
                    path=f"/report/pdf/{name}",
                    max_body=MAX_REPORT,
                )
            except _Redirected:
                # To the login page: what it would lead to is no PDF.
                raise SessionExpired() from None
            if reply.status != 200 or not reply.body.startswith(b"%PDF"):
                raise OdooError(f"Odoo could not make the report of [{record_id}]")
            return reply.body

        return await self._within(self._as_admin(get), SLOW_SECONDS)

    # --- all of them

    async def _exchange(self, method: str, route: str, *, path: str | None = None, **more: Any) -> Reply:
        try:
            more.setdefault("max_body", MAX_REPLY)
            reply = await self.exchange.request(
                method, self.url + route, path=path or route, timeout=SLOW_SECONDS, **more
            )
        except ExchangeError as e:
            if e.kind == "redirect":
                raise _Redirected() from None
            raise self._gone(str(e), sent=e.sent) from None
        refused = self._reactor.seconds() < max(self._refused_web.until, self._refused_xml.until)
        if self.down is not None and not refused:
            self._log.info("Odoo answers again")
            self.down = None
            self._logged_at = -LOG_EVERY
        return reply

    async def _within(self, work: Awaitable[T], timeout: float) -> T:
        try:
            return await self._limited(work, timeout)
        except DeferredTimeout:
            raise self._gone(f"no answer within {timeout:.0f} s") from None
        except CancelledError:
            raise
        except _Redirected:
            raise self._gone("it sends requests elsewhere") from None

    async def _limited(self, work: Awaitable[T], timeout: float) -> T:
        async def run() -> T:
            return await work

        # Whatever the cancelled request says of itself.
        running: Deferred[Any] = Deferred.fromCoroutine(run()).addTimeout(
            timeout, self._reactor, lambda _, __: Failure(DeferredTimeout())
        )
        self._running.add(running)
        try:
            result: T = await running
            return result
        finally:
            self._running.discard(running)

    def _gone(self, reason: str, *, sent: bool = True) -> OdooUnavailable:
        self.failures += 1
        self.down = reason
        self._complain(reason)
        return OdooUnavailable(reason, sent=sent)

    def _complain(self, reason: str) -> None:
        now = self._reactor.seconds()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            self._log.warn("Odoo at {url}: {reason}", url=self.url, reason=reason)


class _Redirected(Exception):
    pass
