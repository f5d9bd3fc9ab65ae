"""What metadata has yet to write (metrics.md 17); out of the numbers that its providers tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from openems.backend.metrics.families import PREFIX, Labels, gauge

COMPONENTS = ("Metadata.File", "metadata0")
#: Name of a number -> kind.
_WAITING = {
    "StatusWaiting": "status",
    "ConfigsWaiting": "config",
    "StateWaiting": "state",
    "SystemLogWaiting": "system_log",
    "StampsWaiting": "last_notification",
}


def claims(component: str, name: str) -> bool:
    return component in COMPONENTS and name in _WAITING


def families(numbers: Mapping[str, float]) -> Iterator[Metric]:
    """``numbers``: ``<component>/<name>`` -> value."""
    waiting: dict[Labels, float] = {
        (kind,): numbers[f"{component}/{name}"]
        for component in COMPONENTS
        for name, kind in _WAITING.items()
        if f"{component}/{name}" in numbers
    }
    yield gauge(
        f"{PREFIX}metadata_pending_writes", "What metadata keeps in memory and has yet to write.", waiting, ("kind",)
    )
