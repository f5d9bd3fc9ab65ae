from __future__ import annotations

import gzip
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from openems.backend.timedata.influx import client as client_module
from openems.backend.timedata.influx.client import Client, InfluxError
from openems.backend.timedata.influx.database import deliver, explained
from openems.backend.timedata.influx.lineprotocol import Conflict
from openems.backend.timedata.influx.statements import Table
from openems.backend.timedata.spool import Refused, TryLater
from openems.http.concurrency import Busy

CONFLICT = (
    'partial write: field type conflict: input field "a0/B" on measurement "data" is type integer, already exists as'
    " type float dropped=1"
)


@implementer(IResponse)
class Response:
    version = (b"HTTP", 1, 1)
    phrase = b""
    length = 0
    request = None
    previousResponse = None

    def __init__(self, code: int, body: bytes) -> None:
        self.code = code
        self.headers = Headers()
        self._body = body

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(None)
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None: ...


class Sink:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


@implementer(IAgent)
class Agent:
    """``requests``: (address, headers, body) of each; ``waiting``: what is not answered yet."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Headers, bytes]] = []
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        sink = Sink()
        bodyProducer.startProducing(sink)
        self.requests.append((uri.decode(), headers, sink.data))
        answer: Deferred[Any] = Deferred(self._cancel)
        self.waiting.append(answer)
        return answer

    def _cancel(self, answer: Deferred[Any]) -> None:
        self.cancelled += 1

    def answer(self, code: int, body: bytes = b"") -> None:
        self.waiting.pop(0).callback(Response(code, body))


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = Agent()

    def make(self, **options: Any) -> Client:
        return Client("http://host:8086/base/?x=1", "o r", "t0ken", reactor=self.clock, agent=self.agent, **options)

    def write(self, client: Client, **options: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(client.write("db/rp", "data,edge=7 a0/B=1i 5", "ms", **options))

    def read(self, client: Client) -> Deferred[bytes]:
        return Deferred.fromCoroutine(client.influxql("db", "", "SELECT 1"))

    def error(self, deferred: Deferred[Any]) -> InfluxError:
        return self.failureResultOf(deferred, InfluxError).value  # type: ignore[no-any-return]

    def test_timedata_11_requests(self) -> None:
        client = self.make()
        self.write(client)
        self.read(client)
        (write, headers, body), (read, _, form) = self.agent.requests
        self.assertEqual(
            "http://host:8086/base/api/v2/write?org=o+r&bucket=db%2Frp&precision=ms&consistency=all", write
        )
        self.assertEqual(b"data,edge=7 a0/B=1i 5", gzip.decompress(body))
        for name, value in (
            ("Authorization", "Token t0ken"),
            ("Content-Encoding", "gzip"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ):
            self.assertEqual([value], headers.getRawHeaders(name))
        self.assertEqual(("http://host:8086/base/query?db=db&epoch=ms", b"q=SELECT+1"), (read, form))

    def test_one_deadline_for_all_of_it(self) -> None:
        client = self.make(slots=1)
        first, second = self.read(client), self.read(client)
        self.clock.advance(59)
        self.assertEqual((1, 1), (len(self.agent.requests), client.reads.waiting))
        self.clock.advance(1)
        for deferred in (first, second):
            error = self.error(deferred)
            self.assertEqual((0, True), (error.status, error.away))
            self.assertIn("no answer within 60 s", error.text)
        self.assertEqual((0, 0), (client.reads.active, client.reads.waiting))
        third = self.read(client)
        self.agent.waiting.pop().callback(Response(200, b"{}"))
        self.assertEqual(b"{}", self.successResultOf(third))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_reads_and_writes_have_slots_of_their_own(self) -> None:
        client = self.make(slots=1, waiting=1)
        self.read(client)
        self.read(client)
        self.failureResultOf(self.read(client), Busy)
        self.write(client)
        self.assertEqual(2, len(self.agent.requests))

    def test_the_next_one_gets_the_slot(self) -> None:
        client = self.make(slots=1)
        first, second = self.read(client), self.read(client)
        self.agent.answer(200, b"1")
        self.assertEqual(b"1", self.successResultOf(first))
        self.agent.answer(200, b"2")
        self.assertEqual((b"2", 0), (self.successResultOf(second), client.reads.active))

    def test_whoever_gives_up_ends_the_request(self) -> None:
        client = self.make(slots=1)
        first, second = self.read(client), self.read(client)
        second.cancel()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.failureResultOf(second, CancelledError)
        self.assertEqual((1, 0, []), (self.agent.cancelled, client.reads.active, self.clock.getDelayedCalls()))

    def test_an_old_server_has_an_old_address(self) -> None:
        client = self.make()
        done = self.write(client)
        self.agent.answer(404, b"404 page not found\n")
        self.assertEqual("http://host:8086/base/write?db=db&precision=ms&rp=rp", self.agent.requests[1][0])
        self.agent.answer(204)
        self.assertIsNone(self.successResultOf(done))
        self.write(client)
        self.assertIn("/base/write?", self.agent.requests[2][0])

    def test_a_missing_bucket_is_no_old_server(self) -> None:
        client = self.make()
        done = self.write(client)
        self.agent.answer(404, b'{"code":"not found","message":"bucket \\"db/rp\\" not found"}')
        self.assertEqual('404 bucket "db/rp" not found', str(self.error(done)))

    def test_a_connection_given_up_by_the_server(self) -> None:
        client = self.make()
        reading, writing = self.read(client), self.write(client)
        for _ in range(2):
            self.agent.waiting.pop(0).errback(ResponseNeverReceived([Failure(ConnectionRefusedError())]))
        self.assertIn("refused", self.error(writing).text)
        self.agent.answer(200, b"{}")  # the question is asked again
        self.assertEqual(b"{}", self.successResultOf(reading))

    def test_answers_are_bounded_and_texts_are_one_line(self) -> None:
        self.patch(client_module, "MAX_BODY", 10)
        client = self.make()
        reading = self.read(client)
        self.agent.answer(200, b"x" * 11)
        self.assertEqual(413, self.error(reading).status)
        error = InfluxError(500, "a\nb" + "x" * 5000)
        self.assertTrue(str(error).startswith("500 a bx"))
        self.assertLess(len(str(error)), 1_100)

    def test_the_token_is_nowhere(self) -> None:
        client = self.make()
        writing = self.write(client)
        self.agent.answer(401, b'{"message":"unauthorized access"}')
        error = self.error(writing)
        self.assertNotIn("t0ken", repr(client) + str(error) + explained(error, "db", "write"))

    # -- deliver ---------------------------------------------------------------------------------

    def deliver(self, client: Client, learn: Any = lambda conflict: None) -> Deferred[None]:
        self.dropped: list[tuple[str, int]] = []
        return Deferred.fromCoroutine(
            deliver(
                client,
                Table("db", "rp", "data", "edge"),
                "ms",
                lambda: "line",
                learn,
                lambda reason, count, text: self.dropped.append((reason, count)),
            )
        )

    def test_t051_conflicts_of_both_versions(self) -> None:
        for status in (400, 422):
            learned: list[Conflict] = []
            done = self.deliver(self.make(), learned.append)
            self.agent.answer(status, b'{"message":"' + CONFLICT.replace('"', '\\"').encode() + b'"}')
            self.assertEqual(["a0/B"], [conflict.field for conflict in learned])
            self.agent.answer(204)
            self.assertIsNone(self.successResultOf(done))
            # The same again and again ends.
            done = self.deliver(self.make(), learned.append)
            for _ in range(2):
                self.agent.answer(status, b'{"message":"' + CONFLICT.replace('"', '\\"').encode() + b'"}')
            self.assertEqual("conflict", self.failureResultOf(done, Refused).value.reason)

    def test_what_the_server_leaves_out(self) -> None:
        done = self.deliver(self.make())
        self.agent.answer(422, b'{"message":"partial write: points beyond retention policy dropped=3"}')
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual([("retention", 3)], self.dropped)

    def test_what_may_work_later_and_what_never_will(self) -> None:
        for status in (401, 403, 404, 429, 500, 503):
            done = self.deliver(self.make())
            self.agent.answer(status, b'{"message":"x"}')
            self.failureResultOf(done, TryLater)
        for status, reason in ((400, "refused"), (413, "size"), (422, "refused")):
            done = self.deliver(self.make())
            self.agent.answer(status, b'{"message":"x"}')
            self.assertEqual(reason, self.failureResultOf(done, Refused).value.reason)
