"""The mailer and a real mail server in each of its moods: every mail once, whatever the server does first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openems.backend.mail import delivery as delivery_module
from openems.backend.mail import smtp as smtp_module
from openems.backend.mail.delivery import Delivery, Server
from openems.backend.mail.message import Sender
from openems.backend.mail.smtp import SmtpMailer
from openems.backend.mail.spool import Spool
from openems.backend.models import MailContext, MailRecipient
from services.smtpd import attempts, behave, forget, mails
from tests.backend.mail.post import TEMPLATES, Directory
from tests.real import real

reactor: Any = _reactor
#: A minute of the mailer is a tenth of a second.
FACTOR = 600


class Moods(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.smtpd = real("smtpd")
        forget(self.smtpd)
        self.patch(smtp_module, "LOOK", 0.05)
        self.users = Directory()
        for login in ("mia", "jan"):
            self.users.users[login] = MailRecipient(login=login, address=f"{login}@example.org")
        self.folder = self.mktemp()
        self.began = time.time_ns() // 1_000_000
        self.mailer = self.made()

    def now(self) -> int:
        return self.began + (time.time_ns() // 1_000_000 - self.began) * FACTOR

    def made(self, **server: Any) -> SmtpMailer:
        options = {"host": "127.0.0.1", "port": self.smtpd.port, "security": "none", "timeout": 0.7, **server}
        spool = Spool(self.folder, now=self.now, in_thread=deferToThread)
        mailer = SmtpMailer(
            spool, Delivery(Server(**options), reactor=reactor), TEMPLATES, Sender(address="ems@example.org"),
            self.users, lambda edge_id: None, reactor=reactor, now=self.now, per_minute=10_000,
        )  # fmt: skip
        mailer.open()
        mailer.start()
        self.addCleanup(lambda: ensureDeferred(mailer.stop()))
        return mailer

    async def hand_in(self) -> None:
        context = MailContext(["mia", "jan"], "edge0", since=self.began, delays={"mia": 15, "jan": 60})
        await Deferred.fromCoroutine(self.mailer.send_mail(self.began, "alerting_offline", [context]))

    async def until_empty(self) -> None:
        while self.mailer.spool.waiting:
            await deferLater(reactor, 0.02)

    def assert_once(self) -> None:
        self.assertEqual(sorted(mail.to[0] for mail in mails(self.smtpd)), ["jan@example.org", "mia@example.org"])

    async def mood(self, mode: str, seconds: float, **counts: int) -> None:
        behave(self.smtpd, mode)
        await self.hand_in()
        await deferLater(reactor, seconds)
        self.assertEqual(mails(self.smtpd), [])
        self.assertGreaterEqual(len(attempts(self.smtpd)), 2)
        behave(self.smtpd, "ok")
        await self.until_empty()
        self.assert_once()
        self.assertEqual(self.mailer.counts["Sent"], 2)

    async def test_not_now(self) -> None:
        await self.mood("temporary", 1.0)

    async def test_not_the_first_time(self) -> None:
        behave(self.smtpd, "temporary-once")
        await self.hand_in()
        await self.until_empty()
        self.assert_once()
        self.assertGreaterEqual(self.mailer.counts["Retries"], 2)

    async def test_it_closes_in_the_middle(self) -> None:
        await self.mood("drop", 1.0)

    async def test_it_says_nothing_after_the_text(self) -> None:
        self.patch(delivery_module, "WORD_SECONDS", 0.7)
        await self.mood("hang", 2.0)

    async def test_it_thinks_about_the_text_for_longer_than_all_the_rest_may_take(self) -> None:
        behave(self.smtpd, "slow")
        await self.hand_in()
        await self.until_empty()
        self.assert_once()
        self.assertEqual(len([line for line in attempts(self.smtpd) if line.startswith("DATA")]), 2)

    async def test_never(self) -> None:
        behave(self.smtpd, "permanent")
        await self.hand_in()
        await self.until_empty()
        await deferLater(reactor, 0.5)
        self.assertEqual((len(attempts(self.smtpd)), self.mailer.counts["Failed"]), (2, 2))

    async def test_a_new_start_with_the_same_spool(self) -> None:
        behave(self.smtpd, "temporary")
        await self.hand_in()
        await deferLater(reactor, 0.5)
        await ensureDeferred(self.mailer.stop())
        behave(self.smtpd, "ok")
        self.mailer = self.made()
        await self.until_empty()
        self.assert_once()
        await ensureDeferred(self.mailer.stop())
        self.mailer = self.made()
        await self.hand_in()
        self.assert_once()

    async def test_three_hundred(self) -> None:
        for n in range(300):
            self.users.users[f"u{n}"] = MailRecipient(login=f"u{n}", address=f"u{n}@example.org")
        context = MailContext([f"u{n}" for n in range(300)], "edge0", since=1)
        sent = await Deferred.fromCoroutine(self.mailer.send_mail(self.began, "alerting_offline", [context]))
        self.assertEqual(sent, 300)
        await self.until_empty()
        self.assertEqual(len({mail.to[0] for mail in mails(self.smtpd)}), 300)
        self.assertEqual(len(list(Path(self.folder, "done").iterdir())), 300)
