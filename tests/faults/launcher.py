"""twistd with another clock or shorter pings: ``python -m tests.faults.launcher [--clock FILE] [--ping S AGE] -- ...``.

``--clock``: what is written in the file, milliseconds, is added to the clock of the wall, whenever it changes: as if
somebody set it. ``--ping``: seconds between the pings of a server, and how old a pong may be.
"""

from __future__ import annotations

import argparse
import os
import sys
import time


def step_by(path: str) -> None:
    """Everything takes the time from here: call it before anything is imported that asks for it."""
    real_time, real_time_ns = time.time, time.time_ns
    read: list[int] = [0, 0]

    def offset() -> int:
        changed = os.stat(path).st_mtime_ns
        if changed != read[0]:
            with open(path) as file:
                text = file.read()
            if text:
                read[:] = changed, int(text) * 1_000_000
        return read[1]

    time.time = lambda: real_time() + offset() / 1e9
    time.time_ns = lambda: real_time_ns() + offset()


def main() -> None:
    at = sys.argv.index("--")
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clock")
    options.add_argument("--ping", nargs=2, type=float)
    chosen = options.parse_args(sys.argv[1:at])
    sys.argv = ["twistd", *sys.argv[at + 1 :]]
    if chosen.clock:
        step_by(chosen.clock)
    if chosen.ping:
        from openems.websocket import server

        server.PING_INTERVAL, server.PONG_AGE = chosen.ping
    from twisted.scripts.twistd import run as twistd

    twistd()


if __name__ == "__main__":
    main()
