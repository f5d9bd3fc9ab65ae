"""A short run of the campaign. ``python -m tests.fuzz --messages 1000000`` is the long one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.campaign import Broken, Campaign
from tests.fuzz.messages import Mutator


class Short(SynchronousTestCase):
    def test_nonsense(self) -> None:
        campaign = Campaign(1)
        campaign.run(4_000)
        self.assertGreater(campaign.replies, 500)

    def test_a_broken_rule_is_seen(self) -> None:
        campaign = Campaign(1)
        campaign.house.ui.endpoint = None  # type: ignore[method-assign, assignment]
        with self.assertRaises((Broken, TypeError)):
            campaign.run(10)

    def test_same_seed_same_messages(self) -> None:
        messages = [{"method": "getEdges", "params": {"page": 0}, "id": "84217850-f492-48f3-ac01-e07ef178a59f"}]
        one, two = Mutator(3, messages), Mutator(3, messages)
        self.assertEqual([one.message() for _ in range(50)], [two.message() for _ in range(50)])
