"""Metrics of the provider's parts."""

from __future__ import annotations

from openems.backend.timedata.spool import Spool
from openems.postgres.pool import Pool


def of_spool(spool: Spool) -> dict[str, int | float]:
    return {
        "Batches": spool.batches,
        "Retries": spool.retries,
        "Waiting": spool.waiting,
        "WaitingOnDisk": spool.waiting_on_disk,
        "OldestWaitingSeconds": round(spool.oldest_age, 1),
    }


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
