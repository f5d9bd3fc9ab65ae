"""The signing keys of an issuer, known and asked for (auth.md S10, S11).

- Known keys are looked up without waiting. The set is fetched in the background every ``REFRESH`` seconds; a new set
  takes the place of the old one as a whole, so withdrawn keys end at once.
- A kid that is not in the set causes a fetch: one for all who wait, not more often than every ``MIN_INTERVAL``. A kid
  asked for too early after the last fetch is refused for the moment; one that a fetch did not bring is remembered as
  unknown for ``UNKNOWN``.
- When fetches fail the last set serves on for ``OUTAGE`` seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.backend.authentication.keycloak.keyset import Key

REFRESH = 600.0
MIN_INTERVAL = 10.0
UNKNOWN = 60.0
MAX_UNKNOWN = 256
OUTAGE = 86_400.0
#: Seconds between two looks whether a refresh is due; so soon is the first fetch repeated that failed.
TICK = 10.0
#: Logins that may wait for one fetch.
MAX_WAITING = 1000


class KeysUnavailable(Exception):
    """Whether a key exists cannot be told now: the set could not be fetched."""


class Jwks:
    """``fetch()`` brings the key set, or fails within its own deadline."""

    _log = Logger()

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Mapping[str, Key]]],
        *,
        reactor: Any,
        refresh: float = REFRESH,
        min_interval: float = MIN_INTERVAL,
        outage: float = OUTAGE,
    ) -> None:
        self.fetches = 0
        self.failures = 0
        #: Changes with each set that differs: what was verified with an older one is to be verified again.
        self.generation = 0
        self.problem = ""
        self._fetch = fetch
        self._reactor = reactor
        self._refresh = refresh
        self._min_interval = min_interval
        self._outage = outage
        self._keys: Mapping[str, Key] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._waiting: list[Deferred[None]] = []
        self._running: Deferred[None] | None = None
        self._tick_loop = LoopingCall(self._tick)
        self._tick_loop.clock = reactor

    def start(self) -> None:
        """The first fetch begins; nobody waits for it."""
        if not self._tick_loop.running:
            self._tick_loop.start(TICK, now=True)

    def stop(self) -> None:
        if self._tick_loop.running:
            self._tick_loop.stop()
        if self._running is not None:
            self._running.cancel()

    @property
    def size(self) -> int:
        return len(self._keys)

    def known(self, kid: str) -> Key | None:
        """Without waiting."""
        if self._fetched is None or self._reactor.seconds() - self._fetched > self._outage:
            return None
        return self._keys.get(kid)

    async def key(self, kid: str, *, trusted: bool = False) -> Key | None:
        """The key, fetched if need be; None if the issuer has none by that id. ``trusted``: the token came from the
        issuer itself a moment ago, so nobody makes up its kid. Raises :class:`KeysUnavailable`."""
        key = self.known(kid)
        if key is not None:
            return key
        now = self._reactor.seconds()
        if not trusted:
            at = self._unknown.get(kid)
            if at is not None and now - at < UNKNOWN:
                return None
            if self._running is None and self._tried is not None and now - self._tried < self._min_interval:
                if self._fetched is None or self._fetched < self._tried:
                    raise KeysUnavailable()
                return None
        await self._fetch_ended()
        if trusted and self._tried is not None and self._tried < now and self.known(kid) is None:
            # That fetch had begun before the token was there.
            await self._fetch_ended()
        if self._fetched is None or self._fetched < now:
            raise KeysUnavailable()
        key = self.known(kid)
        if key is None and self._tried is not None and self._tried >= now:
            self._unknown[kid] = self._reactor.seconds()
            self._unknown.move_to_end(kid)
            if len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)
        return key

    async def _fetch_ended(self) -> None:
        """The end of a fetch, begun now or under way."""
        if self._running is None:
            self._begin()
        if self._running is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            raise KeysUnavailable()
        # Each waits for himself: one who gives up must not end it for the others.
        done: Deferred[None] = Deferred(self._gave_up)
        self._waiting.append(done)
        await done

    def _gave_up(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _tick(self) -> None:
        now = self._reactor.seconds()
        due = self._fetched is None or now - self._fetched >= self._refresh
        if due and self._running is None and (self._tried is None or now - self._tried >= self._min_interval):
            self._begin()

    def _begin(self) -> None:
        self._tried = self._reactor.seconds()
        self.fetches += 1
        running = self._running = Deferred.fromCoroutine(self._update())
        running.addErrback(self._failed)
        running.addBoth(self._ended)

    async def _update(self) -> None:
        keys = await self._fetch()
        if not keys:
            # A set without any usable key would end every login: an error page rather than a withdrawal.
            raise ValueError("no key for signatures")
        if self.problem:
            self._log.info("signing keys: fetched again, {count} keys", count=len(keys))
        self.problem = ""
        self._fetched = self._reactor.seconds()
        if {key.identity for key in keys.values()} != {key.identity for key in self._keys.values()}:
            self.generation += 1
            for kid in keys:
                self._unknown.pop(kid, None)
        self._keys = keys

    def _failed(self, failure: Failure) -> None:
        self.failures += 1
        reason = str(failure.value) or type(failure.value).__name__
        if reason != self.problem:
            self._log.error("signing keys: {reason}", reason=reason)
        self.problem = reason

    def _ended(self, _: None) -> None:
        self._running = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            if not done.called:
                done.callback(None)
