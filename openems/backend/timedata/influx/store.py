"""What both providers on InfluxDB are made of: the server, the questions to it, what waits for it, what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from twisted.logger import Logger

from openems.backend.timedata.influx import monitor
from openems.backend.timedata.influx.client import Client
from openems.backend.timedata.influx.database import INFLUX_QL, Reader, deliver
from openems.backend.timedata.influx.lineprotocol import Conflict, Encoder
from openems.backend.timedata.influx.owners import Owners
from openems.backend.timedata.influx.repeated import Repeated
from openems.backend.timedata.influx.statements import StatementError, Table
from openems.backend.timedata.plausibility import Plausibility
from openems.backend.timedata.spool import Item, Spool
from openems.backend.timedata.spoolretry import Write
from openems.common.data import DataKind, Row
from openems.common.errors import COMMON_SERVICE_NOT_AVAILABLE, OpenemsError

T = TypeVar("T")


class Options(TypedDict, total=False):
    """Of a provider, beside what it stores. ``api_key``: a token, or ``user:password`` of InfluxDB 1."""

    org: str
    api_key: str
    query_language: str
    read_only: bool
    pool_size: int
    memory_values: int
    disk_bytes: int
    batch_values: int
    stop_patience: float
    agent: Any


class Store:
    """``directory`` is for what waits while the server is away; ``send`` writes a batch, ``check`` says whether
    everything can be read. ``parallel``: batches that are written at once."""

    _log = Logger()

    def __init__(
        self,
        id: str,
        directory: Path,
        url: str,
        send: Write,
        check: Callable[[], Awaitable[bool]],
        plausibility: Plausibility,
        *,
        reactor: Any,
        now: Callable[[], int],
        parallel: int = 1,
        max_delay: float = 0.5,
        org: str = "-",
        api_key: str = "",
        query_language: str = INFLUX_QL,
        read_only: bool = False,
        pool_size: int = 10,
        memory_values: int = 1_000_000,
        disk_bytes: int = 1 << 30,
        batch_values: int = 5_000,
        stop_patience: float = 5.0,
        agent: Any = None,
    ) -> None:
        self.id = id
        self.read_only = read_only
        self.client = Client(url, org, api_key, reactor=reactor, slots=pool_size, agent=agent)
        self.reader = Reader(id, self.client, query_language, seconds=reactor.seconds)
        self.plausibility = plausibility
        self.owners = Owners()
        self.spool = Spool(
            id,
            directory,
            send,
            reactor=reactor,
            now=now,
            memory_values=memory_values,
            disk_bytes=disk_bytes,
            batch_values=batch_values,
            max_delay=max_delay,
            parallel=max(1, min(pool_size, parallel)),
        )
        self.left_out: Counter[str] = Counter()
        self._reactor = reactor
        self._now = now
        self._check = check
        self._checking: Repeated | None = None
        self._stop_patience = stop_patience

    # -- life ------------------------------------------------------------------------------------

    async def start(self, what: str, **names: Any) -> None:
        """Does not wait for the server: trouble with it is logged, and found out about again and again. ``what`` is in
        it: for the log, with ``names``."""
        if not self.read_only:
            await self.spool.start()
        mode = " (read only)" if self.read_only else ""
        self._log.info("{id}: " + what + "{mode}", id=self.id, url=self.client.url, mode=mode, **names)
        self._checking = Repeated(self._reactor, self._check)

    async def stop(self) -> None:
        """Writes what waits for a limited time; the rest goes to disk."""
        if self._checking is not None:
            self._checking.stop()
        await self.spool.stop(self._stop_patience)
        await self.client.close()

    # -- writing ---------------------------------------------------------------------------------

    def put(self, edge_id: str, kind: DataKind, rows: dict[int, Row], checked_as: DataKind) -> None:
        """What is plausible and of an edge whose number is its own."""
        try:
            self.owners.tag(edge_id, claim=True)
        except OpenemsError as error:
            self.leave_out("edge", sum(map(len, rows.values())), error.message)
            return
        rows = self.plausibility.rows(edge_id, checked_as, rows, self._now())
        if rows:
            self.spool.put((edge_id, kind, rows))

    def leave_out(self, reason: str, count: int, text: str) -> None:
        if reason not in self.left_out:
            self._log.warn("{id}: not stored ({reason}): {text}", id=self.id, reason=reason, text=text)
        self.left_out[reason] += count

    async def deliver(
        self, table: Table, precision: str, encoder: Encoder, items: list[Item], learn: Callable[[Conflict], None]
    ) -> None:
        await deliver(self.client, table, precision, lambda: encoder.encode(items), learn, self.leave_out)

    # -- reading ---------------------------------------------------------------------------------

    async def answered(self, question: Awaitable[T]) -> T:
        """What no answer can be made of is logged; whoever asked learns that there is none now (code 1006)."""
        try:
            return await question
        except StatementError as error:
            self._log.warn("{id}: query failed: {error}", id=self.id, error=str(error))
            raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE) from None

    # -- state -----------------------------------------------------------------------------------

    def dropped(self, *lost: Mapping[str, int]) -> dict[str, int]:
        """Values (points, where the server left them out) not stored, by reason; ``lost`` by the encoders."""
        return monitor.total(self.plausibility.dropped, self.left_out, *lost, self.spool.dropped)

    def debug_log(self, dropped: Mapping[str, int], problem: str | None) -> str:
        return monitor.line(self.id, self.spool, self.client, dropped, problem)

    def debug_metrics(self, dropped: Mapping[str, int]) -> dict[str, int | float]:
        return monitor.metrics(self.id, self.spool, self.client, self.reader, dropped)
