"""The provider on the real servers: what was there before it, errors, conflicts of types."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.backend.timedata.influx import influxql
from openems.backend.timedata.influx.client import Client, InfluxError
from openems.backend.timedata.influx.database import FLUX, INFLUX_QL
from openems.backend.timedata.influx.owners import Owners
from openems.backend.timedata.influx.period import Period
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.backend.timedata.plausibility import ChannelFilter
from openems.common.data import DataKind, DataNotification, Row
from openems.common.errors import OpenemsError
from openems.common.resolution import Resolution, Unit
from services.influxdb2 import call
from tests.backend.timedata.conformance import DAY, MINUTE, NOW, at, day
from tests.backend.timedata.influx.servers import Bucket, bucket

FIVE = Resolution(5, Unit.MINUTES)
BASE = at("2026-06-01")
SPAN = day("2026-06-01"), day("2026-06-01") + datetime.timedelta(minutes=10)


def wait(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)  # type: ignore[arg-type]


class PureTests(SynchronousTestCase):
    def test_timedata_15_time_filter(self) -> None:
        self.assertIn(0, Period.of(None, ""))
        self.assertNotIn(0, Period.of("2000-01-30", None))
        self.assertIn(1672531200000, Period.of("2000-01-30", None))
        self.assertNotIn(1672531200000, Period.of(None, "2000-01-30"))
        # Java's bound is a millisecond too long (timedata.md 14, 19).
        self.assertIn(1706659199999, Period.of(None, "2024-01-30"))
        self.assertNotIn(1706659200000, Period.of(None, "2024-01-30"))
        self.assertRaises(ValueError, Period.of, "30.01.2000", None)

    def test_edges_that_share_a_number(self) -> None:
        owners = Owners()
        self.assertEqual("7", owners.tag("fems7"))
        self.assertEqual("7", owners.tag("edge7", claim=True))
        self.assertEqual("7", owners.tag("edge7"))
        error = self.assertRaises(OpenemsError, owners.tag, "fems7")
        self.assertIn("same number as edge [edge7]", error.message)
        self.assertEqual(("0", "backend0"), (owners.tag("edge0", True), owners.tag("backend0", True)))


class InfluxTests:
    SERVICE = "influxdb2"
    LANGUAGE = INFLUX_QL

    def setUp(self) -> None:
        self.bucket: Bucket = bucket(self.SERVICE)
        self.lines: list[str] = []
        observer = lambda event: self.lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)  # type: ignore[attr-defined]

    async def make(self, **options: Any) -> InfluxTimedata:
        options = {"query_language": self.LANGUAGE, **self.bucket.options, **options}
        path = options.pop("path", None) or Path(self.mktemp())  # type: ignore[attr-defined]
        provider = InfluxTimedata("timedata0", path, reactor=reactor, now=lambda: NOW, **options)
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))  # type: ignore[attr-defined]
        return provider

    async def put(self, provider: InfluxTimedata, rows: dict[int, Row], kind: DataKind = DataKind.TIMESTAMPED) -> None:
        provider.write("edge7", DataNotification(kind, rows))
        await provider.flush()

    async def data(self, provider: InfluxTimedata, *channels: str) -> Any:
        return (await provider.query_historic_data("edge7", *SPAN, channels, FIVE)).data

    async def test_a_bucket_of_java_is_read_and_continued(self) -> None:
        """Lines as its client sends them: booleans as booleans, a field that is text, numbers by their literal."""
        self.bucket.write(
            "\n".join(
                f"data,edge=7 _sum/EssSoc={50 + n}i,_sum/GridActivePower={300 + n}i,io0/Relay1={'tf'[n % 2]},"
                f'meter0/Frequency={49.5 + n},_meta/Version="2026.4.{n}" {BASE + n * MINUTE}'
                for n in range(10)
            )
            + f"\ndata,edge=0 _sum/EssSoc=1i {BASE}"
        )
        provider = await self.make()
        names = ["_sum/EssSoc", "_sum/GridActivePower", "io0/Relay1", "meter0/Frequency", "_meta/Version", "a0/Nope"]
        self.assertEqual(
            {
                "_sum/EssSoc": [52, 57],
                "_sum/GridActivePower": [302, 307],
                "io0/Relay1": [0.6, 0.4],
                "meter0/Frequency": [51.5, 56.5],
                "_meta/Version": ["2026.4.4", "2026.4.9"],
            },
            await self.data(provider, *names),
        )
        before = await provider.query_first_value_before("edge7", SPAN[1], names)
        self.assertEqual({"_sum/EssSoc": 59, "_sum/GridActivePower": 309, "io0/Relay1": 0, "meter0/Frequency": 58.5,
                          "_meta/Version": "2026.4.9"}, before)  # fmt: skip
        energy = await provider.query_historic_energy("edge7", *SPAN, names)
        self.assertEqual({"_sum/EssSoc": 9, "_sum/GridActivePower": 9, "meter0/Frequency": 9}, energy)
        later = BASE + 9 * MINUTE + 30_000
        await self.put(
            provider,
            {
                later: {
                    **{"_sum/EssSoc": 70.0, "meter0/Frequency": 50, "io0/Relay1": True},
                    **{"_sum/GridActivePower": 1, "_meta/Version": 5},
                }
            },
        )
        query = f'SELECT {", ".join(map(influxql.identifier, names[:-1]))} FROM "data"'
        self.assertEqual(
            [[later, 70, 1, True, 50, "5"]], self.bucket.query(f"{query} WHERE \"edge\" = '7' AND time >= {later}ms")
        )
        self.assertEqual({}, provider.dropped)

    async def test_t051_one_conflict_in_five_thousand_lines(self) -> None:
        self.bucket.write(f'data,edge=7 a0/Float=1.5,a0/Text="x",a0/Bool=true {BASE}\ndata,edge=8 a0/Int=1i {BASE}')
        provider = await self.make(batch_values=6_000)
        rows: dict[int, Row] = {BASE + 1000 + n: {"a0/Other": n} for n in range(5_000)}
        rows[BASE + 2000].update({"a0/Float": 2, "a0/Int": 7.9, "a0/Text": 3, "a0/Bool": 1})
        # The database was asked for its types: forget them, so that the server has to say it.
        await wait(0.3)
        provider._encoder = type(provider._encoder)("data", "edge")
        await self.put(provider, rows)
        self.assertEqual([[0, 5000]], self.bucket.query('SELECT COUNT("a0/Other") FROM "data"'))
        query = 'SELECT "a0/Float", "a0/Int", "a0/Text", "a0/Bool" FROM "data"'
        self.assertEqual(
            [[BASE + 2000, 2, 7, "3", True]],
            self.bucket.query(f"{query} WHERE \"edge\" = '7' AND time >= {BASE + 2000}ms"),
        )
        self.assertEqual({}, provider.dropped)
        self.assertEqual(0, provider.debug_metrics()["timedata0/Retries"])

    async def test_a_value_that_cannot_be_converted_costs_itself(self) -> None:
        provider = await self.make()
        await self.put(provider, {BASE: {"a0/B": 1, "a0/C": 1}})
        provider._encoder.learn({"a0/B": provider._encoder._types.get("a0/B", _unsigned())})
        await self.put(provider, {BASE + 1: {"a0/B": -5, "a0/C": 2}})
        self.assertEqual({"conflict": 1}, provider.dropped)
        self.assertEqual([[0, 2]], self.bucket.query('SELECT COUNT("a0/C") FROM "data"'))

    async def test_types_stay_in_new_shards(self) -> None:
        self.bucket.write(f"data,edge=7 a0/B=1.5 {BASE - 60 * DAY}")
        provider = await self.make()
        await provider.check()
        await self.put(provider, {BASE: {"a0/B": 2}})
        self.assertEqual([["a0/B", "float"]], self.bucket.query('SHOW FIELD KEYS FROM "data"'))

    async def test_integers_and_floats_in_one_field(self) -> None:
        """As the Java backend makes them: the type is that of the first value of each shard."""
        lines = [
            f"data,edge=7 a0/B={n}{'i' if n % 2 else '.5'},a0/C={n}i {BASE - 60 * DAY + n * 10 * DAY}" for n in range(6)
        ]
        self.bucket.write("\n".join(lines))
        provider = await self.make()
        await provider.check()
        span = day("2026-04-02"), day("2026-06-01")
        answer = await provider.query_historic_data("edge7", *span, ["a0/B", "a0/C"], Resolution(10, Unit.DAYS))
        values = [[v for v in answer.data[c] if v is not None] for c in ("a0/B", "a0/C")]
        self.assertEqual([[0.5, 1, 2.5, 3, 4.5, 5], [0, 1, 2, 3, 4, 5]], values)
        energy = await provider.query_historic_energy("edge7", *span, ["a0/B", "a0/C"])
        self.assertEqual({"a0/B": 4.5, "a0/C": 5}, energy)

    async def test_names_of_java_need_quotes(self) -> None:
        provider = await self.make(measurement="my data-1.x", tag="the edge")
        await self.put(provider, {BASE: {"a0/B": 1}})
        self.assertEqual({"a0/B": [1, None]}, await self.data(provider, "a0/B"))

    async def test_t071_strange_addresses(self) -> None:
        self.bucket.write(f"data,edge=3 a0/B=99i {BASE}")
        provider = await self.make()
        await self.put(provider, {BASE: {"a0/B": 1}})
        strange = [
            "_sum/X\") AS \"a0/B\" FROM \"data\" WHERE \"edge\" = '3' -- ", "_sum/X\\", "ess0/So c", "a/b/c",
            "a0/\U0001f600", 'x") or true) |> yield() //', "a0/${r.edge}", "a0/\n", "a0/'", "a0/B\\", "\ud800/x",
            "x" * 300,
        ]  # fmt: skip
        self.assertEqual({"a0/B": [1, None]}, await self.data(provider, "a0/B", *strange))
        energy = await provider.query_historic_energy("edge7", *SPAN, strange)
        self.assertEqual({}, energy)
        self.assertEqual({}, await provider.query_first_value_before("edge7", SPAN[1], strange))
        for edge in ("edge7' OR 'x' = 'x", 'edge7"', "edge"):
            failure = await self.assertFailure(  # type: ignore[attr-defined]
                Deferred.fromCoroutine(provider.query_historic_data(edge, *SPAN, ["a0/B"], FIVE)), OpenemsError
            )
            self.assertIn("Unable to parse number", failure.message)

    async def test_start_and_end_date_clip(self) -> None:
        provider = await self.make(period=Period.of("2026-06-02", "2026-06-02"))
        rows: dict[int, Row] = {at("2026-06-01T12:00") + n * DAY: {"a0/B": n, "a0/E": n * 10} for n in range(4)}
        await self.put(provider, rows)
        self.assertEqual([[0, 1]], self.bucket.query('SELECT COUNT("a0/B") FROM "data"'))
        self.assertEqual({}, provider.dropped)
        other = await self.make()
        await self.put(other, rows)
        answer = await provider.query_historic_data(
            "edge7", day("2026-06-01"), day("2026-06-05"), ["a0/B"], Resolution(1, Unit.DAYS)
        )
        self.assertEqual({"a0/B": [None, 1, None, None]}, answer.data)
        whole = day("2026-06-01"), day("2026-06-05")
        self.assertEqual({}, await provider.query_historic_energy("edge7", *whole, ["a0/E"]))
        self.assertEqual({"a0/E": 30}, await other.query_historic_energy("edge7", *whole, ["a0/E"]))
        self.assertEqual({}, await provider.query_first_value_before("edge7", day("2026-06-02"), ["a0/B"]))

    async def test_denied_channels_and_read_only(self) -> None:
        provider = await self.make(channels=ChannelFilter(["a0/Denied"], ["_PropertyAlias"]))
        await self.put(provider, {BASE: {"a0/B": 1, "a0/Denied": 1, "b0/_PropertyAlias": 1, "noComponent/B": 1}})
        self.assertEqual([["a0/B", "integer"]], self.bucket.query('SHOW FIELD KEYS FROM "data"'))
        reading = await self.make(read_only=True)
        await self.put(reading, {BASE: {"a0/C": 1}})
        self.assertEqual({"a0/B": [1, None]}, await self.data(reading, "a0/B", "a0/C"))

    async def test_edges_with_one_number_are_kept_apart(self) -> None:
        provider = await self.make()
        await self.put(provider, {BASE: {"a0/B": 1}})
        provider.write("fems7", DataNotification(DataKind.TIMESTAMPED, {BASE: {"a0/B": 5}}))
        provider.write("backend0", DataNotification(DataKind.TIMESTAMPED, {BASE: {"ctrl0/B": 5}}))
        provider.write("nonumber", DataNotification(DataKind.TIMESTAMPED, {BASE: {"a0/B": 5}}))
        await provider.flush()
        self.assertEqual({"edge": 2}, provider.dropped)
        self.assertEqual({"a0/B": [1, None]}, await self.data(provider, "a0/B"))
        await self.assertFailure(  # type: ignore[attr-defined]
            Deferred.fromCoroutine(provider.query_historic_data("fems7", *SPAN, ["a0/B"], FIVE)), OpenemsError
        )
        answer = await provider.query_historic_data("edge0", *SPAN, ["ctrl0/B"], FIVE)
        self.assertEqual({}, answer.data)
        answer = await provider.query_historic_data("backend0", *SPAN, ["ctrl0/B"], FIVE)
        self.assertEqual({"ctrl0/B": [5, None]}, answer.data)

    async def test_many_holes_at_once(self) -> None:
        """What is looked for one by one and what is looked for in one go must agree."""
        provider = await self.make()
        rows: dict[int, Row] = {}
        for n, seconds in enumerate((0, 290, 400, 710, 1100, 1390, 1400, 1702, 2400)):
            rows[BASE + seconds * 1000] = {"a0/B": n, **({"a0/C": n} if n % 2 else {})}
        rows[BASE - 10_000] = {"a0/B": 77, "a0/C": 78}
        await self.put(provider, dict(sorted(rows.items())))
        end = SPAN[0] + datetime.timedelta(minutes=30)
        answers = []
        from openems.backend.timedata.influx import reader

        for few in (0, 10_000):
            self.patch(reader, "FEW_HOLES", few)  # type: ignore[attr-defined]
            for seconds in (20, 60, 300):
                answer = await provider.query_historic_data(
                    "edge7", SPAN[0], end, ["a0/B", "a0/C"], Resolution(seconds, Unit.SECONDS)
                )
                answers.append(answer.data)
        self.assertEqual(answers[:3], answers[3:])
        self.assertEqual([0] * 14, answers[0]["a0/B"][:14])
        self.assertEqual([78] * 10, answers[0]["a0/C"][:10])


def _unsigned() -> Any:
    from openems.backend.timedata.influx.lineprotocol import FieldType

    return FieldType.UNSIGNED


class Influxdb2InfluxQlTests(InfluxTests, TestCase):
    async def test_t055_wrong_token(self) -> None:
        provider = await self.make(api_key="wrong")
        provider.write("edge7", DataNotification(DataKind.TIMESTAMPED, {BASE: {"a0/B": 1}}))
        await wait(1.5)
        line = provider.debug_log() or ""
        self.assertIn(f'CANNOT WRITE: the token is not accepted or may not write bucket "{self.bucket.name}"', line)
        self.assertNotIn("wrong", " ".join(self.lines) + line)
        self.assertEqual(1, provider.debug_metrics()["timedata0/Waiting"])
        failure = await self.assertFailure(Deferred.fromCoroutine(self.data(provider, "a0/B")), OpenemsError)
        self.assertEqual(1006, failure.code)
        # The administrator puts it right: nothing is lost, nobody restarts anything.
        provider._client._token = self.bucket.token
        await provider.flush()
        self.assertEqual({"a0/B": [1, None]}, await self.data(provider, "a0/B"))

    async def test_t055_restricted_tokens(self) -> None:
        """Read and write on the bucket is all that is ever needed."""
        [org] = call(f"{self.bucket.url}/api/v2/orgs", token=self.bucket.token)["orgs"]
        found = call(f"{self.bucket.url}/api/v2/buckets?name={self.bucket.name}", token=self.bucket.token)["buckets"]
        tokens = {}
        for actions in (("read",), ("write",), ("read", "write")):
            permissions = [
                {"action": action, "resource": {"type": "buckets", "id": found[0]["id"], "orgID": org["id"]}}
                for action in actions
            ]
            made = call(
                f"{self.bucket.url}/api/v2/authorizations",
                {"orgID": org["id"], "permissions": permissions},
                token=self.bucket.token,
            )
            tokens["".join(actions)] = made["token"]
        both = await self.make(api_key=tokens["readwrite"])
        await self.put(both, {BASE: {"a0/B": 1}})
        self.assertEqual({"a0/B": [1, None]}, await self.data(both, "a0/B"))
        writing = await self.make(api_key=tokens["write"])
        await self.put(writing, {BASE + 5 * MINUTE: {"a0/B": 2}})
        reading = await self.make(api_key=tokens["read"])
        self.assertEqual({"a0/B": [1, 2]}, await self.data(reading, "a0/B"))
        reading.write("edge7", DataNotification(DataKind.TIMESTAMPED, {BASE + 1: {"a0/B": 3}}))
        await wait(1.0)
        self.assertIn("may not write bucket", reading.debug_log() or "")

    async def test_a_missing_bucket_or_organisation(self) -> None:
        for options, text in (({"bucket": "nope"}, 'no bucket "nope"'), ({"org": "nope"}, "no such organisation")):
            provider = await self.make(**options)
            provider.write("edge7", DataNotification(DataKind.TIMESTAMPED, {BASE: {"a0/B": 1}}))
            await wait(1.0)
            self.assertIn(text, provider.debug_log() or "")
            self.assertEqual(1, provider.debug_metrics()["timedata0/Waiting"])

    async def test_t057_without_mapping_flux_is_used(self) -> None:
        await self.put(await self.make(), {BASE: {"a0/B": 1}})
        provider = await self.make()
        influxql = Client.influxql

        async def no_mapping(client: Client, database: str, policy: str, query: str) -> bytes:
            return await influxql(client, "unknown", policy, query)

        self.patch(Client, "influxql", no_mapping)
        self.assertEqual({"a0/B": [1, None]}, await self.data(provider, "a0/B"))
        self.assertEqual(FLUX, provider._reader.language)
        self.assertTrue(await provider.check())
        self.assertIsNone(provider.problem)
        self.assertEqual(1, sum("Flux is used from now on" in line for line in self.lines))

    async def test_no_query_text_reaches_a_client(self) -> None:
        provider = await self.make()

        async def refuse(client: Client, database: str, policy: str, query: str) -> bytes:
            raise InfluxError(400, f"error parsing query: {query}")

        self.patch(Client, "influxql", refuse)
        failure = await self.assertFailure(Deferred.fromCoroutine(self.data(provider, "a0/B")), OpenemsError)
        self.assertNotIn("SELECT", failure.message)


class Influxdb2FluxTests(InfluxTests, TestCase):
    LANGUAGE = FLUX


class Influxdb1InfluxQlTests(InfluxTests, TestCase):
    SERVICE = "influxdb1"

    async def test_a_retention_policy_of_ones_own_is_written_and_read(self) -> None:
        self.bucket.name = f"{self.bucket.name}/mine"
        self.bucket.make(self.bucket.name)
        provider = await self.make()
        await self.put(provider, {BASE: {"a0/B": 1}})
        self.assertEqual({"a0/B": [1, None]}, await self.data(provider, "a0/B"))
        self.assertEqual([[BASE, 1]], self.bucket.query('SELECT "a0/B" FROM "mine"."data"'))
