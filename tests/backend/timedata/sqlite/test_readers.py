"""Which thread answers a question."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from openems.backend.timedata.sqlite import schema
from openems.backend.timedata.sqlite.readers import Readers

reactor: Any = _reactor


class Threads(TestCase):
    timeout = 20

    def setUp(self) -> None:
        path = self.mktemp()
        schema.open_for_writing(path).close()
        self.readers = Readers("history", path, 3, generation=lambda: 0, call=reactor.callFromThread)
        self.readers.start()
        self.stopped: Deferred[None] | None = None
        self.addCleanup(self.stop)

    def stop(self) -> Deferred[None]:
        if self.stopped is None:
            self.stopped = self.readers.stop()
        return self.stopped

    async def test_the_last_one_to_have_worked(self) -> None:
        names = {await self.readers.ask(lambda _: threading.current_thread().name) for _ in range(20)}
        self.assertEqual(1, len(names))

    async def test_all_of_them_and_more_wait_their_turn(self) -> None:
        gate = threading.Barrier(3, timeout=10)

        def together(_: Any) -> str:
            gate.wait()
            return threading.current_thread().name

        names = await gatherResults([self.readers.ask(together) for _ in range(6)])
        self.assertEqual(["history 0", "history 1", "history 2"], sorted(set(names)))
        self.assertEqual(6, len(names))

    async def test_one_that_fails_goes_on(self) -> None:
        for _ in range(4):
            with self.assertRaisesRegex(ZeroDivisionError, "division"):
                await self.readers.ask(lambda _: 1 // 0)
        self.assertEqual((1,), await self.readers.ask(lambda connection: connection.execute("SELECT 1").fetchone()))

    async def test_what_waits_is_asked_when_they_stop(self) -> None:
        open_ = threading.Event()
        first = [self.readers.ask(lambda _: open_.wait(10)) for _ in range(3)]
        late = self.readers.ask(lambda _: "late")
        stopped = self.stop()
        open_.set()
        await gatherResults(first)
        self.assertEqual("late", await late)
        await stopped
