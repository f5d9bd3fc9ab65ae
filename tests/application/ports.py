"""Ports for tests with real sockets."""

import os
import socket

PORTS = (8075, 8076, 8077, 8079, 8081, 8082, 8083, 9400)


def free_offset() -> int:
    """An offset with which all default ports are free."""
    for offset in range(1000 + os.getpid() % 1000 * 10, 50_000, 10):
        sockets = []
        try:
            for port in PORTS:
                s = socket.socket()
                sockets.append(s)
                s.bind(("127.0.0.1", port + offset))
            return offset
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise RuntimeError("no free ports")
