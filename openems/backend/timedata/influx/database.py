"""A database as the providers see it: statements are answered, batches delivered; errors are of a few clear kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from twisted.logger import Logger

from openems.backend.timedata.influx import flux, influxql
from openems.backend.timedata.influx.client import Client, InfluxError
from openems.backend.timedata.influx.lineprotocol import Conflict, FieldType, conflict_of, known_types, partial_of
from openems.backend.timedata.influx.statements import Answer, Statement, StatementError, Table, fields_of
from openems.backend.timedata.spool import Refused, TryLater
from openems.common.errors import COMMON_SERVICE_NOT_AVAILABLE, OpenemsError, generic
from openems.http.concurrency import Busy

T = TypeVar("T")
INFLUX_QL, FLUX = "INFLUX_QL", "FLUX"
#: Statements of one exchange; more are asked for one after the other.
MAX_STATEMENTS = 500
#: Conflicts healed in one batch before it is halved.
MAX_CONFLICTS = 300
LOG_EVERY = 60.0
#: InfluxQL's words for: this bucket has no name in that language.
_NO_MAPPING = ("database not found", "no dbrp mapping", "dbrp mapping not found")


def explained(error: InfluxError, bucket: str, what: str) -> str:
    """What an administrator should know; ``what`` is "read" or "write".

    >>> explained(InfluxError(401, "unauthorized access"), "openems", "write")
    'the token is not accepted or may not write bucket "openems" (apiKey, org): 401 unauthorized access'
    """
    if error.status in (401, 403):
        return f'the token is not accepted or may not {what} bucket "{bucket}" (apiKey, org): {error}'
    if "no space left on device" in error.text:
        # Its log of writes stays broken once it did not fit.
        return f"the disk of the server is full; make room and restart InfluxDB: {error}"
    if error.status == 404:
        return f'there is no bucket "{bucket}" for this token, or no such organisation (bucket, org): {error}'
    return str(error)


class Reader:
    """Questions to one server in the language of the configuration.

    Where a bucket has no name in InfluxQL (InfluxDB 2 without mapping), Flux is used instead. Fields with several
    types, by shard, are asked for in InfluxQL even so: Flux answers with the values of one type only.
    """

    _log = Logger()

    def __init__(self, id: str, client: Client, language: str, *, seconds: Callable[[], float]) -> None:
        self.id = id
        self.language = language
        self._client = client
        self._seconds = seconds
        self._logged_at = -LOG_EVERY
        self._mixed: dict[Table, frozenset[str]] = {}
        self.answered = 0
        self.failed = 0
        self.refused = 0

    async def ask(self, table: Table, edge: str, statements: Sequence[Statement]) -> list[Answer]:
        """Raises :class:`StatementError` where a field is no number, OpenemsError in all other cases."""
        found: list[Answer] = []
        for at in range(0, len(statements), MAX_STATEMENTS):
            part = statements[at : at + MAX_STATEMENTS]
            found += await self._guarded(lambda part=part: self._ask(table, edge, part), table)  # type: ignore[misc]
        self.answered += 1
        return found

    async def types(self, table: Table) -> Mapping[str, FieldType]:
        """Of all fields of a measurement. Raises OpenemsError."""
        return await self._guarded(lambda: self._types(table), table)

    async def check(self, table: Table) -> Mapping[str, FieldType]:
        """As :meth:`types`, for the start: raises :class:`InfluxError` or :class:`StatementError` as they are."""
        return await self._types(table)

    async def _types(self, table: Table) -> Mapping[str, FieldType]:
        query = f"SHOW FIELD KEYS FROM {influxql.source(table)}"
        pairs = influxql.field_types(await self._client.influxql(table.database, table.policy, query))
        several = Counter(name for name, _ in pairs)
        self._mixed[table] = frozenset(name for name, count in several.items() if count > 1)
        return known_types(pairs)

    async def _ask(self, table: Table, edge: str, statements: Sequence[Statement]) -> list[Answer]:
        if self.language == FLUX:
            mixed = self._mixed.get(table)
            if not mixed or mixed.isdisjoint(fields_of(statements)):
                return await self._ask_flux(table, edge, statements)
            return await self._ask_both(table, edge, statements, mixed)
        try:
            return await self._ask_influxql(table, edge, statements)
        except StatementError as error:
            if not any(words in str(error) for words in _NO_MAPPING):
                raise
            reason = str(error)
        except InfluxError as error:
            if error.status != 404 or not any(words in error.text for words in _NO_MAPPING):
                raise
            reason = error.text
        answers = await self._ask_flux(table, edge, statements)
        self.language = FLUX
        self._log.warn(
            '{id}: bucket "{bucket}" cannot be asked in InfluxQL ({reason}): Flux is used from now on.'
            " influx v1 dbrp create makes the mapping",
            id=self.id,
            bucket=table.bucket,
            reason=reason,
        )
        return answers

    async def _ask_both(
        self, table: Table, edge: str, statements: Sequence[Statement], mixed: frozenset[str]
    ) -> list[Answer]:
        answers: list[Answer] = [{} for _ in statements]
        for ask, chosen in ((self._ask_flux, False), (self._ask_influxql, True)):
            parts = [
                (number, statement.of(field for field in statement.fields if (field in mixed) is chosen))
                for number, statement in enumerate(statements)
            ]
            parts = [(number, part) for number, part in parts if part.fields]
            if parts:
                found = await ask(table, edge, [part for _, part in parts])
                for (number, _), answer in zip(parts, found, strict=True):
                    answers[number].update(answer)
        return answers

    async def _ask_influxql(self, table: Table, edge: str, statements: Sequence[Statement]) -> list[Answer]:
        texts = [text for statement in statements for text in influxql.texts(table, edge, statement)]
        body = await self._client.influxql(table.database, table.policy, ";".join(texts))
        return influxql.answers(statements, influxql.results(body, len(texts)))

    async def _ask_flux(self, table: Table, edge: str, statements: Sequence[Statement]) -> list[Answer]:
        try:
            body = await self._client.flux(flux.script(table, edge, statements))
        except InfluxError as error:
            if error.status == 400 and any(words in error.text for words in flux.TYPE_ERRORS):
                raise StatementError(error.text, types=True) from None
            raise
        return flux.answers(body, len(statements))

    async def _guarded(self, work: Callable[[], Awaitable[T]], table: Table) -> T:
        try:
            return await work()
        except Busy:
            self.refused += 1
            raise generic("Too many history queries are waiting") from None
        except StatementError as error:
            if error.types:
                raise
            text = str(error)
        except InfluxError as error:
            text = explained(error, table.bucket, "read")
        self.failed += 1
        # The text may name fields and queries: it is for the log.
        if self._seconds() - self._logged_at >= LOG_EVERY:
            self._logged_at = self._seconds()
            self._log.warn("{id}: query failed: {text}", id=self.id, text=text)
        raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE)


async def deliver(
    client: Client,
    table: Table,
    precision: str,
    encode: Callable[[], str],
    learn: Callable[[Conflict], None],
    drop: Callable[[str, int, str], None],
) -> None:
    """One batch into a bucket: for :class:`~openems.backend.timedata.spool.Spool`, whose exceptions it raises.

    Where a field has another type in the database, ``learn`` is told and the batch encoded and sent anew, so that
    nothing of it is missing. ``drop``: reason, number of points and the server's text for what a server leaves out of a
    batch that it took.
    """
    healed: set[tuple[str, FieldType]] = set()
    while True:
        lines = encode()
        if not lines:
            return
        try:
            await client.write(table.bucket, lines, precision)
            return
        except Busy:
            raise TryLater("too many writes are waiting") from None
        except InfluxError as error:
            if error.status not in (400, 413, 422):
                raise TryLater(explained(error, table.bucket, "write")) from None
            if error.status == 413:
                raise Refused("size", str(error)) from None
            conflict = conflict_of(error.text)
            if conflict is None:
                left_out = partial_of(error.text)
                if left_out is None or "field type conflict" in left_out[0]:
                    raise Refused("conflict" if left_out else "refused", str(error)) from None
                drop("retention" if "retention" in left_out[0] else "partial", left_out[1], error.text)
                return
            key = (conflict.field, conflict.required)
            if key in healed or len(healed) >= MAX_CONFLICTS or conflict.measurement != table.measurement:
                # The same again: one batch with times in shards of different types. Halved, it finds its way.
                raise Refused("conflict", str(error)) from None
            healed.add(key)
            learn(conflict)
