"""Token buckets for what peers may do how often (ui.md 4.2). Pure: the time comes in as seconds.

Rules
- A bucket holds at most ``burst`` permits (one second's worth if not given) and gains ``rate`` permits a second.
- It starts *full*, so that the first requests after a connect are served (ui.md 19, 29).
- A call that finds an empty bucket without debt is granted on credit: a full bucket grants ``burst + 1`` calls at once
  and the next one when the debt is paid. Longer than a moment it grants ``rate`` calls a second.
"""

from __future__ import annotations

from collections import OrderedDict


class TokenBucket:
    """
    >>> bucket = TokenBucket(20.0, now=0.0)
    >>> sum(bucket.take(0.0) for _ in range(30))
    21
    """

    __slots__ = ("_burst", "_debt_until", "_permits", "_rate", "_seen")

    def __init__(self, rate: float, *, burst: float | None = None, now: float) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be positive, not {rate}")
        self._rate = rate
        self._burst = rate if burst is None else burst
        self._permits = self._burst
        self._seen = now
        self._debt_until = now

    def take(self, now: float) -> bool:
        """True if the call is granted."""
        if now < self._debt_until:
            return False
        since = max(self._seen, self._debt_until)
        self._permits = min(self._burst, self._permits + max(0.0, now - since) * self._rate)
        self._seen = now
        if self._permits >= 1.0:
            self._permits -= 1.0
        else:
            self._debt_until = now + (1.0 - self._permits) / self._rate
            self._permits = 0.0
        return True


class PerPeer:
    """A bucket for each peer; of more than ``max_peers`` the one unseen for longest is forgotten."""

    def __init__(self, rate: float, *, burst: float, max_peers: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._max_peers = max_peers
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, peer: str, now: float) -> bool:
        bucket = self._buckets.get(peer)
        if bucket is None:
            bucket = self._buckets[peer] = TokenBucket(self._rate, burst=self._burst, now=now)
            if len(self._buckets) > self._max_peers:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(peer)
        return bucket.take(now)
