"""A mailer with a mail server, a spool and users that do as told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from openems.backend.events import EventBus
from openems.backend.interfaces import IMailDirectory
from openems.backend.mail.delivery import Server
from openems.backend.mail.message import Sender
from openems.backend.mail.render import Oem, Templates
from openems.backend.mail.smtp import SmtpMailer
from openems.backend.mail.spool import Spool
from openems.backend.models import Edge, MailContext, MailRecipient
from openems.common.role import Language

START = 1_776_679_230_000
MINUTE = 60_000
TEMPLATES = Templates(Oem(base_url="https://ems.example.org"))


class FakeDelivery:
    """``answers``: what happens to the next mails, None is success; a Deferred is waited for. ``taken``: (recipient,
    mail)."""

    def __init__(self) -> None:
        self.server = Server(host="mail.example.org", port=587)
        self.answers: list[Any] = []
        self.always: Exception | None = None
        #: By recipient.
        self.bad: dict[str, Exception] = {}
        self.tried: list[str] = []
        self.taken: list[tuple[str, bytes]] = []
        #: Raised after the server has taken the mail.
        self.after: BaseException | None = None

    async def deliver(self, sender: str, recipient: str, message: bytes, accepted: Callable[[], None]) -> None:
        self.tried.append(recipient)
        answer = self.answers.pop(0) if self.answers else self.bad.get(recipient, self.always)
        if isinstance(answer, Deferred):
            await answer
        elif answer is not None:
            raise answer
        self.taken.append((recipient, message))
        accepted()
        if self.after is not None:
            raise self.after


@implementer(IMailDirectory)
class Directory:
    def __init__(self) -> None:
        self.users: dict[str, MailRecipient] = {}
        self.broken = False

    async def mail_recipient(self, user_login: str, edge_id: str | None) -> MailRecipient | None:
        if self.broken:
            raise RuntimeError("database away")
        return self.users.get(user_login)


class Post:
    def __init__(self, directory: str, **options: Any) -> None:
        self.path = directory
        self.options = options
        self.clock = Clock()
        self.delivery = FakeDelivery()
        self.users = Directory()
        for login in ("mia", "jan"):
            self.users.users[login] = MailRecipient(
                login=login, address=f"{login}@example.org", firstname=login.title(), language=Language.DE
            )
        self.edge = Edge("edge0", EventBus(), comment="Tal, Graz", lastmessage=START)
        self.delivered: list[tuple[str, str, str, int]] = []
        self.wanted: bool | None = True
        #: By how much the clock of the wall is wrong.
        self.ahead = 0
        self.mailer = self.made()

    def made(self, **more: Any) -> SmtpMailer:
        def in_thread(work: Callable[[], Any]) -> Deferred[Any]:
            return maybeDeferred(work)

        options = {**self.options, **more}
        spool = Spool(self.path, now=self.now, in_thread=in_thread, limit=options.pop("limit", 100))
        mailer = SmtpMailer(
            spool,
            options.pop("delivery", self.delivery),
            TEMPLATES,
            Sender(address="ems@example.org", name="EMS"),
            self.users,
            lambda edge_id: self.edge if edge_id == "edge0" else None,
            reactor=self.clock,
            now=self.now,
            **options,
        )
        mailer.on_delivered = lambda *told: self.delivered.append(told)

        async def wanted(*mail: Any) -> bool | None:
            return self.wanted

        mailer.is_wanted = wanted
        return mailer

    def start(self) -> Post:
        self.mailer.open()
        self.mailer.start()
        return self

    def restart(self) -> None:
        """kill -9 and a new start."""
        self.mailer._running = False
        self.mailer._stop_timer()
        self.mailer = self.made()
        self.mailer.open()
        self.mailer.start()

    def now(self) -> int:
        return START + self.ahead + round(self.clock.seconds() * 1000)

    def minutes(self, minutes: float) -> None:
        self.clock.pump([5.0] * round(minutes * 12))

    def hand_in(
        self, *logins: str, since: int = START, template: str = "alerting_offline", **more: Any
    ) -> Deferred[int]:
        context = MailContext(list(logins), "edge0", since=since, delays=dict.fromkeys(logins, 15), **more)
        return Deferred.fromCoroutine(self.mailer.send_mail(self.now(), template, [context]))


def done(value: Any = None) -> Deferred[Any]:
    return succeed(value)
