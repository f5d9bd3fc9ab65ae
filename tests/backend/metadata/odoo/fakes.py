"""Odoo and its PostgreSQL in memory, for tests with a Clock."""

from __future__ import annotations

import json
import xmlrpc.client
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from openems.backend.metadata.odoo.rpc import OdooRpc
from openems.http.concurrency import Concurrency
from openems.http.exchange import Reply

JSON = {"content-type": "application/json"}


def ok(result: Any, *cookies: str) -> Reply:
    body = json.dumps({"jsonrpc": "2.0", "id": None, "result": result}).encode()
    return Reply(200, JSON, body, "POST", set_cookies=cookies or ("session_id=" + "c" * 40 + "; Path=/",))


def failed(name: str, message: str = "", *, code: int = 200, status: int = 200) -> Reply:
    data = {"name": name, "debug": "Traceback ...", "message": message, "arguments": [message], "context": {}}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "x", "data": data}}).encode()
    # As Odoo: a cookie comes with a refusal, too.
    return Reply(status, JSON, body, "POST", set_cookies=("session_id=" + "d" * 40 + "; Path=/",))


DENIED = failed("odoo.exceptions.AccessDenied", "Access Denied")
EXPIRED = failed("odoo.http.SessionExpiredException", "Session expired", code=100)


def xml(value: Any) -> Reply:
    body = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()
    return Reply(200, {"content-type": "text/xml"}, body, "POST")


def fault(code: int, text: str) -> Reply:
    body = xmlrpc.client.dumps(xmlrpc.client.Fault(code, text)).encode()
    return Reply(200, {"content-type": "text/xml"}, body, "POST")


class FakeExchange:
    """``answers``: path -> a Reply, an exception, a Deferred, or a function of what was asked. ``asked``: what was.
    XML-RPC is under ``model.method``."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any, str | None]] = []
        self.concurrency = Concurrency(30, 1000)

    async def request(self, method: str, url: str, **more: Any) -> Reply:
        path = url.removeprefix("http://odoo:8069").partition("?")[0]
        asked = more.get("json")
        if more.get("content") is not None:
            parameters, name = xmlrpc.client.loads(more["content"][1])
            if name == "execute_kw":
                path, asked = f"{parameters[3]}.{parameters[4]}", parameters[5:]
            else:
                asked = parameters
        self.asked.append((path, asked, (more.get("headers") or {}).get("Cookie")))
        answer = self.answers[path]
        if callable(answer):
            answer = answer(asked)
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None: ...

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


AUTHENTICATE = "/web/session/authenticate"


def rpc_of(exchange: FakeExchange, clock: Clock, **more: Any) -> OdooRpc:
    exchange.answers.setdefault(AUTHENTICATE, ok({"uid": 2, "username": "admin"}, "session_id=" + "a" * 40))
    options = {"database": "prod", "password": "pw", "uid": 2, **more}
    return OdooRpc(exchange, url="http://odoo:8069", reactor=clock, **options)  # type: ignore[arg-type]


class FakePool:
    """``answer(sql, parameters)`` gives rows, or raises."""

    name = "fake"

    def __init__(self, answer: Callable[[str, Any], Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Any]] = []

    async def query(self, sql: str, parameters: Any = (), **more: Any) -> Any:
        self.asked.append((sql, parameters))
        value = self.answer(sql, parameters)
        if isinstance(value, Deferred):
            value = await value
        return value

    execute = query

    async def transaction(self, work: Any, **more: Any) -> Any:
        return await work(self)
