"""What a server's connections have carried: plain numbers, moved where the bytes go by, read by whoever measures.

Sizes of messages are counted by their power of two, ``sizes[n]``: over 2**(n-1) up to and with 2**n bytes; the number
of messages is the sum of that list, so a message costs one addition.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Why a connection ended. ``clean``: a Close frame of the peer; ``timeout``: silent; ``denied``: not wanted;
#: ``server``: ended by us; ``slow``: did not read; ``error``: TCP was lost, or a broken frame.
END_REASONS = ("clean", "timeout", "denied", "server", "slow", "error")
#: Codes of Close frames that are told apart; all others are 0.
CLOSE_CODES = (1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011)
#: Why a handshake failed: not a valid upgrade, or nothing came in time.
HANDSHAKE_FAILURES = ("refused", "timeout")
_SIZES = 48


class Traffic:
    __slots__ = (
        "close_codes",
        "closed",
        "handshake_failures",
        "opened",
        "received_bytes",
        "received_sizes",
        "sent_bytes",
        "sent_sizes",
    )

    def __init__(self) -> None:
        self.opened = 0
        self.closed = dict.fromkeys(END_REASONS, 0)
        self.close_codes = dict.fromkeys((*CLOSE_CODES, 0), 0)
        self.handshake_failures = dict.fromkeys(HANDSHAKE_FAILURES, 0)
        #: Bytes of everything received on open connections and of the text frames sent, without their heads.
        self.received_bytes = 0
        self.sent_bytes = 0
        self.received_sizes = [0] * _SIZES
        self.sent_sizes = [0] * _SIZES

    @property
    def received_messages(self) -> int:
        return sum(self.received_sizes)

    @property
    def sent_messages(self) -> int:
        return sum(self.sent_sizes)

    def add(self, other: Traffic) -> None:
        self.opened += other.opened
        self.received_bytes += other.received_bytes
        self.sent_bytes += other.sent_bytes
        for mine, theirs in (
            (self.closed, other.closed),
            (self.close_codes, other.close_codes),
            (self.handshake_failures, other.handshake_failures),
        ):
            for name, count in theirs.items():
                mine[name] += count  # type: ignore[index]
        for sizes, others in ((self.received_sizes, other.received_sizes), (self.sent_sizes, other.sent_sizes)):
            for n, count in enumerate(others):
                sizes[n] += count

    def ended(self, reason: str, code: int | None) -> None:
        self.closed[reason] += 1
        known = code if code in self.close_codes else 0
        self.close_codes[known or 0] += 1


def together(traffics: Iterable[Traffic]) -> Traffic:
    """The sum of them."""
    total = Traffic()
    for traffic in traffics:
        total.add(traffic)
    return total
