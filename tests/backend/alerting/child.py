"""A whole backend in a process whose clock runs fast: CONFIG, real and made-up milliseconds of a moment, factor.

Only what asks for the time sees the fast clock; sockets, timers and disks are real.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.logger import FileLogObserver, formatEventAsClassicLogText, globalLogPublisher

from openems.application import config
from openems.application.backend import Backend

reactor: Any = _reactor


def main(path: str, real: int, made_up: int, factor: int) -> None:
    def now() -> int:
        return made_up + (time.time_ns() // 1_000_000 - real) * factor

    globalLogPublisher.addObserver(FileLogObserver(sys.stderr, formatEventAsClassicLogText))
    backend = Backend(config.load(path), reactor=reactor, now=now)
    if backend.alerting is not None:
        backend.alerting.scheduler.tick_seconds = 60 / factor

    async def run() -> None:
        await backend.start()
        await backend.listening()
        print("ready", flush=True)

    def failed(failure: Any) -> None:
        failure.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addErrback(failed))
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(backend.stop()))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], *(int(argument) for argument in sys.argv[2:5]))
