"""Offline alerts where they do better: restarts, failures, mass outages, settings that change."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.alerting.rules import GRACE, MINUTE, MassGuard, OfflineRules
from openems.backend.events import OnlineSet
from openems.backend.interfaces import IAlertingStore, IMailer
from openems.backend.models import UserAlertingSettings
from tests.backend.alerting.world import DAY, START, TOP, Mailer, Store, World, user


def offline_only(**options: object) -> World:
    return World(**{"notify_on_sum_state_change": False, **options})  # type: ignore[arg-type]


class Better(SynchronousTestCase):
    def test_what_it_needs_provides_what_it_says(self) -> None:
        verifyObject(IAlertingStore, Store())
        verifyObject(IMailer, Mailer())

    def test_an_event_that_changed_again_is_ignored(self) -> None:
        world = offline_only()
        edge = world.edge("edge0", user("u", 15), online=True, lastmessage=TOP)
        world.start()
        world.events.publish(OnlineSet("edge0", False))
        world.until(60)
        self.assertTrue(edge.online)
        self.assertEqual(world.mails(), [])
        world.go_offline("edge0")
        world.until(70)
        world.events.publish(OnlineSet("edge0", True))
        world.until(100)
        self.assertEqual(world.told(), [(75, "u")])

    def test_the_mass_guard_holds_back_and_tells_once(self) -> None:
        world = offline_only(guard=MassGuard(percent=30, minimum=20, hold=60))
        for n in range(60):
            world.edge(f"edge{n}", user("u", 15), online=True, lastmessage=TOP)
        world.start().until(10)
        world.go_offline(*(f"edge{n}" for n in range(30)))
        world.until(40)
        self.assertEqual(world.mails(), [])
        self.assertEqual(world.mass, [(30, 60, START + 16 * MINUTE + 60 * MINUTE)])
        world.go_online(*(f"edge{n}" for n in range(1, 30)))
        world.until(75)
        self.assertEqual(world.mails(), [])
        world.until(200)
        self.assertEqual(world.mails(), [(77, "edge0", ("u",), None)])
        self.assertEqual(len(world.mass), 1)
        # A single edge later is told of as ever.
        world.go_offline("edge40")
        world.until(220)
        self.assertEqual(world.mails()[1:], [(215, "edge40", ("u",), None)])

    def test_a_few_edges_are_no_mass(self) -> None:
        world = offline_only(guard=MassGuard(percent=30, minimum=20))
        for n in range(200):
            world.edge(f"edge{n}", user("u", 15), online=True, lastmessage=TOP)
        world.start().until(10)
        world.go_offline(*(f"edge{n}" for n in range(25)))
        world.until(30)
        self.assertEqual((len(world.mails()), world.mass), (25, []))

    def test_edges_nobody_watches_are_part_of_a_mass(self) -> None:
        """400 of 1000 went together; that 25 of them have users does not make it less."""
        world = offline_only(guard=MassGuard())
        for n in range(1000):
            world.edge(f"edge{n}", *([user("u", 15)] if n < 25 else []), online=True, lastmessage=TOP)
        world.start().until(20)
        world.go_offline(*(f"edge{n}" for n in range(400)))
        world.until(60)
        self.assertEqual((world.mails(), [told[:2] for told in world.mass]), ([], [(400, 1000)]))
        world.until(90)
        self.assertEqual((len(world.mails()), len(world.mass)), (25, 1))

    def test_edges_nobody_watches_that_do_not_come_back_after_a_start(self) -> None:
        """Only those that were here until the end: one that has been away for days is no news."""
        for away, mass in ((400, 1), (50, 0)):
            world = offline_only(guard=MassGuard())
            for n in range(1000):
                last = TOP - MINUTE if n < away or n >= 400 else TOP - DAY
                world.edge(f"edge{n}", *([user("u", 15)] if n < 25 else []), lastmessage=last)
            world.start().until(2)
            world.go_online(*(f"edge{n}" for n in range(400, 1000)))
            world.until(60)
            self.assertEqual((len(world.mass), len(world.mails())), (mass, 0 if mass else 25))

    def test_edges_that_were_never_here_are_no_mass(self) -> None:
        world = offline_only(guard=MassGuard())
        for n in range(1000):
            world.edge(f"edge{n}", user("u", 15))
        world.start().until(10)
        world.go_online("edge0")
        world.until(14)
        world.go_offline("edge0")
        world.until(40)
        self.assertEqual((world.mass, world.told()), ([], [(29, "u")]))

    def test_a_backend_whose_application_does_not_come_back(self) -> None:
        """The scan after a start finds everything offline: that is no news for the users."""
        world = offline_only(guard=MassGuard())
        for n in range(50):
            world.edge(f"edge{n}", user("u", 15), lastmessage=TOP - MINUTE)
        world.start().until(30)
        self.assertEqual((world.mails(), len(world.mass)), ([], 1))
        world.until(76)
        self.assertEqual(world.mails(), [])
        world.until(80)
        self.assertEqual(len(world.mails()), 50)

    def test_settings_are_those_of_the_moment_of_sending(self) -> None:
        world = self.pending(user("u", 15), user("v", 15), user("w", 15))
        world.metadata.users["edge0"] = [user("v", 30), user("u", 0)]
        world.until(100)
        self.assertEqual(world.told(), [(40, "v")])

    def pending(self, *users: UserAlertingSettings) -> World:
        world = offline_only()
        world.edge("edge0", *users, online=True, lastmessage=TOP)
        world.start().until(10)
        world.go_offline("edge0")
        world.until(20)
        self.assertEqual(world.queue, 1)
        return world

    def test_a_raised_delay_is_no_second_mail(self) -> None:
        world = self.pending(user("u", 15))
        world.until(26)
        self.assertEqual(world.told(), [(25, "u")])
        world.metadata.users["edge0"] = [user("u", 60, last=START + 25 * MINUTE)]
        world.restart()
        world.until(300)
        self.assertEqual(world.told(), [(25, "u")])

    def test_settings_that_cannot_be_read_are_asked_again(self) -> None:
        world = self.pending(user("u", 15))
        world.metadata.broken = True
        world.until(26)
        world.metadata.broken = False
        world.until(60)
        self.assertEqual(world.told(), [(31, "u")])

    def test_settings_unreadable_after_grace_and_in_the_scan(self) -> None:
        world = offline_only()
        world.edge("edge0", user("u", 15), online=True, lastmessage=TOP)
        world.edge("edge1", user("u", 1), lastmessage=TOP)
        world.start().until(10)
        world.go_offline("edge0")
        world.metadata.broken = True
        world.until(30)
        world.metadata.broken = False
        world.until(60)
        self.assertEqual([(m[0], m[1]) for m in world.mails()], [(32, "edge1"), (32, "edge0")])

    def test_back_while_settings_are_read(self) -> None:
        world = self.pending(user("u", 15))
        world.metadata.gate = gate = Deferred()
        world.until(25)
        world.go_online("edge0")
        gate.callback(None)
        world.metadata.gate = None
        world.until(100)
        self.assertEqual(world.mails(), [])

    def test_back_while_the_mailer_waits(self) -> None:
        """A mailer that answers nothing has its time; then everything is looked at anew."""
        world = self.pending(user("u", 15))
        world.mailer.gate = Deferred()
        world.until(25)
        world.mailer.gate = None
        world.go_online("edge0")
        world.until(100)
        self.assertEqual(world.told(), [(25, "u")])

    def test_a_restart_tells_nobody_twice_and_forgets_nobody(self) -> None:
        world = self.pending(user("u15", 15), user("u60", 60))
        world.until(30)
        world.restart()
        world.until(200)
        self.assertEqual(world.told(), [(25, "u15"), (70, "u60")])

    def test_mails_from_before_a_restart_wait_until_edges_had_time_to_connect(self) -> None:
        """T083: what waited for the mail server when the backend ended must not be sent the moment before its edge is
        back."""
        world = self.pending(user("u", 15), user("v", 15), user("w", 60))
        world.until(26)
        edge = world.metadata.known["edge0"]

        def wanted(login: str) -> object:
            asked = world.service.is_wanted("alerting_offline", "edge0", login, edge.lastmessage or 0)
            return self.successResultOf(Deferred.fromCoroutine(asked))

        self.assertEqual(wanted("u"), True)
        world.restart()
        self.assertIsNone(wanted("u"))
        world.until(42)
        self.assertEqual(wanted("u"), True)
        # Settings are those of the moment of sending here, too.
        world.metadata.users["edge0"] = [user("u", 0)]
        self.assertEqual((wanted("u"), wanted("v")), (False, False))
        world.metadata.users["edge0"] = [user("u", 15)]
        world.go_online("edge0")
        self.assertEqual(wanted("u"), False)
        world.restart()
        world.go_online("edge0")
        self.assertEqual(wanted("u"), False)

    def test_a_clock_that_is_set_back_after_the_start(self) -> None:
        """A machine that learns the time a little after it was switched on."""
        world = offline_only()
        world.edge("edge0", user("u", 15), lastmessage=TOP - 60 * MINUTE)
        world.begin += DAY
        world.start().until(2)
        world.begin -= DAY
        world.until(30)
        self.assertEqual([login for _, login in world.told()], ["u"])

    def test_here_again_before_the_restart(self) -> None:
        """What was kept is about another outage than the one there is now."""
        world = self.pending(user("u", 60))
        world.killed()
        world.metadata.known["edge0"].set_lastmessage(world.now())
        world.restart()
        self.assertEqual(world.store.pending, {})
        world.until(100)
        self.assertEqual(world.told(), [(80, "u")])

    def test_a_restart_while_users_are_held_back(self) -> None:
        world = offline_only(guard=MassGuard(percent=30, minimum=20, hold=120))
        for n in range(60):
            world.edge(f"edge{n}", user("u", 15), online=True, lastmessage=TOP)
        world.start().until(10)
        world.go_offline(*(f"edge{n}" for n in range(30)))
        world.until(30)
        world.restart()
        world.go_online(*(f"edge{n}" for n in range(30, 60)))
        world.until(135)
        self.assertEqual(world.mails(), [])
        world.until(140)
        self.assertEqual(len(world.mails()), 30)

    def test_who_notes_that_a_user_was_told(self) -> None:
        """Alerting, unless the mailer says later whether the mail was taken; nobody is told twice meanwhile."""
        for confirms, stamped in ((False, ["u15", "u60"]), (True, [])):
            world = offline_only()
            world.edge("edge0", user("u15", 15), user("u60", 60), online=True, lastmessage=TOP)
            world.mailer.confirms_delivery = confirms
            world.start().until(10)
            world.go_offline("edge0")
            world.until(100)
            self.assertEqual(world.told(), [(25, "u15"), (70, "u60")])
            self.assertEqual(sorted(login for _, login, _ in world.store.stamps), stamped)

    def test_back_while_earlier_mails_are_handed_over(self) -> None:
        world = offline_only()
        for edge_id in ("edge0", "edge1"):
            world.edge(edge_id, *(user(f"u{n}", 15) for n in range(300)), online=True, lastmessage=TOP)
        world.start().until(10)
        world.go_offline("edge0", "edge1")
        world.mailer.gate = gate = Deferred()
        world.until(25)
        self.assertEqual([m[1] for m in world.mails()], ["edge0"])
        world.go_online("edge1")
        gate.callback(None)
        world.until(60)
        self.assertEqual([m[1] for m in world.mails()], ["edge0"])

    def test_back_during_the_restart(self) -> None:
        world = self.pending(user("u15", 15), user("u60", 60))
        world.until(30)
        world.killed()
        world.service = world._service()
        world.service.start()
        world.go_online("edge0")
        self.assertEqual(world.store.pending, {})
        world.until(200)
        self.assertEqual(world.told(), [(25, "u15")])

    def test_older_than_a_week_goes_on_after_a_restart(self) -> None:
        world = self.pending(user("u", 8 * 1440))
        world.until(7 * 1440 + 60)
        world.restart()
        world.until(8 * 1440 + 60)
        self.assertEqual(world.told(), [(8 * 1440 + 10, "u")])

    def test_what_was_kept_for_edges_that_are_gone_is_forgotten(self) -> None:
        world = self.pending(user("u", 60))
        del world.metadata.known["edge0"]
        world.restart()
        self.assertEqual(world.store.pending, {})

    def test_without_a_mailer_it_says_so(self) -> None:
        world = offline_only(initial_delay=0)
        world.service.stop().close()
        world.mailer = None
        world.service = world._service()
        world.edge("edge0", user("u", 15), lastmessage=TOP - 60 * MINUTE)
        world.start().until(3)
        self.assertEqual(world.service.debug_metrics()["alerting0/HasMailer"], 0)
        self.assertEqual(len(world.service.health()), 1)
        self.assertEqual(world.queue, 1)

    def test_grace_is_five_minutes(self) -> None:
        rules = OfflineRules()
        rules.offline("edge0", START)
        self.assertEqual(rules.grace_over(START + GRACE), {})
        self.assertEqual(rules.grace_over(START + GRACE + 1), {"edge0": START})

    def test_to_and_fro_for_an_hour(self) -> None:
        world = offline_only()
        world.edge("edge0", user("u", 15), online=True, lastmessage=TOP)
        world.start()
        for n in range(180):
            world.clock.advance(20)
            (world.go_offline if n % 2 else world.go_online)("edge0")
        world.minutes = 60
        world.until(74)
        self.assertEqual(world.mails(), [])
        world.until(90)
        self.assertEqual(world.told(), [(75, "u")])
