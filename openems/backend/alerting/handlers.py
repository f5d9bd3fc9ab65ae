"""From rules to mails: what both kinds of alerts have in common (alerting.md 7 to 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from openems.backend.alerting.rules import OfflineRules, Phase, SumStateRules
from openems.backend.alerting.scheduler import Slices, within
from openems.backend.models import Edge, MailContext, UserAlertingSettings
from openems.common.errors import OpenemsError, generic, short
from openems.common.role import Level

OFFLINE = "alerting_offline"
SUM_STATE = "alerting_sum_state"
#: Seconds a question to metadata, a call of the mailer may take.
SETTINGS_SECONDS = 30.0
MAIL_SECONDS = 120.0
#: Recipients in one call of the mailer.
BATCH = 500
#: Failures of one tick that are logged one by one.
LOGGED = 5

R = TypeVar("R", OfflineRules, SumStateRules)


class World(NamedTuple):
    """What both handlers work with. ``mailer`` None: nobody sends mails. ``keep``: an edge's entries changed."""

    metadata: Any
    mailer: Any
    store: Any
    reactor: Any
    monotonic: Callable[[], float]
    keep: Callable[[str], None]


class Handler(Generic[R]):
    """``id`` is the component of the metrics, ``name`` that of the log."""

    _log = Logger()
    id: str
    name: str
    template: str

    def __init__(self, rules: R, world: World) -> None:
        self.rules: R = rules
        self.messages_sent = 0
        self.mails_failed = 0
        self.settings_failed = 0
        self._world = world

    def debug_log(self) -> str:
        return f"{self.name}{{MessagesSent: {self.messages_sent}, MessagesQueue: {self.rules.queue_size()}}}"

    def debug_metrics(self, now: int) -> dict[str, int | float]:
        return {
            f"{self.id}/AlertingMessagesSent": self.messages_sent,
            f"{self.id}/AlertingMessagesQueue": self.rules.queue_size(),
            f"{self.id}/Failed": self.mails_failed,
            f"{self.id}/OldestDueAge": self.rules.oldest_due(now) / 1000,
        }

    async def settings(self, edge_id: str) -> list[UserAlertingSettings] | None:
        """None: they cannot be read now."""
        metadata = self._world.metadata
        try:
            found: list[UserAlertingSettings] = await within(
                SETTINGS_SECONDS, metadata.get_user_alerting_settings(edge_id), self._world.reactor
            )
        except CancelledError:
            raise
        except Exception as e:
            self.settings_failed += 1
            if self.settings_failed <= LOGGED or self.settings_failed % 1000 == 0:
                reason = e.message if isinstance(e, OpenemsError) else f"{type(e).__name__}: {e}"
                self._log.warn(
                    "Could not get alerting settings for {edge_id}: {reason} ({n} times so far)",
                    edge_id=edge_id,
                    reason=short(reason, 300),
                    n=self.settings_failed,
                )
            return None
        return found

    def applies(self, edge: Edge | None) -> bool:
        """Whether mails about this edge still have a reason."""
        raise NotImplementedError

    def context(self, edge: Edge, entry: Any, recipients: Sequence[Any]) -> MailContext:
        return MailContext(
            [recipient.login for recipient in recipients],
            edge.id,
            since=entry.since,
            delays={recipient.login: recipient.delay for recipient in recipients},
        )

    def _gone(self, edge_id: str) -> bool:
        """The reason for mails is gone: the entry too."""
        if self.applies(self._world.metadata.get_edge(edge_id)):
            return False
        self.rules.drop(edge_id)
        self._world.keep(edge_id)
        return True

    async def deliver(self, now: int) -> None:
        """Hand over to the mailer what is due."""
        slices = Slices(self._world.reactor, self._world.monotonic)
        contexts: list[MailContext] = []
        for edge_id in self.rules.due(now):
            entry = self.rules.entries.get(edge_id)
            if entry is None or self._gone(edge_id):
                continue
            settings = await self.settings(edge_id)
            # Much may have happened while waiting.
            if self.rules.entries.get(edge_id) is not entry or self._gone(edge_id):
                continue
            if settings is None:
                self.rules.failed(edge_id, entry.since, now)
                continue
            recipients = self.rules.choose(edge_id, settings, now)
            if recipients:
                contexts.append(self.context(self._world.metadata.get_edge(edge_id), entry, recipients))
            self._world.keep(edge_id)
            await slices.pause()
        for batch in _batches(contexts):
            await self._send(now, batch, slices)

    async def _send(self, now: int, batch: list[MailContext], slices: Slices) -> None:
        batch = [context for context in batch if self._is_current(context)]
        if not batch:
            return
        mailer, reactor = self._world.mailer, self._world.reactor
        try:
            if mailer is None:
                raise generic("no mailer is configured")
            sent = await within(MAIL_SECONDS, mailer.send_mail(now, self.template, batch), reactor)
        except CancelledError:
            raise
        except Exception as e:
            self.mails_failed += 1
            reason = e.message if isinstance(e, OpenemsError) else f"{type(e).__name__}: {e}"
            self._log.error(
                "[{name}] mails for {edges} could not be handed over and will be tried again: {reason}",
                name=self.name,
                edges=short(", ".join(context.edge_id for context in batch), 200),
                reason=short(reason, 500),
            )
            for context in batch:
                self.rules.failed(context.edge_id, context.since, now)
                self._world.keep(context.edge_id)
                await slices.pause()
            return
        self.messages_sent += sent
        for context in batch:
            self.rules.handed_over(context.edge_id, context.since, context.recipients, now)
            if not getattr(mailer, "confirms_delivery", False):
                for login in context.recipients:
                    self.stamp(context.edge_id, login, now)
            self._world.keep(context.edge_id)
            await slices.pause()

    def stamp(self, edge_id: str, login: str, sent_at: int) -> None:
        """The last notification of this user (alerting.md 10)."""
        raise NotImplementedError

    def _is_current(self, context: MailContext) -> bool:
        return self.goes_on(context.edge_id, context.since)

    def goes_on(self, edge_id: str, since: int) -> bool:
        """Whether it is still that outage or phase."""
        entry = self.rules.entries.get(edge_id)
        return entry is not None and entry.since == since and not self._gone(edge_id)

    def wanted(self, edge_id: str, since: int, settings: Sequence[UserAlertingSettings], login: str) -> bool:
        """Whether a mail that waits somewhere still has a reason."""
        return self.goes_on(edge_id, since) and any(s.user_login == login and self.has_delay(s) for s in settings)

    def has_delay(self, setting: UserAlertingSettings) -> bool:
        raise NotImplementedError


def _batches(contexts: list[MailContext]) -> Iterator[list[MailContext]]:
    batch: list[MailContext] = []
    recipients = 0
    for context in contexts:
        if batch and recipients + len(context.recipients) > BATCH:
            yield batch
            batch, recipients = [], 0
        batch.append(context)
        recipients += len(context.recipients)
    if batch:
        yield batch


class SumStateHandler(Handler[SumStateRules]):
    id = "alerting_sumstate"
    name = "SumStateHandler"
    template = SUM_STATE

    def applies(self, edge: Edge | None) -> bool:
        """An edge that is away, or has not told its state yet, may still be as bad as it was."""
        return edge is not None and (edge.sum_state is None or edge.sum_state >= Level.WARNING)

    def context(self, edge: Edge, entry: Any, recipients: Sequence[Any]) -> MailContext:
        context = super().context(edge, entry, recipients)
        context["state"] = entry.level.display
        return context

    def stamp(self, edge_id: str, login: str, sent_at: int) -> None:
        self._world.store.set_last_notification(edge_id, login, sum_state=sent_at)

    def has_delay(self, setting: UserAlertingSettings) -> bool:
        return setting.fault_delay > 0 or setting.warning_delay > 0

    # Events

    def level(self, edge: Edge, now: int) -> bool:
        """The edge's level changed, or it came back with one. True: :meth:`plan` is owed."""
        if edge.sum_state is None:
            return False
        phase = self.rules.level(edge.id, edge.sum_state, edge.online, now)
        self._world.keep(edge.id)
        return phase is not None

    def offline(self, edge_id: str, now: int) -> None:
        if edge_id in self.rules.entries:
            self.rules.offline(edge_id, now)
            self._world.keep(edge_id)

    async def plan(self, edge_id: str, now: Callable[[], int]) -> None:
        entry = self.rules.entries.get(edge_id)
        if entry is None:
            return
        settings = await self.settings(edge_id)
        if self.rules.entries.get(edge_id) is not entry:
            return
        if settings is None:
            self.rules.failed(edge_id, entry.since, now())
        else:
            self.rules.plan(edge_id, settings)
        self._world.keep(edge_id)

    def restore(self, edge: Edge, phase: Phase) -> None:
        """The phase goes on when the edge is back. Nobody knows what happened after its last message."""
        for watch in (phase.severe, phase.fault):
            if watch.started is not None:
                watch.pause(max(watch.started, edge.lastmessage or 0))
        phase.due = None
        self.rules.entries[edge.id] = phase
