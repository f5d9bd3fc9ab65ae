"""Sum-state alerts: the test vectors of alerting.md 18.4 and 18.5. ``(f, w)``: fault and warning delay."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.alerting.rules import MINUTE, SumStateRules
from openems.common.role import Level
from tests.backend.alerting.world import START, TOP, World, user

OK, INFO, WARNING, FAULT = Level.OK, Level.INFO, Level.WARNING, Level.FAULT


def sum_state_only(**users: tuple[int, int]) -> World:
    world = World(notify_on_offline=False)
    world.edge(
        "edge0",
        *(user(login, fault=fault, warning=warning) for login, (fault, warning) in users.items()),
        online=True,
        lastmessage=TOP,
        level=OK,
    )
    return world.start()


class Vectors(SynchronousTestCase):
    def play(self, world: World, *events: tuple[int, Level | str], end: int = 600) -> list[tuple[int, str, str | None]]:
        """(t, logins, state) of the mails."""
        for t, event in events:
            world.until(t)
            if isinstance(event, Level):
                world.level("edge0", event)
            elif event == "offline":
                world.go_offline("edge0")
            else:
                world.go_online("edge0")
        world.until(end)
        return [(t, " ".join(logins), state) for t, _, logins, state in world.mails()]

    def test_integration(self) -> None:
        world = World(notify_on_offline=False)

        def edge(edge_id: str, *users: tuple[str, int, int]) -> None:
            world.edge(edge_id, *(user(u, fault=f, warning=w) for u, f, w in users), online=True, lastmessage=TOP,
                       level=OK)  # fmt: skip

        edge("e1")
        edge("e2")
        edge("e3", ("a", 0, 0), ("b", 0, 0))
        edge("e4", ("user01", 30, 120), ("user02", 60, 120))
        edge("e5", ("user02", 60, 120), ("user03", 1440, 1440))
        edge("e6", ("user01", 30, 60))
        edge("e7", ("user04", 60, 60))
        world.start()
        seen = []

        def look() -> None:
            seen.append((world.minutes, world.queue, len(world.mailer.calls)))

        look()
        world.until(2)
        world.level("e3", WARNING)
        world.level("e4", WARNING)
        world.until(7)
        look()
        world.until(23)
        world.level("e4", FAULT)
        look()
        world.until(39)
        look()
        world.until(55)
        look()
        world.level("e5", FAULT)
        world.level("e6", FAULT)
        look()
        world.go_offline("e6")
        look()
        world.until(86)
        look()
        self.assertEqual(
            seen,
            [(0, 0, 0), (7, 1, 0), (23, 1, 0), (39, 1, 0), (55, 1, 1), (55, 3, 1), (55, 2, 1), (86, 1, 2)],
        )
        self.assertEqual(world.mails(), [(54, "e4", ("user01",), "Fault"), (84, "e4", ("user02",), "Fault")])
        self.successResultOf(Deferred.fromCoroutine(world.service.stop()))
        world.until(86 + 1440)
        self.assertEqual(len(world.mailer.calls), 2)

    def test_s1(self) -> None:
        """The warning delay of w45 counts from the first severe level: it is over when the level is WARNING again."""
        world = sum_state_only(u30=(30, 120), u60=(60, 120), w45=(0, 45))
        mails = self.play(world, (2, WARNING), (23, FAULT), (143, WARNING), (343, OK), (343, FAULT), end=380)
        self.assertEqual(
            mails, [(54, "u30", "Fault"), (84, "u60", "Fault"), (144, "w45", "Warning"), (374, "u30", "Fault")]
        )

    def test_s2_a_first_level_without_recipients_does_not_end_it(self) -> None:
        world = sum_state_only(u=(0, 15))
        self.assertEqual(self.play(world, (2, FAULT), (3, WARNING)), [(18, "u", "Warning")])

    def test_s3_away_for_a_while(self) -> None:
        """Three minutes before, twelve after; then a new phase."""
        world = sum_state_only(u=(15, 15))
        mails = self.play(world, (2, WARNING), (5, "offline"), (10, "online"), (70, FAULT), (130, INFO), (131, FAULT))
        self.assertEqual(mails, [(23, "u", "Warning"), (147, "u", "Fault")])

    def test_s4_to_and_fro(self) -> None:
        world = sum_state_only(u=(15, 15))
        mails = self.play(world, *((t, FAULT if t % 20 == 0 else WARNING) for t in range(0, 120, 10)))
        self.assertEqual(mails, [(16, "u", "Warning")])

    def test_s4_fault_alone(self) -> None:
        """Ten minutes of FAULT, and five when it is back."""
        world = sum_state_only(u=(15, 0))
        mails = self.play(world, *((t, FAULT if t % 20 == 0 else WARNING) for t in range(0, 120, 10)))
        self.assertEqual(mails, [(26, "u", "Fault")])

    def test_s5(self) -> None:
        world = sum_state_only(u=(0, 15))
        world.level("edge0", WARNING)
        world.until(5)
        self.assertEqual(world.queue, 1)
        world.level("edge0", FAULT)
        self.assertEqual(world.queue, 0)
        self.assertEqual(self.play(world, (10, WARNING)), [(16, "u", "Warning")])

    def test_s6(self) -> None:
        """c has been in WARNING or worse for half an hour before c's delay of the fault is over."""
        world = sum_state_only(a=(15, 30), b=(15, 30), c=(60, 30))
        mails = self.play(world, (0, FAULT), (20, WARNING))
        self.assertEqual(mails, [(16, "a b", "Fault"), (31, "c", "Warning")])

    def test_s7_a_level_without_event(self) -> None:
        world = sum_state_only(u=(15, 15))
        world.level("edge0", FAULT)
        world.metadata.known["edge0"].sum_state = INFO
        world.until(100)
        self.assertEqual((world.mails(), world.store.pending), ([], {}))

    def test_s8_an_edge_that_is_away(self) -> None:
        world = sum_state_only(u=(15, 15))
        world.go_offline("edge0")
        self.assertEqual(self.play(world, (5, FAULT), (20, "online")), [(36, "u", "Fault")])

    def test_a_level_at_the_very_time_of_a_tick(self) -> None:
        world = sum_state_only(u=(1, 1))
        self.assertEqual(self.play(world, (0, FAULT)), [(2, "u", "Fault")])

    def test_an_unchanged_level_is_no_event(self) -> None:
        world = sum_state_only(u=(15, 15))
        self.assertEqual(self.play(world, *((t, FAULT) for t in range(10))), [(16, "u", "Fault")])


class Better(SynchronousTestCase):
    def test_a_restart_tells_nobody_twice_and_forgets_nobody(self) -> None:
        world = sum_state_only(u15=(15, 15), u60=(60, 60))
        edge = world.metadata.known["edge0"]
        world.level("edge0", FAULT)
        world.until(30)
        edge.set_lastmessage(world.now())
        world.restart()
        self.assertEqual(world.queue, 0)
        world.until(35)
        world.go_online("edge0")
        self.assertEqual(world.queue, 1)
        world.until(200)
        # 30 minutes until the last message, 30 after the edge came back.
        self.assertEqual(world.told(), [(16, "u15"), (66, "u60")])

    def test_metadata_that_does_not_remember_levels(self) -> None:
        """None, then FAULT again: the same phase."""
        world = sum_state_only(u15=(15, 15), u60=(60, 60))
        world.level("edge0", FAULT)
        world.until(30)
        world.killed()
        world.metadata.known["edge0"].sum_state = None
        world.restart()
        world.go_online("edge0")
        world.level("edge0", FAULT)
        world.until(200)
        self.assertEqual([login for _, login in world.told()], ["u15", "u60"])

    def test_good_again_after_the_restart(self) -> None:
        world = sum_state_only(u15=(15, 15), u60=(60, 60))
        world.level("edge0", FAULT)
        world.until(30)
        world.restart()
        world.go_online("edge0")
        world.level("edge0", OK)
        self.assertEqual(world.store.pending, {})
        world.until(200)
        self.assertEqual(world.told(), [(16, "u15")])

    def test_warnings_after_each_reconnect_do_not_alarm(self) -> None:
        """An edge is in WARNING for minutes after it came back."""
        world = sum_state_only(u=(15, 15))
        for t in range(0, 200, 20):
            world.until(t)
            world.go_offline("edge0")
            world.until(t + 2)
            world.go_online("edge0")
            world.level("edge0", WARNING)
            world.until(t + 12)
            world.level("edge0", OK)
        self.assertEqual(world.mails(), [])

    def test_a_user_who_was_told_by_a_stamp(self) -> None:
        rules = SumStateRules()
        rules.level("edge0", FAULT, True, START)
        rules.plan("edge0", [user("u", fault=1, last_sum=START)])
        self.assertIsNone(rules.entries["edge0"].due)
        rules.plan("edge0", [user("u", fault=1, last_sum=START - 1)])
        self.assertEqual(rules.entries["edge0"].due, START + MINUTE)

    def test_many_at_once(self) -> None:
        world = World(notify_on_offline=False)
        for n in range(200):
            world.edge(f"edge{n}", user("u", fault=5), online=True, lastmessage=TOP)
        world.start()
        world.metadata.gate = gate = Deferred()
        for n in range(200):
            world.level(f"edge{n}", FAULT)
        self.assertTrue(world.service.debug_log().startswith("[Alerting] 199 tasks in the EventHandlerQueue! Sum"))
        self.assertEqual(world.service.debug_metrics()["alerting0/Pending"], 199)
        gate.callback(None)
        self.assertEqual(world.queue, 200)
        world.until(10)
        self.assertEqual(len(world.mails()), 200)


class Texts(SynchronousTestCase):
    """18.5"""

    def test_debug_lines(self) -> None:
        world = World().start()
        self.assertEqual(
            world.service.debug_log(),
            "[Alerting] OfflineEdgeHandler{MessagesSent: 0, MessagesQueue: 0, !initial wait!}, "
            "SumStateHandler{MessagesSent: 0, MessagesQueue: 0}",
        )
        world.until(17)
        self.assertNotIn("initial", world.service.debug_log())
        nothing = World(notify_on_offline=False, notify_on_sum_state_change=False).start()
        self.assertEqual(nothing.service.debug_log(), "[Alerting] ")
        self.assertEqual(len(nothing.service.handlers), 0)

    def test_metrics(self) -> None:
        metrics = World().start().service.debug_metrics()
        for name in ("Active", "Pending", "Completed"):
            self.assertEqual(metrics[f"alerting0/{name}"], 0)
        for handler in ("alerting_offline", "alerting_sumstate"):
            self.assertEqual(metrics[f"{handler}/AlertingMessagesSent"], 0)
            self.assertEqual(metrics[f"{handler}/AlertingMessagesQueue"], 0)

    def test_context(self) -> None:
        world = sum_state_only(a=(0, 15))
        world.level("edge0", WARNING)
        world.until(20)
        ((_, template, (context,)),) = world.mailer.calls
        self.assertEqual(template, "alerting_sum_state")
        self.assertEqual(list(context.items()), [("recipients", ["a"]), ("edgeId", "edge0"), ("state", "Warning")])

    def test_delays_by_level(self) -> None:
        rules = SumStateRules()
        settings = [user("u", fault=30, warning=60)]
        dues = []
        for level in Level:
            rules.level("edge0", level, True, START)
            rules.plan("edge0", settings)
            entry = rules.entries.get("edge0")
            dues.append(None if entry is None or entry.due is None else (entry.due - START) // MINUTE)
        self.assertEqual(dues, [None, None, 60, 30])
