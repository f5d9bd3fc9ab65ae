"""No alert is lost and none comes twice, whatever happens in whatever order: alerting, spool and mailer together.

Edges come and go and change their level; the backend is killed, also within the second in which it had not written yet
what it knew; metadata, mailer, disk and mail server fail for a while.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from email import message_from_bytes
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.alerting.rules import MINUTE
from openems.backend.mail.delivery import Refused, Unreachable
from openems.backend.mail.spool import Spool
from openems.backend.models import MailRecipient
from openems.common.role import Level
from tests.backend.alerting.world import START, TOP, World, user
from tests.backend.mail.post import TEMPLATES, Directory, FakeDelivery, Sender, SmtpMailer

USERS = ("u0", "u1", "u2")
#: Offline, fault, warning delays of each.
DELAYS = ((3, 4, 9), (12, 11, 0), (30, 0, 20))


class Universe:
    """One backend with its spool, its users and two edges."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.delivery = FakeDelivery()
        self.users = Directory()
        for login in USERS:
            self.users.users[login] = MailRecipient(login=login, address=f"{login}@example.org")
        self.disk_full = False
        self.world = World(initial_delay=2)
        self.world.service.stop().close()
        for edge_id in ("edge0", "edge1"):
            people = [user(u, o, fault=f, warning=w) for u, (o, f, w) in zip(USERS, DELAYS, strict=True)]
            self.world.edge(edge_id, *people, online=True, lastmessage=TOP, level=Level.OK)
        self.on_disk: Any = ({}, {})
        self.starts = 0
        #: What was said of an edge at a time: (edge, login, template, when).
        self.sent: list[tuple[str, str, str, int]] = []
        self.begin()

    def begin(self) -> None:
        def in_thread(work: Any) -> Deferred[Any]:
            def checked() -> Any:
                if self.disk_full:
                    raise OSError(28, "No space left on device")
                return work()

            return maybeDeferred(checked)

        world = self.world
        spool = Spool(self.folder, now=world.now, in_thread=in_thread)
        mailer = SmtpMailer(
            spool, self.delivery, TEMPLATES, Sender(address="ems@example.org"), self.users, world.metadata.get_edge,
            reactor=world.clock, now=world.now,
        )  # fmt: skip
        world.mailer = mailer
        world.service = world._service()
        mailer.is_wanted = world.service.is_wanted

        def delivered(template: str, edge_id: str, login: str, sent_at: int) -> None:
            mail = (template, edge_id, login, sent_at)
            if mail in again:
                again.remove(mail)
            else:
                self.sent.append((edge_id, login, template, world.now()))
            world.service.delivered(template, edge_id, login, sent_at)

        mailer.on_delivered = delivered
        mailer.open()
        # What is told once more, first of all, because a killed process may have had no time for it.
        again = [(e.template, e.edge_id, e.login, e.sent_at) for e in spool.recent]
        mailer.start()
        world.service.start()

    def minute(self) -> None:
        """More than a second passes, then the rest of a minute."""
        self.world.clock.advance(2)
        self.write()
        self.world.clock.advance(58)

    def write(self) -> None:
        self.on_disk = (dict(self.world.store.pending), dict(self.world.metadata.users))

    def kill(self) -> None:
        world = self.world
        world.killed()
        world.mailer._running = False
        world.mailer._stop_timer()
        world.service.scheduler._jobs.clear()
        world.store.pending, stamps = dict(self.on_disk[0]), self.on_disk[1]
        for edge_id, people in stamps.items():
            current = world.metadata.users[edge_id]
            world.metadata.users[edge_id] = [
                replace(now, last_offline=then.last_offline, last_sum_state=then.last_sum_state)
                for now, then in zip(current, people, strict=True)
            ]
        self.starts += 1
        self.begin()

    def do(self, action: Any) -> None:
        world = self.world
        match action:
            case int():
                for _ in range(action):
                    self.minute()
            case ("off", edge_id):
                world.go_offline(edge_id)
            case ("on", edge_id):
                world.go_online(edge_id)
            case (Level() as level, edge_id):
                if world.metadata.known[edge_id].online:
                    world.level(edge_id, level)
            case "kill":
                self.kill()
            case "metadata":
                world.metadata.broken = not world.metadata.broken
            case "disk":
                self.disk_full = not self.disk_full
            case "later":
                self.delivery.always = None if self.delivery.always else Refused(450, "later")
            case "away":
                self.delivery.always = None if self.delivery.always else Unreachable("away")
            case "cut":
                self.delivery.after = None if self.delivery.after else Unreachable("cut off after it was taken")

    def heal(self) -> None:
        self.world.metadata.broken = self.disk_full = False
        self.delivery.always = self.delivery.after = None


edges = st.sampled_from(("edge0", "edge1"))
actions = st.one_of(
    st.integers(1, 15),
    st.tuples(st.sampled_from(("off", "on")), edges),
    st.tuples(st.sampled_from(Level), edges),
    st.sampled_from(("kill", "kill", "metadata", "disk", "later", "away", "cut")),
)


class Properties(SynchronousTestCase):
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(actions, max_size=40))
    def test_none_lost_none_doubled(self, events: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            universe = Universe(folder)
            world = universe.world
            for event in events:
                universe.do(event)
                # An edge that is away after a start comes back or not, as the next events say.
            universe.heal()
            for _ in range(130):
                universe.minute()
            self.check(universe, world)

    def check(self, universe: Universe, world: World) -> None:
        ids = Counter(message_from_bytes(message)["Message-ID"] for _, message in universe.delivery.taken)
        self.assertEqual([key for key, times in ids.items() if times > 1], [])
        for edge in world.metadata.known.values():
            handlers = world.service.offline, world.service.sum_state
            assert handlers[0] is not None
            assert handlers[1] is not None
            told = [(login, template, at) for edge_id, login, template, at in universe.sent if edge_id == edge.id]
            if not edge.online:
                assert edge.lastmessage is not None
                since = [login for login, t, at in told if t == "alerting_offline" and at > edge.lastmessage + MINUTE]
                # All three have a delay, and it is over; each heard of this outage, once.
                self.assertEqual(sorted(since), list(USERS))
            elif edge.sum_state is not None and edge.sum_state >= Level.WARNING:
                phase = handlers[1].rules.entries[edge.id]
                since = [login for login, t, at in told if t == "alerting_sum_state" and at > phase.since]
                wanted = [
                    login
                    for login, (_, fault, warning) in zip(USERS, DELAYS, strict=True)
                    if (fault if edge.sum_state is Level.FAULT else warning) > 0
                ]
                self.assertEqual(max(Counter(since).values(), default=1), 1)
                self.assertLessEqual(set(wanted), set(since))
            else:
                self.assertNotIn(edge.id, handlers[1].rules.entries)
            self.assertEqual(edge.online, edge.id not in handlers[0].rules.entries)
        self.assertEqual(world.mailer.spool.waiting, {})

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(st.integers(1, 15), st.tuples(st.sampled_from(("off", "on")), edges)), max_size=40))
    def test_nobody_is_told_of_what_is_over(self, events: list[Any]) -> None:
        """Each mail is about an edge that is offline, and has been for as long as its reader wants."""
        with tempfile.TemporaryDirectory() as folder:
            universe = Universe(folder)
            delays = {login: offline for login, (offline, _, _) in zip(USERS, DELAYS, strict=True)}
            seen = 0
            for event in [*events, 40]:
                for step in [1] * event if isinstance(event, int) else [event]:
                    universe.do(step)
                    for edge_id, login, _, at in universe.sent[seen:]:
                        edge = universe.world.metadata.known[edge_id]
                        assert edge.lastmessage is not None
                        self.assertFalse(edge.online)
                        self.assertGreater(at, edge.lastmessage + delays[login] * MINUTE)
                    seen = len(universe.sent)

    def test_killed_at_each_minute(self) -> None:
        """Also right after a mail was taken and before anything else was written about it."""
        for minute in range(5, 40):
            for event in (("off", "edge0"), (Level.FAULT, "edge0")):
                with tempfile.TemporaryDirectory() as folder:
                    universe = Universe(folder)
                    universe.do(event)
                    universe.do(minute)
                    universe.kill()
                    if event[0] is Level.FAULT:
                        universe.do(("on", "edge0"))
                    universe.do(60)
                    self.check(universe, universe.world)

    def test_it_can_fail(self) -> None:
        """The check finds a mail that is missing, and one that is there twice."""
        with tempfile.TemporaryDirectory() as folder:
            universe = Universe(folder)
            universe.do(("off", "edge0"))
            universe.do(60)
            self.check(universe, universe.world)
            universe.delivery.taken.append(universe.delivery.taken[0])
            with self.assertRaises(self.failureException):
                self.check(universe, universe.world)
            universe.delivery.taken.pop()
            universe.sent.pop()
            with self.assertRaises(self.failureException):
                self.check(universe, universe.world)
        self.assertGreater(universe.world.now(), START)
