"""A process that writes history until it is killed, called with the port of the server, the database, the folder of the
spool and a time. Each line it prints is the number of values that are safe by now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from openems.common.data import DataKind, DataNotification

reactor: Any = _reactor
CHANNELS = 25


async def work(port: int, database: str, folder: Path, start: int) -> None:
    provider = TimescaledbTimedata(
        "timedata0",
        folder,
        host="127.0.0.1",
        port=port,
        user="postgres",
        password="secret",
        database=database,
        lookback_days=36_500,
        batch_delay=0.05,
        reactor=reactor,
        now=lambda: start + 3_600_000,
    )
    await provider.start()
    taken = 0
    while True:
        for edge in range(10):
            row: Any = {f"m0/C{n}": taken + n for n in range(CHANNELS)}
            provider.write(f"edge{edge}", DataNotification(DataKind.TIMESTAMPED, {start + taken: row}))
            taken += CHANNELS
        print(taken - provider._spool.unsafe, flush=True)
        await deferLater(reactor, 0.02)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    Deferred.fromCoroutine(work(int(arguments[0]), arguments[1], Path(arguments[2]), int(arguments[3])))
    reactor.run()
