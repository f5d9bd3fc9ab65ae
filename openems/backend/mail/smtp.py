"""``[mail.smtp]``: mails to users over a mail server of one's own (metrics.md 20, 21).

What is handed in is on disk when ``send_mail`` returns; from then on it is this service's to deliver, over restarts.
One mail a recipient; who would get too many gets one for all. Before a mail goes out its reason and its reader are
looked at once more.

What becomes of a mail:

- taken by the server: done, the user's last notification is stamped.
- 4xx: tried again after 1, 5, 15, then every 60 minutes, until it is too old.
- 5xx: given up, with a line in the log.
- no word about it (server away, silent, login or sender refused): the others wait too; tried again after 1, 2, then
  every 5 minutes. One that the server had whole before it fell silent may have been taken: it is tried as after 4xx.
- its reason is gone, its reader has no address or no rights any more: dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, IMailer
from openems.backend.mail.delivery import Delivery, Refused, Unreachable
from openems.backend.mail.letters import MAX_EDGES, Letters
from openems.backend.mail.message import BadAddress, Sender, address, key_of
from openems.backend.mail.pace import MINUTE, Budget, Pace
from openems.backend.mail.render import DIGEST, MASS_OUTAGE, NAMES, Templates
from openems.backend.mail.spool import Envelope, Spool, SpoolFull
from openems.backend.models import MailRecipient
from openems.common.errors import generic, short

#: Of mails that an older version left behind, in the numbers.
OTHER = "other"
RETRY_MINUTES = (1, 5, 15, 60)
#: Milliseconds; also that of a reader who got enough for an hour.
LONGEST_PAUSE = 60 * MINUTE
#: Seconds between two looks at what may go, at most; seconds a question to metadata may take.
LOOK = 10.0
#: Seconds of work until the reactor gets its turn.
SLICE = 0.01
QUESTION_SECONDS = 30.0
#: Seconds for mails on their way when the backend stops.
STOP_SECONDS = 3.0


async def _always(template: str, edge_id: str, login: str, since: int) -> bool | None:
    return True


@implementer(IMailer, IDebugLoggable)
class SmtpMailer:
    """``directory``: an IMailDirectory; ``edge``: edge id -> Edge or None. ``operators``: addresses of those who run
    this. ``per_minute``, ``parallel``: what the server may be asked; ``per_hour``: mails one reader gets, more go
    together; ``max_age``: minutes after which a mail is old."""

    _log = Logger()
    #: Whoever hands mails in must not stamp them as sent.
    confirms_delivery = True

    def __init__(
        self,
        spool: Spool,
        delivery: Delivery,
        templates: Templates,
        sender: Sender,
        directory: Any,
        edge: Callable[[str], Any],
        *,
        reactor: Any,
        now: Callable[[], int],
        operators: Sequence[str] = (),
        per_minute: int = 60,
        parallel: int = 2,
        per_hour: int = 20,
        max_age: int = 2880,
        dry_run: bool = False,
    ) -> None:
        self.spool = spool
        #: Asked before each mail to a user: whether its reason still holds. None: nobody knows yet.
        self.is_wanted: Callable[[str, str, str, int], Awaitable[bool | None]] = _always
        #: Told of each mail the server took.
        self.on_delivered: Callable[[str, str, str, int], None] = lambda template, edge_id, login, sent_at: None
        self.counts = dict.fromkeys(("Sent", "Failed", "Dropped", "Outdated", "Expired", "Retries", "Joined"), 0)
        #: (template, name as in ``counts``) -> mails.
        self.ended: Counter[tuple[str, str]] = Counter()
        self._delivery = delivery
        self._letters = Letters(templates, sender, edge)
        self._directory = directory
        self._reactor = reactor
        self._now = now
        self._operators = list(operators)
        self._pace = Pace(per_minute=per_minute, parallel=parallel)
        self._budget = Budget(per_hour)
        #: Mails that go out as part of another one.
        self._joined: set[str] = set()
        self._max_age = max_age * MINUTE
        self._dry_run = dry_run
        self._running = False
        self._flying: dict[str, Deferred[None]] = {}
        self._timer: Any = None

    # Life

    def open(self) -> None:
        """From now on mails are taken. Raises OSError if there can be no spool."""
        self.spool.open()

    def start(self) -> None:
        """From now on they go out. Not before it is known who the users are: who is unknown gets no mail, ever."""
        self._running = True
        if self.spool.waiting:
            self._log.info("[Mail.Smtp] {n} mails wait from before", n=len(self.spool.waiting))
        # Whoever was told by a process that was killed right after may have had no time to write it down.
        recent, self.spool.recent = self.spool.recent, []
        for envelope in recent:
            self._tell(envelope)
        self._pump()

    async def stop(self) -> None:
        self._running = False
        self._stop_timer()
        if self._flying:
            # One that breaks off now may have been taken: better wait for the word.
            together = DeferredList(list(self._flying.values()))
            try:
                await together.addTimeout(STOP_SECONDS, self._reactor)
            except (TimeoutError, CancelledError):
                for flying in tuple(self._flying.values()):
                    flying.cancel()

    # Handing in

    async def send_mail(self, send_at: int, template_id: str, contexts: Sequence[dict[str, Any]]) -> int:
        """The number of mails that were new and are on disk now. The same mail again (template, edge, login, begin of
        what it is about) is none."""
        if template_id not in NAMES:
            raise generic(f"There is no mail template [{template_id}]")
        envelopes = []
        for context in contexts:
            edge_id = str(context["edgeId"])
            since = getattr(context, "since", 0) or send_at
            delays = getattr(context, "delays", {})
            for login in context["recipients"]:
                envelopes.append(
                    Envelope(
                        key=key_of(template_id, edge_id, login, since),
                        template=template_id,
                        sent_at=send_at,
                        since=since,
                        edge_id=edge_id,
                        login=login,
                        state=str(context.get("state", "")),
                        delay=delays.get(login, 0),
                    )
                )
        return await self._add(envelopes)

    def mass_outage(self, gone: int, known: int, until: int) -> None:
        """Tell the operators."""
        envelopes = [
            Envelope(
                key=key_of(MASS_OUTAGE, "", operator, until),
                template=MASS_OUTAGE,
                sent_at=self._now(),
                since=until,
                address=operator,
                facts={"gone": gone, "known": known, "until": until},
            )
            for operator in self._operators
        ]

        def failed(failure: Any) -> None:
            self._log.error("operators are not told: {reason}", reason=failure.getErrorMessage())

        Deferred.fromCoroutine(self._add(envelopes)).addErrback(failed)

    async def _add(self, envelopes: Sequence[Envelope]) -> int:
        try:
            added = await self.spool.add(envelopes)
        except SpoolFull as e:
            raise generic(f"The spool for mails is full: {e}") from None
        except OSError as e:
            raise generic(f"The spool for mails cannot be written: {e.strerror or e}") from None
        self._pump()
        return added

    # Sending

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _pump(self) -> None:
        """Begin what may begin; come again when more may."""
        if not self._running:
            return
        self._stop_timer()
        began = self._reactor.seconds()
        others_turn = False
        while len(self._flying) < self._pace.at_once:
            now = self._now()
            # Thousands may have no reason any more: an attempt may be over at once.
            others_turn = self._reactor.seconds() - began >= SLICE
            if others_turn or self._pace.free_at(now) > now:
                break
            envelope = next((e for e in self.spool.waiting.values() if self._is_due(e, now)), None)
            if envelope is None:
                break
            flying: Deferred[None] = Deferred.fromCoroutine(self._attempt(envelope))
            if not flying.called:
                self._flying[envelope.key] = flying
            flying.addErrback(self._broken, envelope)
            flying.addCallback(self._landed, envelope.key)
        if len(self.spool.waiting) > len(self._flying):
            wait = 0 if others_turn else LOOK if self._flying else min(LOOK, self._until_next())
            self._timer = self._reactor.callLater(wait, self._pump)

    def _is_due(self, envelope: Envelope, now: int) -> bool:
        if envelope.key in self._flying or envelope.key in self._joined:
            return False
        # No pause is that long: the clock was set back meanwhile.
        return envelope.next_try <= now or envelope.next_try > now + LONGEST_PAUSE

    def _until_next(self) -> float:
        now = self._now()
        soonest = min((e.next_try for e in self.spool.waiting.values()), default=now)
        return max(0.1, (max(soonest, self._pace.free_at(now)) - now) / 1000)

    def _landed(self, result: Any, key: str) -> None:
        if self._flying.pop(key, None) is not None:
            self._pump()

    def _broken(self, failure: Any, envelope: Envelope) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("[Mail.Smtp] mail {key} failed", failure, key=envelope.key)
            self._later(envelope)

    def _together(self, envelope: Envelope) -> list[Envelope]:
        """What goes in one mail: this one, or all for its reader when he would get more than he should. Empty: he got
        enough for now, all of his wait."""
        login = envelope.login
        if not login:
            return [envelope]
        now = self._now()
        his = [e for e in self.spool.waiting.values() if e.login == login and (e is envelope or self._is_due(e, now))]
        free = self._budget.free(login, now)
        if free >= len(his):
            return [envelope]
        if free > 0:
            return his[:MAX_EDGES]
        for held in his:
            held.next_try = self._budget.free_at(login, now)
        return []

    async def _attempt(self, envelope: Envelope) -> None:
        together = self._together(envelope)
        # Nobody else begins with one of these meanwhile.
        joined = {e.key for e in together if e is not envelope}
        self._joined |= joined
        try:
            await self._send(together)
        finally:
            self._joined -= joined

    async def _send(self, together: list[Envelope]) -> None:
        now = self._now()
        current = []
        try:
            for envelope in together:
                if now - envelope.sent_at > self._max_age:
                    self._end(envelope, "Expired", "was not taken for too long, given up")
                elif not (wanted := await self._is_wanted(envelope)):
                    if wanted is None:
                        envelope.next_try = now + MINUTE
                        self.spool.last(envelope)
                    else:
                        self._end(envelope, "Outdated", "has no reason any more, not sent")
                elif (recipient := await self._recipient(envelope)) is None:
                    self._end(envelope, "Dropped", "has no reader with an address and rights, not sent")
                else:
                    current.append((envelope, recipient))
        except Exception as e:
            if isinstance(e, CancelledError):
                raise
            reason = short(f"{type(e).__name__}: {e}", 200)
            self._log.warn("[Mail.Smtp] mail {key} waits: {e}", key=together[0].key, e=reason)
            for envelope in together:
                if envelope.key in self.spool.waiting:
                    self._later(envelope)
            return
        if not current:
            return
        envelopes, recipient = [envelope for envelope, _ in current], current[0][1]
        try:
            to = address(recipient.address)
        except BadAddress as e:
            for envelope in envelopes:
                self._end(envelope, "Dropped", f"cannot be sent: the address {e}")
            return
        message = self._letters.write(envelopes, recipient, to)
        self._pace.begins(self._now())
        await self._deliver(envelopes, to, message)

    async def _within(self, question: Awaitable[Any]) -> Any:
        waiting: Deferred[Any] = Deferred.fromCoroutine(question)  # type: ignore[arg-type]
        return await waiting.addTimeout(QUESTION_SECONDS, self._reactor)

    async def _is_wanted(self, envelope: Envelope) -> bool | None:
        if not envelope.login:
            return True
        question = self.is_wanted(envelope.template, envelope.edge_id, envelope.login, envelope.since)
        wanted: bool | None = await self._within(question)
        return wanted

    async def _recipient(self, envelope: Envelope) -> MailRecipient | None:
        if envelope.address:
            return MailRecipient(login="", address=envelope.address)
        found: MailRecipient | None = await self._within(
            self._directory.mail_recipient(envelope.login, envelope.edge_id or None)
        )
        return found

    async def _deliver(self, envelopes: list[Envelope], to: str, message: bytes) -> None:
        def accepted() -> None:
            self._accepted(envelopes)

        if self._dry_run:
            accepted()
            return
        sender = self._letters.sender
        try:
            await self._delivery.deliver(sender.envelope or sender.address, to, message, accepted)
        except Refused as e:
            self._server_answers()
            for envelope in envelopes:
                if e.permanent:
                    self._end(envelope, "Failed", f"was refused for good: {e}", is_error=True)
                else:
                    self._log.warn("[Mail.Smtp] mail {key} is refused for now: {e}", key=envelope.key, e=str(e))
                    self._later(envelope)
        except Unreachable as e:
            if envelopes[0].key in self.spool.waiting:
                self._server_fails(str(e))
                for envelope in envelopes:
                    # The fault may be in this very mail: the others come before it next time.
                    self.spool.last(envelope)
                    if e.in_doubt:
                        # Each more try may be one more mail for its reader.
                        self._later(envelope)

    def _accepted(self, envelopes: list[Envelope]) -> None:
        """In the moment of the server's word: first of all they are never sent again."""
        for envelope in envelopes:
            self.spool.done(envelope)
        self.counts["Sent"] += 1
        self.counts["Joined"] += len(envelopes) - 1
        self._server_answers()
        first = envelopes[0]
        self.ended[(first.template if len(envelopes) == 1 else DIGEST, "Sent")] += 1
        self._log.info(
            "[Mail.Smtp] mail {key} sent{how}: {template} {edge}{more} to {login!r}",
            key=first.key,
            how=" (dry run)" if self._dry_run else "",
            template=first.template,
            edge=first.edge_id,
            more=f" and {len(envelopes) - 1} more" if len(envelopes) > 1 else "",
            login=first.login or "an operator",
        )
        if not first.login:
            return
        self._budget.sent(first.login, self._now())
        for envelope in envelopes:
            self._tell(envelope)

    def _tell(self, envelope: Envelope) -> None:
        if envelope.login:
            try:
                self.on_delivered(envelope.template, envelope.edge_id, envelope.login, envelope.sent_at)
            except Exception:
                self._log.failure("whoever is told of mail {key} failed", key=envelope.key)

    def _end(self, envelope: Envelope, count: str, what: str, *, is_error: bool = False) -> None:
        self.spool.done(envelope, sent=False)
        self.counts[count] += 1
        self.ended[(envelope.template if envelope.template in NAMES else OTHER, count)] += 1
        (self._log.error if is_error else self._log.warn)(
            "[Mail.Smtp] mail {key} ({template} {edge} to {login!r}) {what}",
            key=envelope.key,
            template=envelope.template,
            edge=envelope.edge_id,
            login=envelope.login or "an operator",
            what=what,
        )

    def _later(self, envelope: Envelope) -> None:
        minutes = RETRY_MINUTES[min(envelope.tries, len(RETRY_MINUTES) - 1)]
        envelope.tries += 1
        envelope.next_try = self._now() + minutes * MINUTE
        self.counts["Retries"] += 1
        self.spool.again(envelope)

    def _server_fails(self, reason: str) -> None:
        problem = f"the mail server {self._delivery.server} cannot be used: {reason}"
        if self._pace.fails(self._now(), problem):
            self._log.error("[Mail.Smtp] {problem}; {n} mails wait", problem=problem, n=len(self.spool.waiting))

    def _server_answers(self) -> None:
        if self._pace.answers():
            self._log.info("[Mail.Smtp] the mail server answers again; {n} mails wait", n=len(self.spool.waiting))

    # What it does

    def health(self) -> list[str]:
        return [self._pace.problem] if self._pace.problem and self._pace.is_failing(self._now()) else []

    def debug_log(self) -> str | None:
        if not self.spool.waiting:
            return None
        return f"[Mail.Smtp] Waiting: {len(self.spool.waiting)}, Sent: {self.counts['Sent']}"

    def debug_metrics(self) -> Mapping[str, int | float]:
        return {
            **{f"Mail.Smtp/{name}": number for name, number in self.counts.items()},
            "Mail.Smtp/Waiting": len(self.spool.waiting),
            "Mail.Smtp/OldestAge": self.spool.oldest_age() / 1000,
            "Mail.Smtp/ServerFailures": self._pace.failures,
            "Mail.Smtp/Unreadable": self.spool.unreadable,
        }
