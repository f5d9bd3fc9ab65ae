"""How fast new connections are taken.

When a fleet comes back, thousands of connections wait at the port. Twisted takes 100 of them in a turn of the reactor,
then 120, 140 and so on, and the next turn has the handshakes of all these to do, before it comes to those that were
connected already. With a small number in each turn, everybody else has a turn every few milliseconds; taking all of
them is not slower for it, since the port is looked at again at once.
"""

from __future__ import annotations

from typing import Any

#: Connections taken in one turn of the reactor. Each costs about 0.2 ms, handshake and login of an edge included.
ACCEPTS = 20


def pace(port: Any, most: int = ACCEPTS) -> None:
    """``port``: a listening :class:`twisted.internet.tcp.Port`; it takes at most so many in a turn from now on."""
    take = port.doRead

    def take_some() -> Any:
        # Twisted changes the number after each turn.
        port.numberAccepts = min(port.numberAccepts, most)
        return take()

    port.doRead = take_some
