"""Alerts about edges that are offline: grace, the scan after a start, mass outages (alerting.md 7, 11)."""

from __future__ import annotations

from collections.abc import Callable

from openems.backend.alerting.handlers import OFFLINE, Handler, World
from openems.backend.alerting.rules import MINUTE, TOGETHER, WEEK, MassGuard, OfflineRules, Outage
from openems.backend.alerting.scheduler import Slices
from openems.backend.models import Edge, UserAlertingSettings
from openems.common.instant import instant


class OfflineHandler(Handler[OfflineRules]):
    """``on_mass_outage(gone, known, until)``: told once for each mass outage, for the operators."""

    id = "alerting_offline"
    name = "OfflineEdgeHandler"
    template = OFFLINE

    def __init__(self, world: World, guard: MassGuard, on_mass_outage: Callable[[int, int, int], None]) -> None:
        super().__init__(OfflineRules(), world)
        #: When the scan is due; None: it is not, or not any more.
        self.scan_at: int | None = None
        #: The newest message of any edge before the wait for the scan began, and how long that is.
        self._last_seen = 0
        self._wait = 0
        self.mass_until: int | None = None
        self.mass_outages = 0
        self._guard = guard
        self._on_mass_outage = on_mass_outage

    def debug_log(self) -> str:
        text = super().debug_log()
        return text if self.scan_at is None else f"{text[:-1]}, !initial wait!}}"

    def debug_metrics(self, now: int) -> dict[str, int | float]:
        return {**super().debug_metrics(now), f"{self.id}/MassOutages": self.mass_outages}

    def applies(self, edge: Edge | None) -> bool:
        return edge is not None and not edge.online

    def stamp(self, edge_id: str, login: str, sent_at: int) -> None:
        self._world.store.set_last_notification(edge_id, login, offline=sent_at)

    def has_delay(self, setting: UserAlertingSettings) -> bool:
        return setting.offline_delay > 0

    # Events

    def wait(self, now: int, minutes: int) -> None:
        """Edges get this time to connect before those that did not are looked for; 0: at the next tick."""
        self._wait = minutes * MINUTE if minutes > 0 else -1
        self.scan_at = now + self._wait
        self._last_seen = max((edge.lastmessage or 0 for edge in self._world.metadata.edges()), default=0)

    def online(self, edge_id: str) -> None:
        if self.rules.online(edge_id) is not None:
            self._world.keep(edge_id)

    def offline(self, edge_id: str, now: int) -> None:
        self.rules.offline(edge_id, now)

    def restore(self, edge: Edge, outage: Outage) -> None:
        """It goes on with the scan, if the edge is still away then. An edge that was here since is another matter."""
        if edge.lastmessage == outage.since and not edge.online:
            outage.due = None
            self.rules.entries[edge.id] = outage
        else:
            self._world.keep(edge.id)

    # Ticks

    async def tick(self, now: int) -> None:
        await self.deliver(now)
        slices = Slices(self._world.reactor, self._world.monotonic)
        for edge_id, noticed in self.rules.grace_over(now).items():
            await self._begin(edge_id, noticed, now)
            await slices.pause()
        if self.scan_at is not None:
            # Not longer than it was meant: the clock may have been set back.
            self.scan_at = min(self.scan_at, now + self._wait)
            if self.scan_at < now:
                await self._scan(now)
        self._look_for_mass_outage(now)

    async def _begin(self, edge_id: str, noticed: int, now: int) -> None:
        edge = self._world.metadata.get_edge(edge_id)
        if edge is None or edge.online or not self._is_recent(edge, now):
            return
        settings = await self.settings(edge_id)
        edge = self._world.metadata.get_edge(edge_id)
        if edge is None or edge.online:
            return
        if settings is None:
            # Its time of grace is over already: the next tick comes here again.
            self.rules.grace.setdefault(edge_id, noticed)
            return
        if self.rules.begin(edge_id, edge.lastmessage, noticed, settings, now) is not None:
            self._world.keep(edge_id)

    def _is_recent(self, edge: Edge, now: int) -> bool:
        """An outage that is watched already may be older than a week."""
        if edge.lastmessage is None:
            return False
        return edge.lastmessage >= now - WEEK or edge.id in self.rules.entries

    async def _scan(self, now: int) -> None:
        """If it fails, it is tried again with the next tick."""
        self._log.info("[OfflineEdgeHandler] check Metadata for Offline Edges")
        slices = Slices(self._world.reactor, self._world.monotonic)
        for edge in self._world.metadata.edges():
            if not edge.online and edge.id not in self.rules.grace:
                if edge.lastmessage is not None and edge.lastmessage >= self._last_seen - TOGETHER:
                    self.rules.gone.setdefault(edge.id, now)
                await self._begin(edge.id, now, now)
            await slices.pause()
        self.scan_at = None

    def _look_for_mass_outage(self, now: int) -> None:
        if self.mass_until is not None and self.mass_until < now:
            self.mass_until = None
        together = self.rules.together(now)
        if len(together) < self._guard.minimum:
            return
        known = self._world.metadata.edges()
        online = sum(1 for edge in known if edge.online)
        if not self._guard.is_mass(len(together), online):
            return
        until = self.mass_until or now + self._guard.hold * MINUTE
        held = self.rules.hold(together, until)
        for edge_id in held:
            self._world.keep(edge_id)
        if held and self.mass_until is None:
            self.mass_until = until
            self.mass_outages += 1
            self._log.error(
                "[OfflineEdgeHandler] mass outage: {gone} of {known} edges went offline together; their users are told "
                "only of those that are still offline at {until}",
                gone=len(together),
                known=len(together) + online,
                until=instant(until),
            )
            self._on_mass_outage(len(together), len(together) + online, until)
