"""Offline alerts: the test vectors of alerting.md 18.1 to 18.3."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.alerting.rules import MINUTE, WEEK, OfflineRules, Outage
from openems.common.errors import generic
from openems.common.role import Level
from tests.backend.alerting.world import DAY, START, TOP, World, user


def offline_only(**options: object) -> World:
    return World(**{"notify_on_sum_state_change": False, **options})


class Queue(SynchronousTestCase):
    """18.1"""

    def rules(self, *stamps: int) -> OfflineRules:
        rules = OfflineRules()
        rules.entries = {str(n): Outage(since=0, due=START + stamp) for n, stamp in enumerate(stamps)}
        return rules

    def test_the_longest_due_comes_first(self) -> None:
        rules = self.rules(0, MINUTE, -MINUTE)
        self.assertEqual(rules.due(START + 2 * MINUTE), ["2", "0", "1"])

    def test_removing(self) -> None:
        rules = self.rules(0, 0, 0)
        for edge_id in ("", "1"):
            rules.drop(edge_id)
        self.assertEqual(list(rules.entries), ["0", "2"])

    def test_sizes_while_time_goes(self) -> None:
        rules = self.rules(-60_000, -1000, 2 * MINUTE, 8 * MINUTE, 20 * MINUTE)
        sizes = []
        now = START
        for ticks in (0, 3, 3, 3, 20):
            for _ in range(ticks + 1 if not ticks else ticks):
                for edge_id in rules.due(now):
                    rules.drop(edge_id)
                now += MINUTE
            sizes.append(rules.queue_size())
        self.assertEqual(sizes, [3, 2, 2, 1, 0])

    def test_a_due_time_equal_to_the_ticks_waits_for_the_next(self) -> None:
        rules = self.rules(0)
        self.assertEqual(rules.due(START), [])
        self.assertEqual(rules.due(START + 1), ["0"])

    def test_equal_times_go_in_one_call(self) -> None:
        world = offline_only(initial_delay=0)
        for n in range(6):
            world.edge(f"edge{n}", user("u", 60), lastmessage=TOP - 70 * MINUTE)
        world.edge("early", user("u", 60), lastmessage=TOP - 80 * MINUTE)
        world.start().until(1)
        self.assertEqual(len(world.mailer.calls), 1)
        self.assertEqual([m[1] for m in world.mails()], ["early", *(f"edge{n}" for n in range(6))])

    def test_what_a_tick_creates_is_sent_by_the_next(self) -> None:
        world = offline_only(initial_delay=0)
        world.edge("edge0", user("u", 60), lastmessage=TOP - 70 * MINUTE)
        world.start()
        self.assertEqual((world.queue, world.mails()), (1, []))
        world.until(1)
        self.assertEqual((world.queue, world.told()), (0, [(1, "u")]))


class Building(SynchronousTestCase):
    """18.2"""

    def test_who_takes_part(self) -> None:
        world = offline_only(initial_delay=0)
        world.edge("1", user("user1", 1, last=TOP - DAY), lastmessage=TOP)
        world.edge("2", online=True, lastmessage=TOP)
        world.edge("3", user("user1", 1, last=TOP + DAY), user("user2", 0, last=TOP), lastmessage=TOP)
        world.edge("4", user("user1", 1, last=TOP - DAY), user("user2", 2, last=TOP - DAY), lastmessage=TOP)
        world.edge("5", lastmessage=TOP - 31 * DAY)
        world.edge("6", user("user1", 1))
        world.start()
        assert world.service.offline is not None
        self.assertEqual((world.queue, list(world.service.offline.rules.entries)), (2, ["1", "4"]))

    def test_an_edge_that_is_gone(self) -> None:
        world = offline_only(initial_delay=0)
        world.edge("1", user("user1", 1), user("user2", 30), lastmessage=TOP - 10 * MINUTE)
        world.edge("Fail", user("user1", 1), lastmessage=TOP - 10 * MINUTE)
        world.start()
        del world.metadata.known["Fail"]
        world.until(1)
        self.assertEqual(world.mails(), [(1, "1", ("user1",), None)])
        assert world.service.offline is not None
        self.assertEqual((world.queue, list(world.service.offline.rules.entries)), (1, ["1"]))

    def test_scans_of_any_size_are_done(self) -> None:
        """Nothing is cancelled, whatever the number of edges and users: without a guard they go out in batches."""
        for edges, users in ((125, 6), (1020, 2), (1000, 0), (1001, 0), (500, 1), (501, 1), (125, 4), (126, 4)):
            world = offline_only(initial_delay=0)
            for n in range(edges):
                world.edge(f"edge{n}", *(user(f"u{u}", 60) for u in range(users)), lastmessage=TOP - 70 * MINUTE)
            world.start()
            self.assertEqual(world.queue, edges if users else 0)
            world.until(1)
            self.assertEqual(sum(len(m[2]) for m in world.mails()), edges * users)
            for _, _, contexts in world.mailer.calls:
                self.assertLessEqual(sum(len(c["recipients"]) for c in contexts), 500)
            world.until(3)
            self.assertEqual(sum(len(m[2]) for m in world.mails()), edges * users)

    def test_who_was_told_before_the_start(self) -> None:
        world = offline_only()
        last = START - START % MINUTE - 720 * MINUTE
        world.edge(
            "edge0",
            user("never", 60),
            user("old", 60, last=last - 59 * MINUTE - 30_000),
            user("done", 60, last=last + 60 * MINUTE + 30_000),
            user("exact", 60, last=last + 60 * MINUTE),
            user("day", 1440),
            user("u30", 30),
            lastmessage=last,
        )
        world.start().until(15)
        self.assertEqual(world.queue, 0)
        world.until(16)
        self.assertEqual((world.queue, world.mails()), (1, []))
        world.until(719)
        # All that is overdue goes at once, not one delay a minute.
        self.assertEqual(world.told(), [(17, "never"), (17, "old"), (17, "u30")])
        world.until(720)
        self.assertEqual((world.queue, world.told()[3:]), (0, [(720, "day")]))

    def test_a_week(self) -> None:
        for last, mails in (
            (START - WEEK - MINUTE, []),
            (START - WEEK + 10 * MINUTE, []),
            (START - WEEK + 20 * MINUTE, [(17, "u")]),
        ):
            world = offline_only()
            world.edge("edge0", user("u", 60), lastmessage=last)
            world.start().until(30)
            self.assertEqual(world.told(), mails)


class Events(SynchronousTestCase):
    """18.3"""

    def world(self, *delays: int) -> World:
        world = offline_only()
        world.edge("edge0", *(user(f"u{delay}", delay) for delay in delays), online=True, lastmessage=TOP)
        return world.start()

    def test_a(self) -> None:
        world = offline_only()
        world.edge("edge0", user("u15", 15), user("a", 60), user("b", 60), user("day", 1440), user("off", 0),
                   user("minus", -5), online=True, lastmessage=TOP)  # fmt: skip
        world.start().until(10)
        world.go_offline("edge0")
        world.until(15)
        self.assertEqual(world.queue, 0)
        world.until(16)
        self.assertEqual(world.queue, 1)
        world.until(2000)
        self.assertEqual(
            world.mails(),
            [(25, "edge0", ("u15",), None), (70, "edge0", ("a", "b"), None), (1450, "edge0", ("day",), None)],
        )
        assert world.service.offline is not None
        self.assertEqual((world.queue, world.service.offline.messages_sent), (0, 3))

    def test_b_short_delays_go_out_together(self) -> None:
        world = self.world(1, 5, 6, 7, 8)
        world.until(10)
        world.go_offline("edge0")
        world.until(30)
        self.assertEqual(world.told(), [(17, "u1"), (17, "u5"), (17, "u6"), (17, "u7"), (18, "u8")])

    def test_d_a_short_return_begins_a_new_time_of_grace(self) -> None:
        world = self.world(15)
        for t, go in ((10, world.go_offline), (12, world.go_online), (13, world.go_offline)):
            world.until(t)
            go("edge0")
        world.until(18)
        self.assertEqual(world.queue, 0)
        world.until(19)
        self.assertEqual(world.queue, 1)
        world.until(100)
        self.assertEqual(world.told(), [(28, "u15")])

    def test_e_back_before_the_delay(self) -> None:
        world = self.world(15)
        world.until(10)
        world.go_offline("edge0")
        world.until(16)
        self.assertEqual(world.queue, 1)
        world.until(17)
        world.go_online("edge0")
        self.assertEqual(world.queue, 0)
        world.until(100)
        self.assertEqual(world.mails(), [])

    def test_g_one_call_for_all(self) -> None:
        world = offline_only()
        world.edge("edge0", user("u", 15), online=True, lastmessage=TOP)
        world.edge("edge1", user("u", 15), user("v", 15), online=True, lastmessage=TOP)
        world.start().until(10)
        world.go_offline("edge0", "edge1")
        world.until(25)
        ((sent_at, template, contexts),) = world.mailer.calls
        self.assertEqual((sent_at, template), (START + 25 * MINUTE, "alerting_offline"))
        self.assertEqual(
            contexts,
            [{"recipients": ["u"], "edgeId": "edge0"}, {"recipients": ["u", "v"], "edgeId": "edge1"}],
        )

    def test_i_flapping(self) -> None:
        world = self.world(15)
        for t in range(0, 60, 6):
            world.until(t)
            world.go_offline("edge0")
            world.until(t + 4)
            world.go_online("edge0")
        world.until(120)
        self.assertEqual(world.mails(), [])

    def test_j_a_silent_edge(self) -> None:
        world = self.world(15, 60)
        world.until(20)
        world.metadata.known["edge0"].set_online(False)
        world.until(100)
        self.assertEqual(world.told(), [(27, "u15"), (60, "u60")])

    def test_a_mailer_that_fails_is_tried_again(self) -> None:
        world = offline_only(initial_delay=0)
        world.edge("edge0", user("u15", 15), user("u120", 120), lastmessage=TOP - 60 * MINUTE)
        world.mailer.broken["alerting_offline"] = generic("no")
        world.start().until(40)
        self.assertEqual([t for t, *_ in world.mails()], [1, 2, 7, 22])
        assert world.service.offline is not None
        self.assertEqual((world.service.offline.messages_sent, world.service.offline.mails_failed), (0, 4))
        world.mailer.calls.clear()
        world.mailer.broken.clear()
        world.until(200)
        self.assertEqual(world.told(), [(60, "u120"), (60, "u15")])
        self.assertEqual(world.queue, 0)

    def test_a_failing_handler_does_not_disturb_the_other(self) -> None:
        world = World(initial_delay=0)
        world.edge("edge0", user("u", 10, fault=3), user("late", 60), lastmessage=TOP - 6 * MINUTE)
        world.edge("edge1", user("u", fault=3), online=True, lastmessage=TOP)
        world.mailer.broken["alerting_offline"] = RuntimeError("thrown")
        world.start()
        world.level("edge1", Level.FAULT)
        world.until(4)
        self.assertEqual([(c[1], (c[0] - START) // MINUTE) for c in world.mailer.calls],
                         [("alerting_offline", 4), ("alerting_sum_state", 4)])  # fmt: skip
        world.mailer.broken.clear()
        world.until(60)
        self.assertEqual(world.told(), [(4, "u"), (4, "u"), (5, "u"), (54, "late")])

    def test_a_second_scan_changes_nothing(self) -> None:
        world = offline_only()
        world.edge("edge0", user("u", 60), lastmessage=TOP)
        world.start().until(20)
        world.initialized()
        self.assertIn("!initial wait!", world.service.debug_log())
        world.until(200)
        self.assertEqual(world.told(), [(60, "u")])

    def integration(self, initial_delay: int) -> World:
        # The clock of this one stands at a full minute.
        world = offline_only(initial_delay=initial_delay, start=TOP)
        last12 = TOP - 720 * MINUTE
        month = TOP - 31 * DAY
        world.edge("e1", user("user01", 30))
        world.edge("e2", online=True, lastmessage=TOP)
        world.edge("e3", user("a", 0, last=TOP), user("b", 0, last=TOP), online=True, lastmessage=TOP)
        world.edge("e4", user("user01", 30, last=TOP), user("user02", 60, last=TOP), online=True, lastmessage=TOP)
        world.edge("e5", user("user02", 60, last=last12), user("user03", 1440, last=last12), lastmessage=last12)
        world.edge("e6", user("user01", 30, last=month), lastmessage=month)
        world.edge("e7", user("user04", 60, last=TOP), online=True, lastmessage=TOP)
        return world.start()

    def test_integration(self) -> None:
        world = self.integration(15)
        seen = [(0, world.queue, len(world.mailer.calls))]

        def look(t: int) -> None:
            world.until(t)
            seen.append((t, world.queue, len(world.mailer.calls)))

        look(18)
        world.go_offline("e2", "e3", "e4", "e7")
        look(24)
        look(54)
        world.go_online("e7")
        look(84)
        self.assertEqual(seen, [(0, 0, 0), (18, 1, 1), (24, 3, 1), (54, 3, 2), (84, 1, 3)])
        self.assertEqual(
            world.mails(),
            [(17, "e5", ("user02",), None), (49, "e4", ("user01",), None), (79, "e4", ("user02",), None)],
        )
        metrics = world.service.debug_metrics()
        self.assertEqual(metrics["alerting_offline/AlertingMessagesSent"], 3)
        self.assertEqual(metrics["alerting_offline/AlertingMessagesQueue"], 1)
        self.successResultOf(Deferred.fromCoroutine(world.service.stop()))
        world.until(1524)
        self.assertEqual(len(world.mailer.calls), 3)

    def test_integration_with_a_short_delay(self) -> None:
        world = self.integration(5)
        world.until(8)
        self.assertEqual((world.queue, len(world.mailer.calls)), (1, 1))
        self.successResultOf(Deferred.fromCoroutine(world.service.stop()))
        world.until(1450)
        self.assertEqual(len(world.mailer.calls), 1)
