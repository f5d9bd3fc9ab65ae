"""What becomes of mails: once, in time, for a reason that still holds."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from email import message_from_bytes
from email.policy import default
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.events import EventBus
from openems.backend.interfaces import IDebugLoggable, IMailDirectory, IMailer
from openems.backend.mail.delivery import Refused, Unreachable
from openems.backend.mail.directory import UsersOfMetadata, directory_of
from openems.backend.mail.simulator import SimulatorMailer
from openems.backend.metadata.dummy import DummyMetadata
from openems.backend.models import MailContext
from openems.common.errors import OpenemsError
from openems.common.role import Role
from tests.backend.mail.post import MINUTE, START, Directory, Post


class Mails(SynchronousTestCase):
    def setUp(self) -> None:
        path = self.mktemp()
        self.post = Post(path)
        self.queue = Path(path) / "queue"

    def taken(self) -> list[str]:
        return [to for to, _ in self.post.delivery.taken]

    def test_interfaces(self) -> None:
        verifyObject(IMailer, self.post.mailer)
        verifyObject(IDebugLoggable, self.post.mailer)
        verifyObject(IMailDirectory, Directory())
        verifyObject(IMailer, SimulatorMailer())

    def test_one_mail_a_recipient(self) -> None:
        self.post.start()
        self.assertEqual(self.successResultOf(self.post.hand_in("mia", "jan")), 2)
        self.assertEqual(sorted(self.taken()), ["jan@example.org", "mia@example.org"])
        message = message_from_bytes(self.post.delivery.taken[0][1], policy=default)  # type: ignore[arg-type]
        self.assertEqual(message["To"], "Mia <mia@example.org>")
        self.assertEqual(message["Subject"], "edge0 (Tal, Graz) ist offline")
        self.assertEqual(message["Message-ID"].rpartition("@")[2], "example.org>")
        self.assertEqual(self.post.delivered[0], ("alerting_offline", "edge0", "mia", START))
        self.assertEqual(os.listdir(self.queue), [])

    def test_the_same_again_is_none(self) -> None:
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(1)
        self.assertEqual(self.successResultOf(self.post.hand_in("mia")), 0)
        self.post.restart()
        self.assertEqual(self.successResultOf(self.post.hand_in("mia")), 0)
        self.assertEqual(self.successResultOf(self.post.hand_in("mia", since=START + MINUTE)), 1)
        self.assertEqual(len(self.taken()), 2)

    def test_killed_before_it_went_out(self) -> None:
        self.post.delivery.answers = [Deferred()]
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.assertEqual(len(os.listdir(self.queue)), 1)
        self.post.restart()
        self.assertEqual(self.taken(), ["mia@example.org"])
        self.assertEqual(self.post.delivery.tried, ["mia@example.org"] * 2)

    def test_killed_right_after_the_server_took_it(self) -> None:
        self.post.delivery.after = Unreachable("closed without good-bye")
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.assertEqual(self.post.mailer.counts["Sent"], 1)
        self.post.restart()
        self.post.minutes(90)
        self.assertEqual(self.taken(), ["mia@example.org"])

    def test_killed_before_the_stamp_was_written(self) -> None:
        """alerting.md 10: whoever was told shortly before is told of again, once, and nothing that was not sent."""
        self.post.start()
        self.successResultOf(self.post.hand_in("jan"))
        (old,) = Path(self.post.path, "done").iterdir()
        os.utime(old, (time.time() - 3600,) * 2)
        self.post.minutes(30)
        self.post.delivery.answers = [None, Refused(550, "no such user")]
        self.successResultOf(self.post.hand_in("mia", since=START + MINUTE))
        self.successResultOf(self.post.hand_in("jan", since=START + MINUTE))
        self.successResultOf(self.post.hand_in("nobody"))
        self.assertEqual(len(self.post.mailer.spool._done), 4)
        told = self.post.delivered[-1]
        self.assertEqual(told[2], "mia")
        self.post.delivered.clear()
        self.post.restart()
        self.assertEqual(self.post.delivered, [told])
        self.post.minutes(5)
        self.assertEqual(self.post.delivered, [told])

    def test_the_same_mail_has_the_same_bytes_each_time(self) -> None:
        self.post.start()
        self.post.delivery.answers = [None]
        self.successResultOf(self.post.hand_in("mia"))
        first = self.post.delivery.taken[0][1]
        other = Post(self.mktemp())
        other.delivery.answers = [Refused(450, "later")]
        other.start()
        self.successResultOf(other.hand_in("mia"))
        other.restart()
        other.minutes(5)
        self.assertEqual(other.delivery.taken[0][1], first)

    def test_not_now(self) -> None:
        self.post.delivery.always = Refused(450, "not now")
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        times = [len(self.post.delivery.tried)]
        for _ in range(180):
            self.post.minutes(1)
            times.append(len(self.post.delivery.tried))
        self.assertEqual([times.index(n) for n in range(1, 7)], [0, 1, 6, 21, 81, 141])
        self.post.delivery.always = None
        self.post.minutes(60)
        self.assertEqual(self.taken(), ["mia@example.org"])

    def test_maybe_taken(self) -> None:
        """A server that takes mails and never says so: its readers get few of them, not one every five minutes."""
        self.post.delivery.always = Unreachable("cut off after the text", in_doubt=True)
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(7)
        self.post.restart()
        self.post.minutes(173)
        self.assertLessEqual(len(self.post.delivery.tried), 7)
        self.post.delivery.always = None
        self.post.minutes(60)
        self.assertEqual(self.taken(), ["mia@example.org"])

    def test_how_often_it_was_tried_survives(self) -> None:
        self.post.delivery.always = Refused(450, "not now")
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(7)
        self.assertEqual(len(self.post.delivery.tried), 3)
        self.post.restart()
        self.post.minutes(10)
        self.assertEqual(len(self.post.delivery.tried), 3)
        self.post.minutes(10)
        self.assertEqual(len(self.post.delivery.tried), 4)

    def test_never(self) -> None:
        self.post.delivery.answers = [Refused(550, "no such user")]
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(200)
        self.assertEqual((self.post.delivery.tried, self.post.mailer.counts["Failed"]), (["mia@example.org"], 1))
        self.assertEqual(self.post.delivered, [])
        self.assertEqual(self.post.mailer.ended, {("alerting_offline", "Failed"): 1})
        self.assertEqual(self.successResultOf(self.post.hand_in("mia")), 0)

    def test_a_clock_that_is_set_back_stops_nothing(self) -> None:
        """Each mail goes as soon as it would have gone without the day that was too much."""
        for answer, options in (
            (None, {"per_minute": 1}),
            (None, {"per_hour": 1}),
            (Unreachable("away"), {}),
            (Refused(450, "later"), {}),
        ):
            post = Post(self.mktemp(), **options)
            post.ahead = 24 * 60 * MINUTE
            post.start()
            post.delivery.answers = [answer]
            self.successResultOf(post.hand_in("mia"))
            post.ahead = 0
            self.successResultOf(post.hand_in("mia", since=START + MINUTE))
            post.minutes(61)
            self.assertEqual(len(post.delivery.taken), 2, (answer, options))

    def test_many_that_have_no_reason_any_more_leave_the_reactor_to_others(self) -> None:
        """The mail server was away, and all edges came back meanwhile."""

        post = Post(self.mktemp(), per_hour=1000)

        async def not_any_more(*mail: object) -> bool:
            # A millisecond of work.
            post.clock.rightNow += 0.001
            return False

        post.delivery.always = Unreachable("away")
        post.start()
        for n in range(90):
            self.successResultOf(post.hand_in("mia", since=START + n))
        post.mailer.is_wanted = not_any_more
        ended = [0]
        turn = post.mailer._pump

        def counted() -> None:
            turn()
            ended.append(post.mailer.counts["Outdated"])

        self.patch(post.mailer, "_pump", counted)
        post.minutes(1)
        self.assertEqual(ended[-1], 90)
        self.assertLess(max(after - before for before, after in pairwise(ended)), 20)

    def test_nobody_knows_yet(self) -> None:
        """Its reason may be gone as soon as edges had time to connect: it waits, which is no failed try."""
        self.post.wanted = None
        self.post.start()
        self.successResultOf(self.post.hand_in("mia", "jan"))
        self.post.minutes(15)
        self.assertEqual((self.post.delivery.tried, len(self.post.mailer.spool.waiting)), ([], 2))
        self.assertEqual(set(self.post.mailer.counts.values()), {0})
        self.post.wanted = True
        self.post.minutes(2)
        self.assertEqual(len(self.taken()), 2)

    def test_too_old(self) -> None:
        self.post.delivery.always = Refused(450, "not now")
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(2880 + 120)
        self.assertEqual(self.post.mailer.counts["Expired"], 1)
        self.assertEqual(self.post.mailer.spool.waiting, {})

    def test_a_dead_server_is_asked_for_one_mail_now_and_then(self) -> None:
        self.post.delivery.always = Unreachable("refused")
        self.post.start()
        self.successResultOf(self.post.hand_in(*(f"u{n}" for n in range(50))))
        self.successResultOf(self.post.hand_in("mia", "jan"))
        self.assertLess(len(self.post.delivery.tried), 4)
        self.post.minutes(30)
        self.assertLess(len(self.post.delivery.tried), 12)
        self.assertEqual(len(self.post.mailer.health()), 1)
        self.assertEqual(len(self.post.mailer.spool.waiting), 2)
        self.assertEqual(self.post.mailer.counts["Dropped"], 50)
        self.post.delivery.always = None
        self.post.minutes(6)
        self.assertEqual(sorted(self.taken()), ["jan@example.org", "mia@example.org"])
        self.assertEqual(self.post.mailer.health(), [])

    def test_one_bad_mail_does_not_stop_the_others(self) -> None:
        """A mail the server breaks off at each time."""
        self.post.delivery.bad = {"mia@example.org": Unreachable("closed")}
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.successResultOf(self.post.hand_in("jan"))
        self.post.minutes(10)
        self.assertEqual(self.taken(), ["jan@example.org"])

    def test_a_server_that_refuses_is_there(self) -> None:
        self.post.delivery.always = Unreachable("away")
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(20)
        self.assertEqual(len(self.post.mailer.health()), 1)
        self.post.delivery.always = Refused(450, "later")
        self.post.minutes(6)
        self.assertEqual(self.post.mailer.health(), [])

    def test_no_reason_any_more(self) -> None:
        self.post.delivery.always = Unreachable("away")
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(5)
        self.post.wanted = False
        self.post.delivery.always = None
        self.post.minutes(10)
        self.assertEqual((self.taken(), self.post.mailer.counts["Outdated"]), ([], 1))
        self.assertEqual(os.listdir(self.queue), [])

    def test_readers_that_are_gone(self) -> None:
        self.post.start()
        self.successResultOf(self.post.hand_in("nobody"))
        self.assertEqual(self.post.mailer.counts["Dropped"], 1)

    def test_bad_addresses(self) -> None:
        from msgspec.structs import replace

        for address in ("mia@example.org\r\nRCPT TO:<x@example.org>", "<mia>@example.org", "mia", "mia@[127.0.0.1]"):
            self.post.users.users[address] = replace(self.post.users.users["mia"], login=address, address=address)
            if not self.post.mailer._running:
                self.post.start()
            self.successResultOf(self.post.hand_in(address))
        self.assertEqual(self.post.mailer.counts["Dropped"], 4)
        self.assertEqual(self.post.delivery.tried, [])

    def test_metadata_that_is_away(self) -> None:
        self.post.users.broken = True
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.assertEqual(self.taken(), [])
        self.post.users.broken = False
        self.post.minutes(2)
        self.assertEqual(self.taken(), ["mia@example.org"])

    def test_as_many_a_minute_as_may(self) -> None:
        post = Post(self.mktemp(), per_minute=10, per_hour=1000).start()
        for n in range(25):
            self.successResultOf(post.hand_in("mia", since=START - n * MINUTE))
        self.assertEqual(len(post.delivery.taken), 10)
        post.minutes(1.1)
        self.assertEqual(len(post.delivery.taken), 20)
        post.minutes(1.1)
        self.assertEqual(len(post.delivery.taken), 25)

    def test_as_many_at_once_as_may(self) -> None:
        waits = [Deferred() for _ in range(5)]
        self.post.delivery.answers = list(waits)
        self.post.start()
        for n in range(5):
            self.successResultOf(self.post.hand_in("mia", since=START - n * MINUTE))
        for n, wait in enumerate(waits):
            self.assertEqual(len(self.post.delivery.tried), min(5, n + 2))
            wait.callback(None)
        self.assertEqual(len(self.taken()), 5)

    def test_oldest_first(self) -> None:
        self.post.start()
        self.post.delivery.always = Unreachable("away")
        for n in (0, 1, 2):
            self.successResultOf(self.post.hand_in("mia" if n % 2 else "jan", since=START + n))
            self.post.clock.advance(1)
        self.post.delivery.always = None
        self.post.restart()
        self.post.minutes(1)
        self.assertEqual([sent_at for *_, sent_at in self.post.delivered], [START, START + 1000, START + 2000])

    def test_full(self) -> None:
        post = Post(self.mktemp(), limit=3).start()
        post.delivery.always = Refused(450, "not now")
        for n in range(3):
            self.successResultOf(post.hand_in("mia", since=START + n))
        error = self.failureResultOf(post.hand_in("jan", since=START + 9), OpenemsError).value
        self.assertIn("full", error.message)
        post.delivery.always = None
        post.minutes(2)
        self.assertEqual(self.successResultOf(post.hand_in("jan", since=START + 9)), 1)

    def test_a_spool_that_cannot_be_written(self) -> None:
        self.post.start()
        self.post.mailer.spool._queue = Path(self.mktemp()) / "nowhere"
        error = self.failureResultOf(self.post.hand_in("mia"), OpenemsError).value
        self.assertIn("cannot be written", error.message)
        self.assertEqual(self.post.mailer.spool.waiting, {})

    def test_broken_files(self) -> None:
        self.post.delivery.always = Refused(450, "not now")
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        (self.queue / "0123.json").write_bytes(b"{")
        (self.queue / "4567.json").write_bytes(b'{"key":"other","template":"test","sentAt":1}')
        (self.queue / "89.json.tmp").write_bytes(b"half")
        self.post.restart()
        self.assertEqual(sorted(path.suffix for path in self.queue.iterdir()), [".bad", ".bad", ".json"])
        self.assertEqual(self.post.mailer.debug_metrics()["Mail.Smtp/Unreadable"], 2)
        self.assertEqual(len(self.post.mailer.spool.waiting), 1)
        self.flushLoggedErrors()

    def test_what_is_done_stays_done(self) -> None:
        """Also when its file is in the queue once more: what was written about a try came after the end."""
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        (path,) = (self.queue.parent / "done").iterdir()
        (self.queue / path.name).write_bytes(path.read_bytes())
        self.post.restart()
        self.post.minutes(1)
        self.assertEqual(self.taken(), ["mia@example.org"])
        self.assertEqual(os.listdir(self.queue), [])

    def test_done_without_room_for_remembering_it(self) -> None:
        """A disk may be too full for one more name in a folder. What was sent is not sent again for that."""
        self.post.start()
        shutil.rmtree(self.queue.parent / "done")
        self.successResultOf(self.post.hand_in("mia"))
        self.assertEqual(self.successResultOf(self.post.hand_in("mia")), 0)
        self.post.restart()
        self.post.minutes(1)
        self.assertEqual(self.taken(), ["mia@example.org"])

    def test_a_try_is_not_written_about_what_is_done(self) -> None:
        self.post.delivery.answers = [Refused(450, "later")]
        self.post.start()
        late: list[Callable[[], Any]] = []
        self.successResultOf(self.post.hand_in("mia"))
        (envelope,) = self.post.mailer.spool.waiting.values()

        def later(work: Callable[[], Any]) -> Deferred[Any]:
            late.append(work)
            return Deferred()

        self.patch(self.post.mailer.spool, "_in_thread", later)
        self.post.mailer.spool.again(envelope)
        self.post.minutes(2)
        self.assertEqual(self.taken(), ["mia@example.org"])
        late[0]()
        self.assertEqual(os.listdir(self.queue), [])

    def test_when_it_was_done_is_remembered_and_not_when_it_was_written(self) -> None:
        self.post.delivery.answers = [Refused(450, "later")]
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        (path,) = self.queue.iterdir()
        os.utime(path, (1000, 1000))
        self.patch(self.post.mailer.spool, "again", lambda envelope: None)
        self.post.minutes(2)
        self.assertGreater((self.queue.parent / "done" / path.name).stat().st_mtime, 1000)

    def test_done_is_forgotten_after_a_month(self) -> None:
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        (path,) = (self.queue.parent / "done").iterdir()
        os.utime(path, (START / 1000 - 32 * 86_400, START / 1000 - 32 * 86_400))
        self.post.restart()
        self.assertEqual(self.successResultOf(self.post.hand_in("mia")), 1)

    def test_operators(self) -> None:
        post = Post(self.mktemp(), operators=["ops@example.org"]).start()
        for _ in range(2):
            post.mailer.mass_outage(120, 150, START + 60 * MINUTE)
        ((to, message),) = post.delivery.taken
        self.assertEqual(to, "ops@example.org")
        self.assertIn(b"Mass outage: 120 of 150", message)
        self.assertEqual(post.delivered, [])

    def test_dry_run(self) -> None:
        post = Post(self.mktemp(), dry_run=True).start()
        self.successResultOf(post.hand_in("mia"))
        self.assertEqual((post.delivery.tried, post.mailer.counts["Sent"]), ([], 1))

    def test_an_unknown_template(self) -> None:
        self.post.start()
        self.failureResultOf(self.post.hand_in("mia", template="../../etc/passwd"), OpenemsError)

    def test_stop_waits_for_the_word(self) -> None:
        wait: Deferred[None] = Deferred()
        self.post.delivery.answers = [wait]
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        stopped = Deferred.fromCoroutine(self.post.mailer.stop())
        self.assertNoResult(stopped)
        wait.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.post.mailer.counts["Sent"], 1)

    def test_stop_does_not_wait_for_ever(self) -> None:
        self.post.delivery.answers = [Deferred()]
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        stopped = Deferred.fromCoroutine(self.post.mailer.stop())
        self.post.clock.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(len(self.post.mailer.spool.waiting), 1)
        self.assertEqual(self.post.clock.getDelayedCalls(), [])

    def test_a_listener_that_fails_costs_nothing(self) -> None:
        def fails(*told: object) -> None:
            raise RuntimeError("no")

        self.post.mailer.on_delivered = fails
        self.post.start()
        self.successResultOf(self.post.hand_in("mia"))
        self.post.minutes(90)
        self.assertEqual(self.taken(), ["mia@example.org"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class Others(SynchronousTestCase):
    def test_simulator(self) -> None:
        lines: list[str] = []
        mailer = SimulatorMailer("SimulatorMail")
        from twisted.logger import formatEvent, globalLogPublisher

        def observe(event: dict[str, object]) -> None:
            lines.append(formatEvent(event))  # type: ignore[arg-type]

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        contexts = [MailContext(["demo"], "edge0", since=1), MailContext(["demo"], "edge1", state="Fault")]
        sent = self.successResultOf(Deferred.fromCoroutine(mailer.send_mail(START, "alerting_offline", contexts)))
        self.assertEqual(sent, 2)
        self.assertEqual(
            lines,
            [
                "[SimulatorMail]: Mail(sendAt: 2026-04-20T10:00:30Z, templateId: alerting_offline, params: "
                '[MailContext{"recipients":["demo"],"edgeId":"edge0"}, '
                'MailContext{"recipients":["demo"],"edgeId":"edge1","state":"Fault"}])'
            ],
        )

    def test_users_of_any_metadata(self) -> None:
        from twisted.internet.task import Clock

        metadata = DummyMetadata(EventBus(), reactor=Clock())
        directory = directory_of(metadata)
        self.assertIsInstance(directory, UsersOfMetadata)

        def ask(login: str) -> object:
            return self.successResultOf(Deferred.fromCoroutine(directory.mail_recipient(login, "edge0")))

        self.assertIsNone(ask("demo"))
        self.patch(metadata, "get_user_role", lambda user, edge_id: None)
        self.assertIsNone(ask("a@example.org"))
        self.patch(metadata, "get_user_role", lambda user, edge_id: Role.GUEST)
        self.assertEqual(getattr(ask("a@example.org"), "address", None), "a@example.org")
