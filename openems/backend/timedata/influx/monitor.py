"""What the providers on InfluxDB tell of themselves."""

from __future__ import annotations

from collections.abc import Mapping

from openems.backend.timedata.influx.client import Client
from openems.backend.timedata.influx.database import Reader
from openems.backend.timedata.spool import Spool
from openems.backend.timedata.spoolfigures import of_spool


def total(*sources: Mapping[str, int]) -> dict[str, int]:
    """Reason -> count of all ``sources``."""
    result: dict[str, int] = {}
    for source in sources:
        for reason, count in source.items():
            result[reason] = result.get(reason, 0) + count
    return result


def line(id: str, spool: Spool, client: Client, dropped: Mapping[str, int], problem: str | None) -> str:
    """For the debug cycle. ``problem``: why nothing can be read."""
    state = f" CANNOT WRITE: {spool.failing}" if spool.failing else ""
    state += f" DISK: {spool.disk_trouble}" if spool.disk_trouble else ""
    state += f" CANNOT WORK: {problem}" if problem and not spool.failing else ""
    return (
        f"[{id}] Written:{spool.written} Waiting:{spool.waiting} OnDisk:{spool.waiting_on_disk}"
        f" Batches:{spool.batches} Retries:{spool.retries} Queries:{client.reads.active + client.reads.waiting}"
        f" Dropped:{sum(dropped.values())}{state}"
    )


def metrics(
    id: str, spool: Spool, client: Client, reader: Reader, dropped: Mapping[str, int]
) -> dict[str, int | float]:
    return {
        f"{id}/Rows": spool.written,
        **{f"{id}/{name}": value for name, value in of_spool(spool).items()},
        f"{id}/QueriesPending": client.reads.active + client.reads.waiting,
        f"{id}/QueriesCompleted": reader.answered,
        f"{id}/QueriesFailed": reader.failed,
        f"{id}/QueriesRefused": reader.refused,
        f"{id}/WritesPending": client.writes.active + client.writes.waiting,
        **{f"{id}/Dropped{reason.capitalize()}": count for reason, count in dropped.items()},
    }
