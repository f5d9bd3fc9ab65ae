"""A real Odoo for tests: what is made in it, what is seen in it, and the provider on it."""

from __future__ import annotations

import itertools
import secrets
import time
import xmlrpc.client
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg2
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.backend.events import EventBus
from openems.backend.metadata.odoo.provider import OdooMetadata
from openems.backend.metadata.odoo.settings import OdooSettings
from openems.common.errors import OpenemsError
from services.framework import Running

reactor: Any = _reactor
_numbers = itertools.count(1000)


def settings(running: Running, **more: Any) -> OdooSettings:
    info = running.info
    return OdooSettings(
        **{
            "url": info["url"],
            "password": info["password"],
            "pg_host": "127.0.0.1",
            "pg_port": info["pg_port"],
            "pg_user": info["pg_user"],
            "pg_password": info["pg_password"],
            "database": info["database"],
            "write_interval": 0.2,
            "poll_interval": 0.3,
            **more,
        }
    )


class Inside:
    """Odoo as its own people see it: XML-RPC of the administrator, SQL. Blocks."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._proxy = xmlrpc.client.ServerProxy(f"{running.info['url']}/xmlrpc/2/object", allow_none=True)

    def execute(self, model: str, method: str, *arguments: Any, **options: Any) -> Any:
        info = self.running.info
        return self._proxy.execute_kw(
            info["database"], info["uid"], info["password"], model, method, arguments, options
        )

    def sql(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.running.info["dsn"])
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(text, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def device(self, **values: Any) -> tuple[int, str]:
        """A new one: Odoo's id, name. Its API key is ``key-<name>``, its setup password ``setup-<name>``."""
        name = values.pop("name", None) or f"edge{next(_numbers)}"
        record = {"name": name, "apikey": f"key-{name}", "setup_password": f"setup-{name}", **values}
        return self.execute("openems.device", "create", record), name

    def user(self, *, role: str | None = None, device: int | None = None, **values: Any) -> tuple[int, str]:
        """A new portal user with password ``secret``: Odoo's id, login."""
        login = values.pop("login", None) or f"u{next(_numbers)}-{secrets.token_hex(3)}@example.com"
        portal = self.execute("ir.model.data", "check_object_reference", "base", "group_portal")[1]
        record = {"login": login, "name": "Max Muster", "password": "secret", "email": login, **values}
        record.setdefault("groups_id", [[6, 0, [portal]]])
        # Without Odoo's own invitation, which would go to a mail server of this process while it waits here.
        number = self.execute("res.users", "create", record, context={"no_reset_password": True})
        if role is not None:
            self.role(number, device, role)
        return number, login

    def role(self, user: int, device: int | None, role: str) -> int:
        record = {"user_id": user, "device_id": device, "role": role}
        number: int = self.execute("openems.device_user_role", "create", record)
        return number

    def read(self, model: str, number: int, *fields: str) -> dict[str, Any]:
        record: dict[str, Any] = self.execute(model, "read", [number], fields=list(fields))[0]
        return record


class OdooCase(TestCase):
    """``self.metadata`` is started on ``self.running`` by :meth:`begin`."""

    timeout = 120

    async def begin(self, running: Running, **more: Any) -> OdooMetadata:
        self.running = running
        self.inside = Inside(running)
        self.events = EventBus()
        metadata = OdooMetadata(
            settings(running, **more), self.events, reactor=reactor, now=lambda: int(time.time() * 1000)
        )
        self.metadata = metadata
        self.addCleanup(lambda: ensureDeferred(metadata.stop()))
        await metadata.start()
        return metadata

    async def until(self, condition: Callable[[], Any], seconds: float = 15.0) -> Any:
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                self.fail("it did not become true")
            await deferLater(reactor, 0.05)
        return value

    async def refused(self, work: Awaitable[Any], code: int, text: str | None = None) -> OpenemsError:
        try:
            result = await work
        except OpenemsError as e:
            self.assertEqual(e.code, code, e.message)
            if text is not None:
                self.assertIn(text, e.message)
            return e
        self.fail(f"it was not refused: {result!r}")


def pause(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)
