"""The edges of a metadata file, and their running state, which outlives a restart (metadata.md 20.8)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from openems.backend.events import EventBus, LastmessageSet, SumStateSet, VersionSet
from openems.backend.metadata.file.model import FileEdge, Model
from openems.backend.metadata.file.state import KEEP_GONE, LATER, EdgeState, StateFile
from openems.backend.models import Edge
from openems.common.role import Level
from openems.common.semver import SemanticVersion


class EdgeTable:
    """``edges``: those that are enabled; ``entries``: all of the file."""

    def __init__(self, events: EventBus, file: StateFile, *, now: Callable[[], int]) -> None:
        self.edges: dict[str, Edge] = {}
        self.entries: Mapping[str, FileEdge] = {}
        self.apikeys: dict[str, str] = {}
        self._setup_passwords: dict[bytes, str] = {}
        self._events = events
        self._file = file
        self._now = now
        self._touched: set[str] = set()
        self._unsubscribe: list[Callable[[], None]] = []

    def start(self) -> None:
        subscribe = self._events.subscribe
        self._unsubscribe = [
            subscribe(LastmessageSet, lambda event: self._touch(event.edge_id)),
            subscribe(SumStateSet, lambda event: self._touch(event.edge_id)),
            subscribe(VersionSet, lambda event: self._touch(event.edge_id)),
        ]

    def stop(self) -> None:
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []

    def by_setup_password(self, setup_password: str) -> str | None:
        # Found by a digest: how long it takes tells nothing about the passwords.
        return self._setup_passwords.get(_digest(setup_password)) if setup_password else None

    def accept(self, model: Model) -> bool:
        """Swap in the edges of ``model``; whether edges came or went, or apikeys changed."""
        apikeys: dict[str, str] = {}
        setup_passwords: dict[bytes, str] = {}
        edges: dict[str, Edge] = {}
        for entry in model.edges.values():
            if not entry.enabled:
                continue
            edges[entry.id] = self._edge_for(entry)
            if entry.apikey:
                apikeys.setdefault(entry.apikey, entry.id)
            if entry.setup_password:
                setup_passwords.setdefault(_digest(entry.setup_password), entry.id)
        gone = [edge for edge_id, edge in self.edges.items() if edge_id not in edges]
        changed = apikeys != self.apikeys or edges.keys() != self.edges.keys()
        for edge in gone:
            # While it is still known, so that every listener finds it.
            edge.set_online(False)
            self._file.state.edges[edge.id] = _state_of(edge)
        if gone:
            self._file.touch()
        self.edges, self.entries, self.apikeys, self._setup_passwords = edges, model.edges, apikeys, setup_passwords
        return changed

    def _edge_for(self, entry: FileEdge) -> Edge:
        """The same object as long as the edge exists: its online state and its subscribers survive."""
        edge = self.edges.get(entry.id)
        if edge is not None:
            edge.comment = entry.comment
            edge.settings = entry.settings
            edge.set_producttype(entry.producttype)
            return edge
        known = self._file.state.edges.get(entry.id) or EdgeState()
        return Edge(
            entry.id,
            self._events,
            comment=entry.comment,
            producttype=entry.producttype,
            version=SemanticVersion.parse_or_zero(known.version),
            lastmessage=known.lastmessage,
            sum_state=Level.__members__.get(known.sum_state or ""),
            settings=entry.settings,
        )

    def forget(self, others: Iterable[str]) -> list[str]:
        """The edges that have been out of the file for :data:`KEEP_GONE`: forgotten here, and to be forgotten
        everywhere. ``others``: edges of which something else than the running state is kept. One that is only disabled
        is in the file."""
        now = self._now()
        states = self._file.state.edges
        for edge_id in others:
            if edge_id not in self.entries:
                states.setdefault(edge_id, EdgeState())
        old = []
        for edge_id, entry in tuple(states.items()):
            if edge_id in self.entries:
                entry.gone = None
            elif entry.gone is None:
                entry.gone = now
                self._file.touch()
            elif now - entry.gone > KEEP_GONE:
                del states[edge_id]
                self._file.touch()
                old.append(edge_id)
        return old

    def _touch(self, edge_id: str) -> None:
        if edge_id in self.edges:
            self._touched.add(edge_id)
            self._file.touch(LATER)

    def gather(self) -> None:
        """Bring the state up to date, before it is written."""
        for edge_id in self._touched:
            edge = self.edges.get(edge_id)
            if edge is not None:
                self._file.state.edges[edge_id] = _state_of(edge)
        self._touched.clear()


def _state_of(edge: Edge) -> EdgeState:
    return EdgeState(
        lastmessage=edge.lastmessage,
        version=str(edge.version),
        sum_state=None if edge.sum_state is None else edge.sum_state.name,
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
