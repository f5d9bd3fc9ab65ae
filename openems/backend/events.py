"""Typed events of the backend and the bus that carries them (core.md 7).

Delivery is synchronous and in order; a subscriber that raises is logged and does not stop the others, nor the sender.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from twisted.logger import Logger

from openems.common.role import Level
from openems.common.semver import SemanticVersion


class MetadataInitialized(msgspec.Struct, frozen=True):
    """AFTER_IS_INITIALIZED: edges and users are known; listeners may open. Sent once."""


class EdgesChanged(msgspec.Struct, frozen=True):
    """The set of edges or an apikey changed: edge applications get a new ``updateMetadataCache``."""


class OnlineSet(msgspec.Struct, frozen=True):
    edge_id: str
    online: bool


class LastmessageSet(msgspec.Struct, frozen=True):
    """At most once a minute for each edge; ``lastmessage`` in epoch milliseconds, cut to the minute."""

    edge_id: str
    lastmessage: int


class SumStateSet(msgspec.Struct, frozen=True):
    edge_id: str
    old: Level | None
    new: Level


class VersionSet(msgspec.Struct, frozen=True):
    edge_id: str
    old: SemanticVersion
    new: SemanticVersion


class ProducttypeSet(msgspec.Struct, frozen=True):
    edge_id: str
    producttype: str


class ConfigReceived(msgspec.Struct, frozen=True):
    """ON_SET_CONFIG: an edge sent its configuration, verbatim."""

    edge_id: str
    config: Raw


class ConfigUpdated(msgspec.Struct, frozen=True):
    """ON_UPDATE_CONFIG: metadata stored a configuration that differs from the one before."""

    edge_id: str
    old: Raw
    new: Raw


Event = (
    MetadataInitialized
    | EdgesChanged
    | OnlineSet
    | LastmessageSet
    | SumStateSet
    | VersionSet
    | ProducttypeSet
    | ConfigReceived
    | ConfigUpdated
)
E_ = TypeVar("E_")


class EventBus:
    _log = Logger()

    def __init__(self) -> None:
        self._subscribers: dict[type, list[Callable[[Any], None]]] = {}

    def subscribe(self, event_type: type[E_], callback: Callable[[E_], None]) -> Callable[[], None]:
        """Call ``callback`` for each event of that type; returns what ends the subscription."""
        callbacks = self._subscribers.setdefault(event_type, [])
        callbacks.append(callback)
        return lambda: callbacks.remove(callback)

    def publish(self, event: Event) -> None:
        for callback in tuple(self._subscribers.get(type(event), ())):
            try:
                callback(event)
            except Exception:
                self._log.failure("subscriber of {event} failed", event=type(event).__name__)
