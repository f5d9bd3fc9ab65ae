import json
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.events import ConfigReceived, ConfigUpdated, EventBus
from openems.backend.metadata import configurations
from openems.backend.metadata.configurations import NONE, Configurations, FileConfigs, differs, is_complete


def config(number: Any = 1, *, complete: bool = True, **more: Any) -> bytes:
    components = {"a": {"alias": "", "factoryId": "F", "properties": {"n": number}}}
    if complete:
        components["_sum"] = {"alias": "", "factoryId": "Core.Sum", "properties": {}}
    return json.dumps({"components": components, **more}).encode()


class TestConfigurations(SynchronousTestCase):
    """metadata.md 9, 23.4; reality.md R1, R4, R5, R18."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = EventBus()
        self.updates: list[ConfigUpdated] = []
        self.bus.subscribe(ConfigUpdated, self.updates.append)
        self.folder = os.path.abspath(self.mktemp())
        self.configs = self.new()

    def new(self) -> Configurations:
        result = Configurations(
            self.bus, FileConfigs(self.folder, execute), reactor=self.clock, is_known=lambda edge_id: edge_id != "nope"
        )
        result.start()
        return result

    def receive(self, data: bytes, edge_id: str = "edge0") -> None:
        self.bus.publish(ConfigReceived(edge_id, Raw(data)))

    def get(self, edge_id: str = "edge0") -> bytes:
        return bytes(self.successResultOf(Deferred.fromCoroutine(self.configs.get(edge_id))))

    def test_a_full_disk_is_one_line_and_nobody_waits_for_it(self) -> None:
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)

        def full(path: str, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        disk = self.patch(configurations, "write_atomically", full)
        self.receive(config(1))
        self.clock.advance(1)
        self.assertEqual(self.get(), config(1))
        self.assertEqual([bytes(update.new) for update in self.updates], [config(1)])
        (line,) = [formatEvent(event) for event in events if event["log_level"] >= LogLevel.warn]
        self.assertEqual(line, "Edge [edge0]: configuration could not be stored: No space left on device")
        disk.restore()
        # The edge comes back with the same one.
        self.receive(config(1))
        self.clock.advance(1)
        self.restart()
        self.assertEqual(self.get(), config(1))
        self.assertEqual(len(self.updates), 1)

    def restart(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.configs.stop()))
        self.configs = self.new()

    def test_none(self) -> None:
        self.assertEqual(self.get(), b'{"components":{},"factories":{}}')

    def test_verbatim_and_over_a_restart(self) -> None:
        odd = b'{ "factories":{"x" :{}}, "components":{"_sum":{"properties":{"n":12345678901234567890.10}}},"z":1e2}'
        self.receive(odd)
        self.clock.advance(1)
        self.restart()
        self.assertEqual(self.get(), odd)

    def test_r5_last_of_a_burst_is_stored_newest_is_answered(self) -> None:
        for number in range(13):
            self.receive(config(number, complete=number > 8))
            self.assertEqual(self.get(), config(number, complete=number > 8))
            self.clock.advance(0.15)
        self.assertEqual(self.updates, [])
        self.clock.advance(1)
        self.assertEqual(self.updates, [ConfigUpdated("edge0", NONE, Raw(config(12)))])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_r18_incomplete_never_replaces_complete(self) -> None:
        self.receive(config(1))
        self.receive(config(2, complete=False))
        self.assertEqual(self.get(), config(1))
        self.clock.advance(1)
        self.receive(config(3, complete=False))
        self.assertEqual(self.get(), config(1))
        self.clock.advance(1)
        self.assertEqual(self.get(), config(1))
        self.restart()
        self.assertEqual(self.get(), config(1))
        self.assertEqual(len(self.updates), 1)

    def test_incomplete_is_better_than_nothing(self) -> None:
        self.receive(config(3, complete=False))
        self.clock.advance(1)
        self.restart()
        self.assertEqual(self.get(), config(3, complete=False))

    def test_endless_burst_is_stored(self) -> None:
        for number in range(25):
            self.receive(config(number))
            self.clock.advance(0.5)
        self.assertGreaterEqual(len(self.updates), 1)

    def test_23_4_last_one_is_stored_event_only_for_a_difference(self) -> None:
        for data in (config(1), config(1, factories={"F": {}}), config("1")):
            self.receive(data)
            self.clock.advance(1)
            self.restart()
            self.assertEqual(self.get(), data)
        self.assertEqual(len(self.updates), 1)
        self.receive(config(None))
        self.clock.advance(1)
        self.assertEqual([bytes(update.new) for update in self.updates], [config(1), config(None)])

    def test_stored_when_event_comes(self) -> None:
        answers: list[bytes] = []
        self.bus.subscribe(ConfigUpdated, lambda event: answers.append(self.get(event.edge_id)))
        self.receive(config(1))
        self.clock.advance(1)
        self.assertEqual(answers, [config(1)])

    def test_one_that_comes_while_one_is_written(self) -> None:
        disk: list[Any] = []

        def slow(f: Any) -> "Deferred[Any]":
            done: Deferred[Any] = Deferred()
            disk.append((f, done))
            return done

        def go() -> None:
            f, done = disk.pop(0)
            done.callback(f())

        self.successResultOf(Deferred.fromCoroutine(self.configs.stop()))
        self.configs = Configurations(
            self.bus, FileConfigs(self.folder, slow), reactor=self.clock, is_known=lambda edge_id: True
        )
        self.configs.start()
        self.receive(config(1))
        self.clock.advance(1)  # now it is being read
        self.receive(config(2))
        self.clock.advance(1)
        go()
        go()
        self.clock.advance(1)
        go()
        self.assertEqual([bytes(update.new) for update in self.updates], [config(1), config(2)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unknown_edges_and_big_ones_are_not_kept(self) -> None:
        self.receive(config(1), "nope")
        self.receive(b'{"x":"' + b"x" * configurations.MAX_SIZE + b'"}')
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.configs.dropped, 1)

    def test_any_edge_id_is_a_file_name(self) -> None:
        for edge_id in ("", "..", "../x", "a/b", "x" * 300, "ö", "edge0"):
            self.receive(config(edge_id), edge_id)
        self.clock.advance(1)
        self.restart()
        for edge_id in ("", "..", "../x", "a/b", "x" * 300, "ö", "edge0"):
            self.assertEqual(self.get(edge_id), config(edge_id))
        self.assertEqual(len(os.listdir(self.folder)), 7)

    def test_memory_is_bounded(self) -> None:
        store = FileConfigs(self.folder, execute, max_kept=1000)
        for number in range(50):
            self.successResultOf(store.save(f"edge{number}", b"x" * 100))
        self.assertEqual(store._size, 1000)
        self.assertEqual(self.successResultOf(store.load("edge0")), b"x" * 100)
        self.assertEqual(store._size, 1000)


class TestDiffers(SynchronousTestCase):
    def test_r4(self) -> None:
        for one, other in ((5, "5"), (True, "true"), ([], "[]"), ([""], "[]"), ([""], []), ({}, "{}"), (-1.5, "-1.5")):
            self.assertFalse(differs(config(one), config(other)), (one, other))
        for one, other in ((5, 6), ("a", "A"), (1, None), ([], ["a"])):
            self.assertTrue(differs(config(one), config(other)), (one, other))

    def test_components(self) -> None:
        self.assertTrue(differs(NONE, config()))
        self.assertFalse(differs(NONE, b'{"components":{}}'))
        self.assertFalse(differs(config(), config(factories={"a": 1})))

    @given(st.binary(max_size=40) | st.sampled_from([b'{"components":{"_sum":1}}', b'{"components":[]}', b"[]"]))
    def test_any_bytes(self, data: bytes) -> None:
        is_complete(data)
        self.assertFalse(differs(data, data))
