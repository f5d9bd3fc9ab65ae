"""``twistd -n openems-simulator``: the simulated fleet as a Twisted service."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from twisted.python.usage import Options as UsageOptions

from openems.application.config import BadConfiguration, read_text
from openems.application.service import SignalledService
from openems.application.systemd import Systemd

#: Where the fleet comes from: ``Fleet(url, apikeys, *, reactor, now)`` with ``async start()`` and ``async stop()``.
FLEET = "openems.simulator.fleet"

#: Options that are numbers: the least and the most.
LIMITS = (("cycle", 0.001, 86_400.0), ("resend-wait", 0.0, 86_400.0), ("backfill-days", 0.0, 3_660.0))


class Options(UsageOptions):
    optParameters = [
        ["url", "u", "ws://127.0.0.1:8081", "Where edges connect to."],
        ["fleet", "f", None, "A JSON file of edge id -> apikey."],
        ["scenario", "s", "steady", "What happens: steady, outage, fault, storm or slow."],
        ["cycle", "c", 1.0, "Seconds between two messages of an edge.", float],
        ["seed", None, 1, "The same seed gives the same values.", int],
        ["resend-wait", None, 300.0, "Seconds after a connect until missed values are sent again, at least.", float],
        ["backfill-days", "b", 0.0, "Days of history each edge sends before its live data.", float],
        ["backfill-mark", None, None, "A file made when all have sent it; where it is there already, nothing is sent."],
    ]


def available() -> bool:
    """False for an installation without the simulator."""
    return importlib.util.find_spec(FLEET) is not None


def read_fleet(path: str) -> dict[str, str]:
    """Edge id -> apikey. Raises :class:`BadConfiguration`."""
    try:
        fleet = json.loads(read_text(Path(path)))
    except ValueError as e:
        raise BadConfiguration(path, [f"{path}: no valid JSON: {e}"]) from None
    if not isinstance(fleet, dict) or not all(isinstance(apikey, str) for apikey in fleet.values()):
        raise BadConfiguration(path, [f"{path}: is no object of edge id -> apikey"])
    return fleet


def _mark(path: Path | None) -> None:
    if path is not None:
        # Without it the next start sends all of it again, which does no harm.
        with contextlib.suppress(OSError):
            path.touch()


class SimulatorService(SignalledService):
    def __init__(self, fleet: Any, reactor: Any) -> None:
        super().__init__(reactor)
        self._fleet = fleet
        self._systemd = Systemd(os.environ, reactor=reactor)

    async def begin(self) -> None:
        await self._fleet.start()
        self._systemd.ready("the fleet runs")

    async def end(self) -> None:
        self._systemd.stopping()
        await self._fleet.stop()


def makeService(options: Options) -> SimulatorService:
    from twisted.internet import reactor

    from openems.application.service import now_milliseconds, steady

    if options["fleet"] is None:
        raise SystemExit("--fleet FILE is needed")
    if not available():
        raise SystemExit("the simulator is not part of this installation")
    for option, least, most in LIMITS:
        # Not a number is outside, too.
        if not least <= options[option] <= most:
            raise SystemExit(f"--{option} {options[option]:g}: {least:g} to {most:g}")
    steady(reactor)
    try:
        apikeys = read_fleet(options["fleet"])
    except BadConfiguration as e:
        raise SystemExit("\n".join(e.problems)) from None
    mark = Path(options["backfill-mark"]) if options["backfill-mark"] else None
    try:
        fleet = importlib.import_module(FLEET).Fleet(
            options["url"],
            apikeys,
            reactor=reactor,
            now=now_milliseconds,
            scenario=options["scenario"],
            cycle=options["cycle"],
            seed=options["seed"],
            backfill_days=0.0 if mark is not None and mark.exists() else options["backfill-days"],
            backfilled=lambda: _mark(mark),
            # As with real edges: up to an hour more, unless it is made short to watch it.
            resend_wait=(options["resend-wait"], options["resend-wait"] * 13),
        )
    except ValueError as e:
        raise SystemExit(str(e)) from None
    return SimulatorService(fleet, reactor)
