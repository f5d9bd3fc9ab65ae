"""Too many mails for one reader go together."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.mail.delivery import Refused, Unreachable
from openems.backend.models import MailContext
from tests.backend.mail.post import MINUTE, START, Post


class Digest(SynchronousTestCase):
    def hand_in(self, post: Post, edges: int, *, first: int = 0, state: str = "", login: str = "mia") -> int:
        more = {"state": state} if state else {}
        contexts = [MailContext([login], f"edge{first + n}", since=START - n * MINUTE, **more) for n in range(edges)]
        template = "alerting_sum_state" if state else "alerting_offline"
        return self.successResultOf(Deferred.fromCoroutine(post.mailer.send_mail(post.now(), template, contexts)))

    def bodies(self, post: Post) -> list[tuple[str, str]]:
        found = []
        for _, data in post.delivery.taken:
            message = message_from_bytes(data, policy=default)  # type: ignore[arg-type]
            found.append((str(message["Subject"]), message.get_body(("plain",)).get_content()))
        return found

    def test_many_at_once(self) -> None:
        post = Post(self.mktemp()).start()
        self.assertEqual(self.hand_in(post, 30), 30)
        ((subject, text),) = self.bodies(post)
        self.assertEqual(subject, "30 Anlagen brauchen Aufmerksamkeit")
        for n in range(30):
            self.assertIn(f"edge{n}", text)
        self.assertIn("edge0 (Tal, Graz): Offline · 20.04.2026 10:00 (UTC)", text)
        self.assertEqual((post.mailer.counts["Sent"], post.mailer.counts["Joined"]), (1, 29))
        self.assertEqual(post.mailer.ended, {("alerting_digest", "Sent"): 1})
        self.assertEqual(len(post.delivered), 30)
        post.restart()
        self.assertEqual(self.hand_in(post, 30), 0)
        self.assertEqual(len(post.delivery.taken), 1)

    def test_few_are_single(self) -> None:
        post = Post(self.mktemp()).start()
        self.hand_in(post, 20)
        self.assertEqual(len(post.delivery.taken), 20)

    def test_so_many_an_hour_then_one_for_the_rest(self) -> None:
        post = Post(self.mktemp(), per_hour=5).start()
        for n in range(8):
            self.hand_in(post, 1, first=n, state="Fault" if n % 2 else "")
            post.minutes(1)
        self.assertEqual(len(post.delivery.taken), 5)
        self.hand_in(post, 1, login="jan")
        self.assertEqual(len(post.delivery.taken), 6)
        post.minutes(50)
        self.assertEqual(len(post.delivery.taken), 6)
        post.minutes(10)
        subject, text = self.bodies(post)[-1]
        self.assertEqual((len(post.delivery.taken), subject), (7, "3 Anlagen brauchen Aufmerksamkeit"))
        self.assertIn("edge5: Fehler", text)
        self.assertIn("edge6: Offline", text)
        self.assertEqual(post.mailer.spool.waiting, {})

    def test_what_has_no_reason_any_more_is_left_out(self) -> None:
        post = Post(self.mktemp(), per_hour=5)

        async def wanted(template: str, edge_id: str, login: str, since: int) -> bool:
            return edge_id not in ("edge3", "edge4")

        post.mailer.is_wanted = wanted
        post.start()
        self.hand_in(post, 10)
        ((subject, text),) = self.bodies(post)
        self.assertTrue(subject.startswith("8 "))
        self.assertNotIn("edge3", text)
        self.assertEqual(post.mailer.counts["Outdated"], 2)

    def test_refused_for_now(self) -> None:
        post = Post(self.mktemp(), per_hour=5).start()
        for answer in (Refused(450, "later"), Unreachable("cut")):
            post.delivery.answers.append(answer)
        self.hand_in(post, 10)
        post.minutes(20)
        self.assertEqual(len(self.bodies(post)), 1)
        self.assertEqual(len(post.delivered), 10)

    def test_refused_for_good(self) -> None:
        post = Post(self.mktemp(), per_hour=5).start()
        post.delivery.answers.append(Refused(550, "no such user"))
        self.hand_in(post, 10)
        self.assertEqual((post.mailer.counts["Failed"], post.mailer.spool.waiting), (10, {}))

    def test_killed_right_after_it_was_taken(self) -> None:
        post = Post(self.mktemp(), per_hour=5)
        post.delivery.after = Unreachable("closed without good-bye")
        post.start()
        self.hand_in(post, 10)
        post.restart()
        self.assertEqual(self.hand_in(post, 10), 0)
        post.minutes(90)
        self.assertEqual(len(post.delivery.taken), 1)

    def test_a_very_long_list_is_several(self) -> None:
        post = Post(self.mktemp(), limit=1000).start()
        self.hand_in(post, 250)
        self.assertEqual([subject.split()[0] for subject, _ in self.bodies(post)], ["100", "100", "50"])
        self.assertLess(max(len(data) for _, data in post.delivery.taken), 100_000)

    def test_two_at_the_same_time_share_nothing(self) -> None:
        """While one digest is on its way what came later begins none of it."""
        wait: Deferred[None] = Deferred()
        post = Post(self.mktemp(), per_hour=5).start()
        post.delivery.answers.append(wait)
        self.hand_in(post, 10)
        self.hand_in(post, 10, first=10)
        wait.callback(None)
        post.minutes(1)
        texts = [text for _, text in self.bodies(post)]
        for n in range(20):
            self.assertEqual(sum(f"edge{n}:" in text or f"edge{n} (" in text for text in texts), 1, n)
