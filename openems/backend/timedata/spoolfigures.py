"""What a spool tells for metrics, whichever provider has it (metrics.md 17)."""

from __future__ import annotations

from openems.backend.timedata.spool import Spool


def of_spool(spool: Spool) -> dict[str, int | float]:
    return {
        "Batches": spool.batches,
        "Retries": spool.retries,
        "Waiting": spool.waiting,
        "WaitingOnDisk": spool.waiting_on_disk,
        "DiskBytes": spool.disk_bytes,
        "Files": spool.files,
        "OldestWaitingSeconds": round(spool.oldest_age, 1),
    }
