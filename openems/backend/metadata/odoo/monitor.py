"""What Metadata.Odoo tells of itself: a line for people, figures for metrics (metadata-odoo.md 15). Pure.

The two thread pools of the Java program are here the sessions at PostgreSQL and the calls of Odoo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openems.backend.metadata.odoo.provider import OdooMetadata


def line(metadata: OdooMetadata) -> str:
    pool, calls = metadata.pool, metadata.rpc.exchange.concurrency
    return (
        f"[Metadata.Odoo] [monitor] Event-Executor: Pool: {pool.open}/{pool.size}, Pending: {pool.waiting}, "
        f"Completed: {pool.completed}, Active: {pool.busy}, "
        f"Request-Executor: Pool: {calls.active}/{calls.limit}, Pending: {calls.waiting}, "
        f"Completed: {calls.completed}, Active: {calls.active}"
        + (" !!!BACKPRESSURE!!!" if calls.active >= calls.limit else "")
    )


def metrics(component: str, metadata: OdooMetadata) -> Mapping[str, int | float]:
    """``Pool...``, ``Active``, ``Pending``, ``Completed`` as in Java, both pools together; the rest is ours."""
    pool, calls = metadata.pool, metadata.rpc.exchange.concurrency
    figures: dict[str, int | float] = {
        "PoolSize": pool.open + calls.active,
        "MaxPoolSize": pool.size + calls.limit,
        "Active": pool.busy + calls.active,
        "Pending": pool.waiting + calls.waiting,
        "Completed": pool.completed + calls.completed,
        "Edges": len(metadata.table),
        "Users": len(metadata.users),
        "StatusWaiting": metadata.writer.waiting,
        "StatusWritten": metadata.writer.written,
        "StatusDropped": metadata.writer.dropped,
        "ConfigsWaiting": metadata.configs.waiting,
        "ConfigsDropped": metadata.configs.dropped + metadata.configurations.dropped,
        "SystemLogWaiting": metadata.system_log.waiting,
        "SystemLogDropped": metadata.system_log.dropped,
        "StampsWaiting": metadata.stamps.waiting,
        "StampsDropped": metadata.stamps.dropped,
        "OdooFailures": metadata.rpc.failures,
        "PagesFromMemory": metadata.pages.from_memory,
    }
    if metadata.logins is not None:
        figures["LoginsRefused"] = metadata.logins.gate.refused
        figures["LoginsOverloaded"] = metadata.logins.gate.overloaded
        figures["TokensWithoutOdoo"] = metadata.logins.stale
    return {f"{component}/{name}": value for name, value in figures.items()}
