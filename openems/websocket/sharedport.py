"""One port, several processes: each has its own listening socket, the kernel spreads connections over them.

With SO_REUSEPORT a process that dies takes only its own socket along: the others get every connection from then on. A
socket that is bound and does not listen keeps the port for its owner and gets none.
"""

from __future__ import annotations

import socket

from twisted.internet.error import CannotListenError

BACKLOG = 4096


def share(port: int, interface: str) -> socket.socket:
    """A socket bound to the port (0: any), not listening yet; others of this user may bind it, too.

    Raises CannotListenError.
    """
    return _bound(port, interface, shared=True)


def reserve(port: int, interface: str) -> socket.socket:
    """Like :func:`share`, for the first of the family: fails also where another family listens already.

    Raises CannotListenError.
    """
    if port:
        # Without SO_REUSEPORT this fails for whoever listens there, those that would share it included.
        _bound(port, interface, shared=False).close()
    return _bound(port, interface, shared=True)


def _bound(port: int, interface: str, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((interface, port))
    except OSError as e:
        made.close()
        raise CannotListenError(interface, port, e) from None
    made.setblocking(False)
    return made
