"""All edges in memory, by name, API key, setup password and Odoo's id. Pure but for events.

Two edges with one API key: neither may connect by it. Nothing in Odoo's database forbids it, and picking one would let
an edge act as another (odoo-keycloak-verified.md 1.2). The same for setup passwords.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from openems.backend.events import EventBus, OnlineSet
from openems.backend.metadata.odoo.statements import Row, row
from openems.backend.models import Edge
from openems.common.semver import SemanticVersion


class Changes(msgspec.Struct):
    """What an update did. ``problems``: rows that are no edges, for the log."""

    added: int = 0
    removed: int = 0
    #: An edge, or who may connect as which, is another now.
    keys: bool = False
    problems: list[str] = []


class EdgeTable:
    def __init__(self, events: EventBus) -> None:
        self.edges: dict[str, Edge] = {}
        self.apikeys: dict[str, str] = {}
        #: API keys and setup passwords that more than one edge has: the edges' names.
        self.shared: list[str] = []
        self._events = events
        self._rows: dict[int, Row] = {}
        self._ids: dict[str, int] = {}
        self._setup_passwords: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self.edges)

    def odoo_id(self, edge_id: str) -> int | None:
        return self._ids.get(edge_id)

    def name(self, odoo_id: int) -> str | None:
        found = self._rows.get(odoo_id)
        return None if found is None else found.name

    def by_setup_password(self, setup_password: str) -> str | None:
        # By a digest: how long it takes tells nothing about the passwords.
        return self._setup_passwords.get(_digest(setup_password)) if setup_password else None

    def replace(self, rows: Iterable[Sequence[Any]]) -> Changes:
        """These are all edges there are."""
        changes = Changes()
        found: dict[int, Row] = {}
        for values in rows:
            self._read(values, found, changes)
        gone = self._rows.keys() - found.keys()
        self._take(found, gone, changes)
        return changes

    def update(self, rows: Iterable[Sequence[Any]], asked: Iterable[int]) -> Changes:
        """What was found of the edges with the ids ``asked``; those not found are gone."""
        changes = Changes()
        found: dict[int, Row] = {}
        for values in rows:
            self._read(values, found, changes)
        gone = {odoo_id for odoo_id in asked if odoo_id in self._rows and odoo_id not in found}
        self._take(found, gone, changes)
        return changes

    @staticmethod
    def _read(values: Sequence[Any], found: dict[int, Row], changes: Changes) -> None:
        try:
            entry = row(values)
        except (ValueError, TypeError) as e:
            changes.problems.append(f"device {values[0] if values else '?'}: {e}")
            return
        found[entry.odoo_id] = entry

    def _take(self, found: dict[int, Row], gone: Iterable[int], changes: Changes) -> None:
        for odoo_id in gone:
            changes.removed += 1
            changes.keys = True
            self._leave(self._rows.pop(odoo_id))
        changed = {odoo_id: entry for odoo_id, entry in found.items() if entry != self._rows.get(odoo_id)}
        # First all old names: another edge of these may have one of them now.
        were_online = set()
        for odoo_id, entry in changed.items():
            before = self._rows.get(odoo_id)
            if before is None or (before.apikey, before.name) != (entry.apikey, entry.name):
                changes.keys = True
            if before is not None and before.name != entry.name and self._leave(before):
                were_online.add(odoo_id)
        for odoo_id, entry in changed.items():
            self._rows[odoo_id] = entry
            self._edge(entry, changes)
            if odoo_id in were_online:
                # What waits to be written is under its old name.
                self._events.publish(OnlineSet(entry.name, False))
        if changes.keys or changed:
            self._index()

    def _leave(self, entry: Row) -> bool:
        """It has that name no more. Whether it was online."""
        if self._ids.get(entry.name) != entry.odoo_id:
            return False  # another has taken it already
        edge = self.edges[entry.name]
        online = edge.online
        # While it is still known, so that every listener finds it.
        edge.set_online(False)
        del self.edges[entry.name], self._ids[entry.name]
        return online

    def _edge(self, entry: Row, changes: Changes) -> None:
        """The same object as long as there is an edge of that name: its online state and its listeners survive. What
        the edge itself tells is newer than what was stored of it."""
        self._ids[entry.name] = entry.odoo_id
        edge = self.edges.get(entry.name)
        if edge is not None:
            edge.comment = entry.comment
            # Without an event: it would be written back.
            edge.producttype = entry.producttype
            return
        changes.added += 1
        self.edges[entry.name] = Edge(
            entry.name,
            self._events,
            comment=entry.comment,
            producttype=entry.producttype,
            version=SemanticVersion.parse_or_zero(entry.version),
            lastmessage=entry.lastmessage,
            sum_state=entry.sum_state,
        )

    def _index(self) -> None:
        apikeys: dict[str, str] = {}
        passwords: dict[bytes, str] = {}
        shared: set[str] = set()
        twice_keys: set[str] = set()
        twice_passwords: set[bytes] = set()
        for entry in self._rows.values():
            other = apikeys.setdefault(entry.apikey, entry.name)
            if other != entry.name:
                twice_keys.add(entry.apikey)
                shared |= {other, entry.name}
            if entry.setup_password:
                digest = _digest(entry.setup_password)
                other = passwords.setdefault(digest, entry.name)
                if other != entry.name:
                    twice_passwords.add(digest)
                    shared |= {other, entry.name}
        for key in twice_keys:
            del apikeys[key]
        for digest in twice_passwords:
            del passwords[digest]
        self.apikeys, self._setup_passwords, self.shared = apikeys, passwords, sorted(shared)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
