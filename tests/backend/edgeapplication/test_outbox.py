"""The queue to the manager as a model: in order, bounded, nothing lost uncounted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edgeapplication.outbox import ConnectedEdges, OfConnection, Outbox

STEPS = st.lists(
    st.sampled_from(["put", "put", "put", "request", "list", "open", "close", "stop", "resume", "fail"]), max_size=80
)


class Model(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(STEPS, st.integers(300, 5000), st.integers(1, 5))
    def test_rules(self, steps: list[str], limit: int, takes: int) -> None:
        outbox = Outbox(limit)
        written: list[bytes] = []
        taken = 0
        failing = False

        def write(frame: bytes) -> bool:
            nonlocal taken
            if failing:
                return False
            written.append(frame)
            taken += 1
            if taken >= takes:
                outbox.stopped()
            return True

        put: list[bytes] = []
        is_open = False
        for number, step in enumerate(steps):
            if step in ("put", "request", "list"):
                kind = {"put": bytes, "request": OfConnection, "list": ConnectedEdges}[step]
                if step == "list" and outbox.list_waits:
                    continue
                frame = kind(b"%d:" % number + b"x" * 150)
                put.append(frame)
                outbox.put(frame)
            elif step == "open" and not is_open:
                is_open, taken = True, 0
                outbox.opened(write)
            elif step == "close" and is_open:
                is_open = False
                outbox.closed()
                self.assertFalse(any(isinstance(f, OfConnection) for f in outbox._frames))
            elif step == "stop":
                outbox.stopped()
            elif step == "resume":
                taken = 0
                outbox.resumed()
            elif step == "fail":
                failing = not failing
            self.assertLessEqual(outbox.bytes, limit)
            self.assertEqual(outbox.bytes, sum(len(f) + 100 for f in outbox._frames))
            self.assertEqual(outbox.list_waits, any(isinstance(f, ConnectedEdges) for f in outbox._frames))
            self.assertTrue(is_open or not outbox.congested)
        order = {frame: index for index, frame in enumerate(put)}
        places = [order[frame] for frame in written]
        self.assertEqual(places, sorted(places))
        self.assertEqual(len(set(places)), len(places))
        messages = [f for f in put if type(f) is bytes]
        accounted = sum(type(f) is bytes for f in [*written, *outbox._frames])
        self.assertLessEqual(len(messages) - accounted, outbox.dropped)

    def test_a_frame_longer_than_the_bound(self) -> None:
        outbox = Outbox(1000)
        outbox.put(b"a")
        outbox.put(b"b" * 2000)
        self.assertEqual((len(outbox), outbox.bytes, outbox.dropped, outbox.dropped_bytes), (0, 0, 2, 2001))
