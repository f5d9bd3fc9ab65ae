"""When a user is told about an edge: pure state machines, driven by the time they are given (alerting.md 7, 8).

All times are epoch milliseconds, all delays minutes. "After" is strictly after.

Offline (one :class:`Outage` for each edge that somebody must hear of)

1. An edge that goes offline is looked at again after five minutes of grace. Back before that: nothing happened.
2. Still offline then, and its last message is not older than a week: the outage begins. It is counted from the edge's
   **last message**, not from when the connection ended.
3. Whoever has an offline delay hears of it after last message + delay, once an outage. A delay of 0 is off.
4. When the edge is back the outage is over, and who has not been told is not told any more.
5. Whoever was told after the edge's last message was told of this outage: a restart tells nobody twice.
6. Where many edges go offline together it is the connection, not the edges: see :class:`MassGuard`.

Sum state (one :class:`Phase` for each edge in WARNING or FAULT)

1. A phase begins with WARNING or FAULT and ends with INFO or OK. Each user is told once a phase.
2. While the level is WARNING, whoever has a warning delay is told once the edge has been in WARNING or worse for that
   long; while it is FAULT, whoever has a fault delay once the edge has been in FAULT for that long. A change between
   the two loses nothing of what was counted.
3. Only time in which the edge is connected counts: what happens while it is away nobody knows. Nobody is told while it
   is away; when it is back and still bad, the clocks go on.

Both: a mail that could not be handed over is tried again after 1, 5, 15, then every 60 minutes, as long as its reason
lasts. Users and delays are those of the moment in which the mail goes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from openems.backend.models import UserAlertingSettings
from openems.common.role import Level

MINUTE = 60_000
GRACE = 5 * MINUTE
WEEK = 7 * 24 * 60 * MINUTE
#: Edges that went offline within this time of each other went together; a little more than grace and keep-alive.
TOGETHER = 10 * MINUTE
RETRY_MINUTES = (1, 5, 15, 60)


class Recipient(NamedTuple):
    login: str
    delay: int


class Pending(msgspec.Struct, rename="camel", omit_defaults=True):
    """``since`` names the outage or phase: the edge's last message, or the first severe level. ``due``: when to look
    again; None when nobody waits. ``informed``: login -> when his mail was handed over."""

    since: int
    due: int | None = None
    informed: dict[str, int] = {}
    attempts: int = 0


class Outage(Pending):
    """``noticed``: when the connection ended. ``held_until``: not before, a mass outage."""

    noticed: int = 0
    held_until: int | None = None


class Stopwatch(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """Counts while it runs."""

    elapsed: int = 0
    started: int | None = None

    def run(self, now: int) -> None:
        if self.started is None:
            self.started = now

    def pause(self, now: int) -> None:
        if self.started is not None:
            self.elapsed += max(0, now - self.started)
            self.started = None

    def reaches(self, milliseconds: int) -> int | None:
        """When it shows that much; None while it stands."""
        return None if self.started is None else self.started + milliseconds - self.elapsed


class Phase(Pending):
    """``severe`` counts WARNING and FAULT, ``fault`` FAULT alone."""

    level: Level = Level.WARNING
    severe: Stopwatch = msgspec.field(default_factory=Stopwatch)
    fault: Stopwatch = msgspec.field(default_factory=Stopwatch)


class Kept(msgspec.Struct, rename="camel", omit_defaults=True):
    """Of one edge, for after a restart."""

    offline: Outage | None = None
    sum_state: Phase | None = None


P = TypeVar("P", bound=Pending)


class _Rules(Generic[P]):
    def __init__(self) -> None:
        self.entries: dict[str, P] = {}

    def queue_size(self) -> int:
        """Edges with somebody who is still to be told."""
        return sum(1 for entry in self.entries.values() if entry.due is not None)

    def due(self, now: int) -> list[str]:
        """Edges to look at, the longest due first."""
        found = [(e.due, edge_id) for edge_id, e in self.entries.items() if e.due is not None and e.due < now]
        found.sort(key=lambda item: item[0])
        return [edge_id for _, edge_id in found]

    def oldest_due(self, now: int) -> int:
        """For how long the longest due has been waiting, 0 if nothing is."""
        return max((now - e.due for e in self.entries.values() if e.due is not None and e.due < now), default=0)

    def drop(self, edge_id: str) -> P | None:
        return self.entries.pop(edge_id, None)

    def handed_over(self, edge_id: str, since: int, logins: Iterable[str], now: int) -> None:
        """Nothing happens if that outage or phase has ended meanwhile."""
        entry = self.entries.get(edge_id)
        if entry is not None and entry.since == since:
            entry.informed |= dict.fromkeys(logins, now)
            entry.attempts = 0

    def failed(self, edge_id: str, since: int, now: int) -> None:
        entry = self.entries.get(edge_id)
        if entry is not None and entry.since == since:
            minutes = RETRY_MINUTES[min(entry.attempts, len(RETRY_MINUTES) - 1)]
            entry.attempts += 1
            # A tick is strictly after; without the one less a minute would be two ticks.
            again = now + minutes * MINUTE - 1
            waiting = entry.due if entry.due is not None and entry.due >= now else again
            entry.due = min(waiting, again)

    def choose(self, edge_id: str, settings: Sequence[UserAlertingSettings], now: int) -> list[Recipient]:
        """Who is to be told now, in the order of ``settings``; ``due`` is then when the next one is."""
        entry = self.entries[edge_id]
        chosen: list[Recipient] = []
        later: list[int] = []
        for recipient, at in self._deadlines(entry, settings):
            if at < now:
                chosen.append(recipient)
            else:
                later.append(at)
        entry.due = min(later, default=None)
        return chosen

    def _deadlines(self, entry: P, settings: Sequence[UserAlertingSettings]) -> list[tuple[Recipient, int]]:
        raise NotImplementedError


class OfflineRules(_Rules[Outage]):
    def __init__(self) -> None:
        super().__init__()
        #: Edge -> when its connection ended: those in the time of grace.
        self.grace: dict[str, int] = {}
        #: The same of all that went a short while ago, also of those that nobody is told of.
        self.gone: dict[str, int] = {}

    def offline(self, edge_id: str, now: int) -> None:
        self.grace[edge_id] = self.gone[edge_id] = now

    def online(self, edge_id: str) -> Outage | None:
        """The outage that ended."""
        self.grace.pop(edge_id, None)
        self.gone.pop(edge_id, None)
        return self.drop(edge_id)

    def grace_over(self, now: int) -> dict[str, int]:
        """Edge -> when its connection ended; they are in the time of grace no longer."""
        over = {edge_id: noticed for edge_id, noticed in self.grace.items() if noticed + GRACE < now}
        for edge_id in over:
            del self.grace[edge_id]
        return over

    def begin(
        self, edge_id: str, lastmessage: int | None, noticed: int, settings: Sequence[UserAlertingSettings], now: int
    ) -> Outage | None:
        """The outage, or None if nobody is to be told of it. One that is known already goes on."""
        known = self.entries.get(edge_id)
        if known is not None and known.since == lastmessage:
            known.due = self._next(known, settings)
            return known
        self.drop(edge_id)
        if lastmessage is None or lastmessage < now - WEEK:
            return None
        outage = Outage(since=lastmessage, noticed=noticed)
        outage.due = self._next(outage, settings)
        if outage.due is None:
            return None
        self.entries[edge_id] = outage
        return outage

    def _next(self, outage: Outage, settings: Sequence[UserAlertingSettings]) -> int | None:
        return min((at for _, at in self._deadlines(outage, settings)), default=None)

    def _deadlines(self, entry: Outage, settings: Sequence[UserAlertingSettings]) -> list[tuple[Recipient, int]]:
        deadlines = []
        for setting in settings:
            told = setting.last_offline
            # The last message is cut to the minute: a mail within that minute was about the outage before.
            if setting.offline_delay <= 0 or (told is not None and told >= entry.since + MINUTE):
                continue
            if setting.user_login not in entry.informed:
                at = max(entry.since + setting.offline_delay * MINUTE, entry.held_until or 0)
                deadlines.append((Recipient(setting.user_login, setting.offline_delay), at))
        return deadlines

    def together(self, now: int) -> list[str]:
        """Edges that went offline just now, whether they have users or not."""
        begin = now - GRACE - TOGETHER
        self.gone = {edge_id: noticed for edge_id, noticed in self.gone.items() if noticed >= begin}
        restored = [
            edge_id for edge_id, outage in self.entries.items() if outage.noticed >= begin and edge_id not in self.gone
        ]
        return [*self.gone, *restored]

    def hold(self, edge_ids: Iterable[str], until: int) -> list[str]:
        """Nobody is told of these outages before ``until``; each is held once. Those that are held now."""
        held = []
        for edge_id in edge_ids:
            outage = self.entries.get(edge_id)
            if outage is not None and outage.held_until is None and outage.due is not None:
                outage.held_until = until
                outage.due = max(outage.due, until)
                held.append(edge_id)
        return held


class SumStateRules(_Rules[Phase]):
    def level(self, edge_id: str, level: Level, online: bool, now: int) -> Phase | None:
        """A level was reported. None: there is no phase (any more)."""
        if level < Level.WARNING:
            self.drop(edge_id)
            return None
        phase = self.entries.get(edge_id)
        if phase is None:
            phase = self.entries[edge_id] = Phase(since=now, level=level)
        phase.level = level
        if online:
            phase.severe.run(now)
            if level is Level.FAULT:
                phase.fault.run(now)
            else:
                phase.fault.pause(now)
        return phase

    def offline(self, edge_id: str, now: int) -> None:
        """The clocks stand until :meth:`level` is called for the edge that is back."""
        phase = self.entries.get(edge_id)
        if phase is not None:
            phase.severe.pause(now)
            phase.fault.pause(now)
            phase.due = None

    def plan(self, edge_id: str, settings: Sequence[UserAlertingSettings]) -> None:
        """``due`` after a change of the level or of the connection."""
        phase = self.entries.get(edge_id)
        if phase is not None:
            phase.due = min((at for _, at in self._deadlines(phase, settings)), default=None)

    def _deadlines(self, entry: Phase, settings: Sequence[UserAlertingSettings]) -> list[tuple[Recipient, int]]:
        deadlines = []
        is_fault = entry.level is Level.FAULT
        watch = entry.fault if is_fault else entry.severe
        for setting in settings:
            delay = setting.fault_delay if is_fault else setting.warning_delay
            told = setting.last_sum_state
            if delay <= 0 or setting.user_login in entry.informed or (told is not None and told >= entry.since):
                continue
            at = watch.reaches(delay * MINUTE)
            if at is not None:
                deadlines.append((Recipient(setting.user_login, delay), at))
        return deadlines


class MassGuard(msgspec.Struct, frozen=True):
    """Many edges that go offline together have lost their way to here, and their users need no mail about it.

    It is a mass outage when at least ``minimum`` edges, and ``percent`` of those that are or just were online, went
    together. Users are then told only of edges that are still offline ``hold`` minutes later.
    """

    percent: int = 30
    minimum: int = 20
    hold: int = 60

    def is_mass(self, together: int, online: int) -> bool:
        return self.minimum > 0 and together >= self.minimum and together * 100 >= self.percent * (together + online)
