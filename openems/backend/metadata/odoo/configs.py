"""Configurations of edges and what is logged beside them, in Odoo's database (metadata-odoo.md 11.10, 11.11).

The stored text is the edge's own with line breaks and indents for people who read it in Odoo; number texts, order and
unknown members are the edge's. While the database is away configurations and log entries wait, within bounds.
"""

from __future__ import annotations

import html
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec
import psycopg2
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openems.backend.metadata.odoo import statements
from openems.common import edgeconfig
from openems.common.edgeconfig import EdgeConfig
from openems.common.errors import generic
from openems.common.jsonrpc import dumps
from openems.postgres.pool import Pool, Transaction, Unavailable

T = TypeVar("T")

STORE_SECONDS = 20.0
LOAD_SECONDS = 10.0
#: Seconds between tries while the database is away.
RETRY = 5.0
#: Bytes of configurations that wait for the database, and of those kept to be read while it is away.
MAX_WAITING = 64 << 20
MAX_KEPT = 32 << 20
MAX_ENTRIES = 1_000
#: Configurations stored at the same time: thousands of edges may connect at once.
PARALLEL = 4
#: Characters of one teaser or value in the log.
MAX_TEXT = 100_000


class OdooConfigs:
    """A ConfigStore, with the change logged in the transaction that stores it. ``now``: epoch milliseconds.

    Metrics: ``waiting`` (configurations), ``dropped``.
    """

    _log = Logger()

    def __init__(self, pool: Pool, *, reactor: Any, now: Callable[[], int]) -> None:
        self.dropped = 0
        self.problem: str | None = None
        self._pool = pool
        self._reactor = reactor
        self._now = now
        self._waiting: dict[str, bytes] = {}
        self._size = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_size = 0
        self._stopping = False
        self._running = 0
        self._turns: deque[Deferred[None]] = deque()
        self._pauses: set[Deferred[None]] = set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def stop(self) -> None:
        """What waits is tried once more, not longer."""
        self._stopping = True
        for pause in tuple(self._pauses):
            pause.cancel()

    # ConfigStore

    def load(self, edge_id: str) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self._load(edge_id))

    def save(self, edge_id: str, config: bytes) -> Deferred[None]:
        return Deferred.fromCoroutine(self._save(edge_id, config))

    async def _load(self, edge_id: str) -> bytes | None:
        waiting = self._waiting.get(edge_id)
        if waiting is not None:
            return waiting
        try:
            rows = await self._pool.query(statements.CONFIG, (edge_id,), timeout=LOAD_SECONDS, repeatable=True)
        except Unavailable:
            kept = self._kept.get(edge_id)
            if kept is not None:
                return kept
            raise generic("The configuration cannot be read at the moment") from None
        stored = rows[0][0] if rows else None
        if not stored:
            return None
        config = compact(stored)
        self._keep(edge_id, config)
        return config

    def load_for_save(self, edge_id: str, config: bytes) -> Deferred[bytes | None]:
        async def load() -> bytes | None:
            rows = await self._pool.query(statements.CONFIG, (edge_id,), timeout=LOAD_SECONDS, repeatable=True)
            return compact(rows[0][0]) if rows and rows[0][0] else None

        return Deferred.fromCoroutine(self._waited(edge_id, config, load))

    async def _save(self, edge_id: str, config: bytes) -> None:
        """Returns when it is stored; raises where it had to be given up."""

        async def store() -> None:
            await self._pool.transaction(
                lambda transaction: self._store(transaction, edge_id, config), timeout=STORE_SECONDS
            )

        await self._waited(edge_id, config, store)
        self._keep(edge_id, config)

    async def _waited(self, edge_id: str, config: bytes, work: Callable[[], Awaitable[T]]) -> T:
        """Does it as soon as the database is there, in its turn. Raises OpenemsError where that is given up."""
        if self._size + len(config) > MAX_WAITING:
            self._drop()
        self._waiting[edge_id] = config
        self._size += len(config)
        try:
            await self._turn()
            try:
                return await self._until_done(edge_id, work)
            finally:
                self._running -= 1
                if self._turns:
                    self._turns.popleft().callback(None)
        finally:
            self._size -= len(self._waiting.pop(edge_id, b""))

    async def _turn(self) -> None:
        if self._running >= PARALLEL:
            turn: Deferred[None] = Deferred(self._turns.remove)
            self._turns.append(turn)
            await turn
        self._running += 1

    async def _until_done(self, edge_id: str, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                result = await work()
                self.problem = None
                return result
            except Unavailable:
                pass
            except (psycopg2.Error, ValueError) as e:
                if statements.is_refused(e):
                    self._log.warn(
                        "Edge [{edge_id}]: Odoo's database refuses the configuration: {kind}",
                        edge_id=edge_id,
                        kind=type(e).__name__,
                    )
                    raise generic("The configuration could not be stored") from None
                self.problem = _complain(self._log, self.problem, "configurations", e)
            if self._stopping:
                self._drop()
            pause: Deferred[None] = deferLater(self._reactor, RETRY)
            self._pauses.add(pause)
            try:
                await pause
            except CancelledError:
                if not self._stopping:
                    raise
            finally:
                self._pauses.discard(pause)

    def _drop(self) -> NoReturn:
        self.dropped += 1
        if self.dropped == 1 or self.dropped % 100 == 0:
            self._log.warn("{count} configurations could not be stored in Odoo", count=self.dropped)
        raise generic("The configuration could not be stored")

    async def _store(self, transaction: Transaction, edge_id: str, config: bytes) -> None:
        rows = await transaction.query(statements.CONFIG_FOR_UPDATE, (edge_id,))
        if not rows:
            return  # the edge is gone
        odoo_id, stored = rows[0]
        new, old = EdgeConfig(config), EdgeConfig(stored.encode() if stored else b"{}")
        changes = edgeconfig.diff(new, old)
        if changes:
            text = edgeconfig.as_text(changes)
            if text.strip():
                line = "; ".join(text.splitlines())[:2_000]
                self._log.info("Edge [{edge_id}]. Update config: {line}", edge_id=edge_id, line=line)
            entry = (statements.utc(self._now()), odoo_id, plain(text), plain(edgeconfig.as_html(changes)))
            await transaction.execute(statements.LOG, entry)
        await transaction.execute(
            statements.STORE_CONFIG, (plain(pretty(config)), plain(pretty(components(new))), odoo_id)
        )

    def _keep(self, edge_id: str, config: bytes) -> None:
        self._kept_size += len(config) - len(self._kept.pop(edge_id, b""))
        self._kept[edge_id] = config
        while self._kept_size > MAX_KEPT and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_size -= len(dropped)


def pretty(config: bytes) -> str:
    """
    >>> print(pretty(b'{"a":1.50,"b":[]}'))
    {
      "a": 1.50,
      "b": []
    }
    """
    try:
        return msgspec.json.format(config, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return config.decode("utf-8", "replace")


def compact(text: str) -> bytes:
    """The edge's own bytes again, but for spaces between them."""
    data = text.encode("utf-8", "replace")
    try:
        return msgspec.json.format(data, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return data


def components(config: EdgeConfig) -> bytes:
    """``openems_config_components``: ids and properties sorted, without those that only name the component."""
    return dumps(
        {
            component.id: {
                "alias": component.alias,
                "factoryId": component.factory_id,
                "properties": component.properties,
            }
            for component in config.components.values()
        }
    )


def plain(text: str) -> str:
    """A text that the database takes."""
    return text.replace("\x00", "") if "\x00" in text else text


class SystemLog:
    """Entries of system commands, in order, one after the other. Metrics: ``waiting``, ``written``, ``dropped``."""

    _log = Logger()

    def __init__(self, pool: Pool, *, reactor: Any, now: Callable[[], int]) -> None:
        self.written = 0
        self.dropped = 0
        self.problem: str | None = None
        self._pool = pool
        self._reactor = reactor
        self._now = now
        self._entries: deque[tuple[Any, ...]] = deque()
        self._work: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._stopping = False

    @property
    def waiting(self) -> int:
        return len(self._entries)

    def add(self, odoo_id: int, who: str, teaser: str, values: Mapping[str, str]) -> None:
        if len(self._entries) >= MAX_ENTRIES:
            self.dropped += 1
            self._log.error("entry of the system log lost, {count} until now", count=self.dropped)
            return
        details = table({**values, "Executed By": who})
        self._entries.append((statements.utc(self._now()), odoo_id, plain(teaser[:MAX_TEXT]), plain(details)))
        if self._work is None:
            self._work = Deferred.fromCoroutine(self._write())
            self._work.addErrback(lambda failure: self._log.failure("system log failed", failure))
            self._work.addBoth(self._idle)

    def _idle(self, result: Any) -> None:
        self._work = None

    async def _write(self) -> None:
        while self._entries:
            entry = self._entries[0]
            try:
                await self._pool.execute(statements.LOG, entry, timeout=STORE_SECONDS)
            except (Unavailable, psycopg2.Error, ValueError) as e:
                if not isinstance(e, Unavailable):
                    if statements.is_refused(e):
                        self.dropped += 1
                        self._log.error("entry of the system log refused: {kind}", kind=type(e).__name__)
                        self._entries.popleft()
                        continue
                    self.problem = _complain(self._log, self.problem, "the system log", e)
                if self._stopping:
                    return
                self._pause = deferLater(self._reactor, RETRY)
                try:
                    await self._pause
                except CancelledError:
                    if not self._stopping:
                        raise
            else:
                self.problem = None
                self.written += 1
                self._entries.popleft()

    async def stop(self) -> None:
        self._stopping = True
        if self._pause is not None and not self._pause.called:
            self._pause.cancel()
        work = self._work
        if work is not None:
            done: Deferred[None] = Deferred()
            work.addBoth(lambda result: done.callback(None))
            await done
        if self._entries:
            self._log.error("{count} entries of the system log could not be written", count=len(self._entries))


def _complain(log: Logger, known: str | None, what: str, error: Exception) -> str:
    """The problem in words; logged when it is another than the one that is known."""
    problem = f"{what} cannot be written to Odoo's database: {statements.reason_of(error)}"
    if problem != known:
        log.warn("{problem}", problem=problem)
    return problem


def table(values: Mapping[str, str]) -> str:
    """One header row and one of values, escaped.

    >>> table({"Sudo": "<b>"})
    '<table border="1"><thead><tr><th>Sudo</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in values)
    cells = "".join(f"<td>{html.escape(value[:MAX_TEXT])}</td>" for value in values.values())
    return f'<table border="1"><thead><tr>{head}</tr></thead><tbody><tr>{cells}</tr></tbody></table>'
