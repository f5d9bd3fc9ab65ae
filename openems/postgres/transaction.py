"""Several statements, all or nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg2

from openems.postgres.connection import Connection, Unavailable

T = TypeVar("T")
#: For a ROLLBACK whose deadline is over: the session is worth that.
ROLLBACK_SECONDS = 1.0


class Transaction:
    """What a function in :meth:`~openems.postgres.pool.Pool.transaction` works with: ``query`` and ``execute`` as on
    the pool."""

    def __init__(self, connection: Connection, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    @property
    def server_version(self) -> int:
        return self._connection.server_version

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._connection.query(sql, params, self._deadline)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        return await self._connection.execute(sql, params, self._deadline)


async def within(connection: Connection, deadline: float, work: Callable[[Transaction], Awaitable[T]]) -> T:
    """``work`` between BEGIN and COMMIT; after whatever it raises ROLLBACK, or the end of the session."""
    await connection.execute("BEGIN", (), deadline)
    try:
        result = await work(Transaction(connection, deadline))
        await connection.execute("COMMIT", (), deadline)
    except BaseException:
        if not connection.closed:
            try:
                await connection.execute("ROLLBACK", (), max(deadline, connection.now() + ROLLBACK_SECONDS))
            except (Unavailable, psycopg2.Error):
                connection.close()
        raise
    return result
