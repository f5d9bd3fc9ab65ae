"""The configurations that edges send, for the providers without Odoo (metadata.md 9, 20.8; reality.md R4, R5, R18).

Rules
- What is kept and answered are the edge's own bytes.
- The first start of an edge sends a burst of incomplete configurations: the last one within :data:`QUIET` seconds is
  stored, the newest is answered at once.
- A configuration without the component ``_sum`` breaks nearly every page of the UI: it never takes the place of one
  that has it.
- ConfigUpdated is published after storing and only for a real difference; a property's value and its text are the
  same value.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from openems.backend.events import ConfigReceived, ConfigUpdated, EventBus
from openems.backend.metadata.file.state import InThread
from openems.common.atomicfile import write_atomically
from openems.common.errors import OpenemsError, json_text
from openems.common.jsonrpc import loads

NONE = Raw(b'{"components":{},"factories":{}}')
#: seconds without a new configuration after which a burst is over, and the longest wait in a burst without end.
QUIET = 1.0
LONGEST = 10.0
#: bytes of one configuration; a big one of a real edge has some 300 kB.
MAX_SIZE = 5 << 20
#: bytes of configurations that are kept in memory.
MAX_KEPT = 64 << 20


class ConfigStore(Protocol):
    def load(self, edge_id: str) -> Deferred[bytes | None]: ...

    def load_for_save(self, edge_id: str, config: bytes) -> Deferred[bytes | None]:
        """Before ``config`` takes its place: may wait for a store that is away, where ``load`` fails."""

    def save(self, edge_id: str, config: bytes) -> Deferred[None]: ...


class MemoryConfigs:
    """Kept until the process ends; not bounded but by the number of edges."""

    def __init__(self) -> None:
        self._configs: dict[str, bytes] = {}

    def load(self, edge_id: str) -> Deferred[bytes | None]:
        done: Deferred[bytes | None] = Deferred()
        done.callback(self._configs.get(edge_id))
        return done

    def load_for_save(self, edge_id: str, config: bytes) -> Deferred[bytes | None]:
        return self.load(edge_id)

    def save(self, edge_id: str, config: bytes) -> Deferred[None]:
        self._configs[edge_id] = config
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


class FileConfigs:
    """One file for each edge in a directory, the edge's bytes as they came; the last used ones in memory too."""

    def __init__(self, directory: str, in_thread: InThread, max_kept: int = MAX_KEPT) -> None:
        self.directory = directory
        self._in_thread = in_thread
        self._max_kept = max_kept
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        #: Edges whose newest configuration the disk did not take (yet).
        self._unwritten: set[str] = set()

    async def _load(self, edge_id: str) -> bytes | None:
        kept = self._kept.get(edge_id)
        if kept is not None:
            self._kept.move_to_end(edge_id)
            return kept
        config: bytes | None = await self._in_thread(lambda: self._read(self._path(edge_id)))
        # A newer one may have been saved meanwhile.
        if edge_id in self._kept:
            return self._kept[edge_id]
        if config is not None:
            self._keep(edge_id, config)
        return config

    def load(self, edge_id: str) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self._load(edge_id))

    def load_for_save(self, edge_id: str, config: bytes) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self._load_for_save(edge_id, config))

    async def _load_for_save(self, edge_id: str, config: bytes) -> bytes | None:
        stored = await self._load(edge_id)
        if stored == config and edge_id in self._unwritten:
            await self.save(edge_id, config)
        return stored

    def save(self, edge_id: str, config: bytes) -> Deferred[None]:
        self._keep(edge_id, config)
        self._unwritten.add(edge_id)
        path = self._path(edge_id)

        def write() -> None:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            write_atomically(path, config)

        return self._in_thread(write).addCallback(lambda _: self._unwritten.discard(edge_id))

    def _keep(self, edge_id: str, config: bytes) -> None:
        self._size -= len(self._kept.pop(edge_id, b""))
        self._kept[edge_id] = config
        self._size += len(config)
        while self._size > self._max_kept and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)

    def _path(self, edge_id: str) -> str:
        name = quote(edge_id, safe="")
        if not name or name.startswith(".") or len(name) > 200:
            name = "_" + hashlib.sha256(edge_id.encode("utf-8", "surrogatepass")).hexdigest()
        return os.path.join(self.directory, name + ".json")

    @staticmethod
    def _read(path: str) -> bytes | None:
        try:
            with open(path, "rb") as file:
                return file.read(MAX_SIZE + 1)
        except FileNotFoundError:
            return None


class _Burst:
    __slots__ = ("began", "config", "timer")

    def __init__(self, config: Raw, began: float) -> None:
        self.config = config
        self.began = began
        self.timer: IDelayedCall | None = None


class Configurations:
    """Listens to ConfigReceived; ``is_known`` tells whether there is such an edge."""

    _log = Logger()

    def __init__(
        self, events: EventBus, store: ConfigStore, *, reactor: IReactorTime, is_known: Callable[[str], bool]
    ) -> None:
        self.dropped = 0
        self._events = events
        self._store = store
        self._reactor = reactor
        self._is_known = is_known
        self._bursts: dict[str, _Burst] = {}
        #: edge id -> what is being stored, until it is.
        self._storing: dict[str, Deferred[None]] = {}
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def waiting(self) -> int:
        """Configurations in memory that are not stored yet."""
        return len(self._bursts.keys() | self._storing.keys())

    def start(self) -> None:
        self._unsubscribe = self._events.subscribe(ConfigReceived, self._received)

    async def stop(self) -> None:
        """Stores what waits."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for edge_id, burst in tuple(self._bursts.items()):
            if burst.timer is not None and burst.timer.active():
                burst.timer.cancel()
            self._settle(edge_id)
        for storing in tuple(self._storing.values()):
            waiting: Deferred[None] = Deferred()
            storing.addBoth(_pass_on, waiting)
            await waiting

    async def get(self, edge_id: str) -> Raw:
        """The newest configuration that can be used; an empty one if there is none."""
        burst = self._bursts.get(edge_id)
        if burst is not None and is_complete(burst.config):
            return burst.config
        stored = await self._store.load(edge_id) if self._is_known(edge_id) else None
        if stored is not None and (burst is None or is_complete(stored)):
            return Raw(stored)
        return NONE if burst is None else burst.config

    def _received(self, event: ConfigReceived) -> None:
        config = event.config
        if not self._is_known(event.edge_id):
            return
        if len(bytes(config)) > MAX_SIZE:
            self.dropped += 1
            # The edge can repeat this as often as it likes.
            if self.dropped == 1 or self.dropped % 1000 == 0:
                self._log.warn(
                    "Edge [{edge_id}]: configuration larger than {size} bytes is not kept, {dropped} until now",
                    edge_id=event.edge_id,
                    size=MAX_SIZE,
                    dropped=self.dropped,
                )
            return
        now = self._reactor.seconds()
        burst = self._bursts.get(event.edge_id)
        if burst is None:
            burst = self._bursts[event.edge_id] = _Burst(config, now)
        elif is_complete(config) or not is_complete(burst.config):
            burst.config = config
        if burst.timer is not None and burst.timer.active():
            burst.timer.cancel()
        wait = max(0.0, min(QUIET, burst.began + LONGEST - now))
        burst.timer = self._reactor.callLater(wait, self._settle, event.edge_id)

    def _settle(self, edge_id: str) -> None:
        burst = self._bursts.get(edge_id)
        if burst is None:
            return
        if edge_id in self._storing:
            # One at a time and in order.
            burst.timer = self._reactor.callLater(QUIET, self._settle, edge_id)
            return
        storing = self._storing[edge_id] = Deferred.fromCoroutine(self._save(edge_id, burst))
        storing.addBoth(self._stored, edge_id, burst)

    def _stored(self, result: Any, edge_id: str, burst: _Burst) -> None:
        self._storing.pop(edge_id, None)
        if burst.timer is not None and burst.timer.active():
            return  # a newer one came while this one was written
        if self._bursts.get(edge_id) is burst:
            del self._bursts[edge_id]

    async def _save(self, edge_id: str, burst: _Burst) -> None:
        config = burst.config
        try:
            stored = await self._store.load_for_save(edge_id, bytes(config))
            if stored == bytes(config):
                return
            if stored is not None and is_complete(stored) and not is_complete(config):
                self._log.info("Edge [{edge_id}]: configuration without _sum is not kept", edge_id=edge_id)
                return
            try:
                await self._store.save(edge_id, bytes(config))
            except OSError as e:
                # It is served from memory, and written when the edge sends it again.
                self._no_disk(edge_id, e)
        except OpenemsError as e:
            self._log.info("Edge [{edge_id}]: {reason}", edge_id=edge_id, reason=e.message)
            return
        except OSError as e:
            self._no_disk(edge_id, e)
            return
        except Exception:
            # It stays in memory until the edge sends the next one or the process ends.
            self._log.failure("Edge [{edge_id}]: configuration could not be stored", edge_id=edge_id)
            return
        old = NONE if stored is None else Raw(stored)
        if differs(old, config):
            self._log.info("Edge [{edge_id}]. Update config", edge_id=edge_id)
            self._events.publish(ConfigUpdated(edge_id, old, config))

    def _no_disk(self, edge_id: str, error: OSError) -> None:
        self._log.error(
            "Edge [{edge_id}]: configuration could not be stored: {reason}",
            edge_id=edge_id,
            reason=error.strerror or error,
        )


def _pass_on(result: Any, waiting: Deferred[None]) -> Any:
    waiting.callback(None)
    return result


def is_complete(config: Raw | bytes) -> bool:
    """Whether the component ``_sum`` is in it (reality.md R18)."""
    if b'"_sum"' not in bytes(config):
        return False
    components = _components(config)
    return components is not None and "_sum" in components


def differs(old: Raw | bytes, new: Raw | bytes) -> bool:
    """Whether components came, went or have other properties, alias or factory.

    >>> differs(b'{"components":{"a":{"properties":{"t":"5"}}}}', b'{"components":{"a":{"properties":{"t":5}}}}')
    False
    """
    before, after = _components(old), _components(new)
    if before is None or after is None:
        return before is not after
    if before.keys() != after.keys():
        return True
    return any(_canonical(before[component]) != _canonical(after[component]) for component in before)


def _components(config: Raw | bytes) -> dict[str, Any] | None:
    try:
        value = loads(config)
    except ValueError:
        return None
    components = value.get("components") if isinstance(value, dict) else None
    return components if isinstance(components, dict) else None


def _canonical(component: Any) -> Any:
    if not isinstance(component, dict):
        return component
    properties = component.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    return (
        component.get("alias") or "",
        component.get("factoryId") or component.get("factoryPid") or "",
        {name: _text(value) for name, value in properties.items() if value is not None},
    )


def _text(value: Any) -> str:
    # Defaults come as texts, empty arrays of texts as [""] (reality.md R4).
    return "[]" if value == [""] else json_text(value)
