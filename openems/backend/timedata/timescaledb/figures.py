"""What the sessions of the provider tell for metrics."""

from __future__ import annotations

from openems.postgres.pool import Pool


def of_pools(reading: Pool, writing: Pool) -> dict[str, int | float]:
    """``Pool...`` is of the one for questions, the rest of both."""
    return {
        "PoolOpen": reading.open,
        "PoolBusy": reading.busy,
        "PoolWaiting": reading.waiting,
        "PoolTimedOut": reading.timed_out,
        "PoolLost": reading.lost + writing.lost,
        "Connects": reading.connects + writing.connects,
        "ConnectFailures": reading.connect_failures + writing.connect_failures,
    }
