"""What reads bytes of others: the corpus, and some hundred inputs made of it. ``python -m tests.fuzz.targets`` is the
long run."""

from __future__ import annotations

import datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.common import data, jsonrpc
from openems.websocket import frames as fast
from tests.fuzz import borders
from tests.fuzz.frames import Difference
from tests.fuzz.plain import CORPUS, Spoiler, corpus

INPUTS = 400
SLOW = {"frames": 80}


class Borders(SynchronousTestCase):
    def test_corpus(self) -> None:
        for name in borders.TARGETS:
            for path in sorted((CORPUS / name).iterdir()):
                with self.subTest(path=path.name):
                    borders.run(name, path.read_bytes())

    def test_spoiled(self) -> None:
        for name in borders.TARGETS:
            # Another seed each day: over time more is seen, and a failure can still be repeated.
            seed = datetime.date.today().toordinal()
            spoiler = Spoiler(seed, corpus(name))
            for number in range(SLOW.get(name, INPUTS)):
                text = spoiler.input()
                try:
                    borders.run(name, text)
                except Exception as e:
                    self.fail(f"{name}, seed {seed}, input {number} {text!r}: {e!r}")

    def test_every_target_has_a_small_corpus(self) -> None:
        self.assertEqual({path.name for path in CORPUS.iterdir()}, set(borders.TARGETS))
        sizes = [path.stat().st_size for path in CORPUS.glob("*/*")]
        self.assertLess(sum(sizes), 200_000)
        self.assertLess(max(sizes), 5_000)

    def test_same_seed_same_inputs(self) -> None:
        one, two = Spoiler(3, corpus("rest")), Spoiler(3, corpus("rest"))
        self.assertEqual([one.input() for _ in range(50)], [two.input() for _ in range(50)])


class Breaking(SynchronousTestCase):
    """A promise that is broken is seen."""

    def tries(self, name: str) -> None:
        for text in corpus(name):
            borders.run(name, text)

    def test_order_of_rows(self) -> None:
        original = data.rows_of

        def backwards(params: Any, now: int) -> Any:
            rows, dropped = original(params, now)
            return dict(sorted(rows.items(), reverse=True)), dropped

        self.patch(data, "rows_of", backwards)
        self.assertRaises(borders.Broken, self.tries, "rows")

    def test_another_member_when_written(self) -> None:
        self.patch(
            jsonrpc.Request, "encode", lambda request: b'{"method":"x","params":{},"id":"%b"}' % borders.ID.encode()
        )
        self.assertRaises(borders.Broken, self.tries, "jsonrpc")

    def test_a_message_that_differs(self) -> None:
        self.patch(fast, "apply_mask", lambda text, mask: text)
        self.assertRaises(Difference, self.tries, "frames")
