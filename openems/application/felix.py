"""A configuration folder of the Java backend, read as it is (core.md 8.4).

One file for each component, ``Edge/Manager.config``; each is ``key=value`` with typed values. What the Java program
ignores (unknown keys) is ignored here; what no longer exists is named once, with what took its place.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from openems.application.config import (
    KNOWN,
    WITHOUT_EFFECT,
    BadConfiguration,
    Configuration,
    from_document,
    read_text,
    to_toml,
)

#: Components that exist no longer -> section that took their place, and what to say.
SUPERSEDED = {
    "Edge.Websocket": ("edge", "edges connect to [edge] on the same port"),
}
#: Components of other programs, or without a counterpart.
ELSEWHERE = {
    "Backend.Edge.App": "is a program of its own; with [edge] edges connect to this backend directly",
    "Core.Logger": "has no counterpart: logs go to standard output",
}
_PIDS = {
    "Edge.Manager": "edge.manager",
    "Ui.Websocket": "ui.websocket",
    "Backend2Backend.Rest": "backend2backend.rest",
    "Backend2Backend.Websocket": "backend2backend.websocket",
    "Metadata.File": "metadata.file",
    "Metadata.Dummy": "metadata.dummy",
    "Metadata.Odoo": "metadata.odoo",
    "Timedata.Dummy": "timedata.dummy",
    "Timedata.TimescaleDB": "timedata.timescaledb",
    "Timedata.InfluxDB": "timedata.influxdb",
    "Timedata.AggregatedInfluxDB": "timedata.aggregatedinfluxdb",
    "Core.JsonRpcRequestHandler": "core.jsonrpcrequesthandler",
    "Core.TimedataManager": "core.timedatamanager",
    "Authentication.OAuth": "authentication.oauth",
    "Authentication.OAuth.ClientConfig": "authentication.oauth.clientconfig",
    "OAuthRegistry.Client": "oauthregistry.client",
    "Alerting": "alerting",
    "Simulator.Mailer": "simulator.mailer",
    "Metrics.Prometheus": "metrics.prometheus",
}
_KEYS = {"timedata.ids": "ids"}
_TYPES = "TILFDXSCB"
_BLANK = re.compile(r"[ \t\f\r\n]*")
_BETWEEN = re.compile(r"(?:[ \t\f\r\n,]|\\(?=[ \t]*\n))*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


class Component(msgspec.Struct, frozen=True):
    """``pid`` is the component's name (for one of several the factory's)."""

    pid: str
    path: str
    properties: dict[str, Any]


class Import(msgspec.Struct, frozen=True):
    """``document`` is ``{section: {key: value}}``; ``notes`` say what was left out and why, one line each."""

    document: dict[str, Any]
    notes: list[str]

    def toml(self) -> str:
        return "".join(f"# {note}\n" for note in self.notes) + ("\n" if self.notes else "") + to_toml(self.document)

    def configuration(self, source: str) -> Configuration:
        """Raises :class:`BadConfiguration`."""
        nested: dict[str, Any] = {}
        for section, value in self.document.items():
            *above, last = section.split(".")
            table = nested
            for name in above:
                table = table.setdefault(name, {})
            if isinstance(value, dict):
                table.setdefault(last, {}).update(value)
            else:
                table[last] = value
        return from_document(nested, source, strict=False, headers=frozenset(self.document))


class _Syntax(Exception):
    pass


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        self.at = 0
        self.key = ""

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self.text, self.at)
        assert match is not None  # noqa: S101 - both patterns match nothing at all, too
        self.at = match.end()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while True:
            self.key = ""
            self.skip(_BLANK)
            if not self.peek():
                return found
            if self.peek() == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
                continue
            end = self.text.find("=", self.at)
            new_line = self.text.find("\n", self.at)
            if end < 0 or 0 <= new_line < end:
                raise _Syntax("expected key=value")
            self.key = self.text[self.at : end].strip()
            self.at = end + 1
            while self.peek() in (" ", "\t"):
                self.at += 1
            found[self.key] = self.value()

    def value(self) -> Any:
        letter = ""
        if self.peek() and self.peek() in _TYPES + _TYPES.lower():
            letter = self.peek()
            self.at += 1
        match self.peek():
            case '"':
                return self.typed(letter, self.string())
            case "[":
                return self.sequence(letter, "]")
            case "(":
                return self.sequence(letter, ")")
            case other:
                raise _Syntax(f"expected a value in quotes, found {other!r}" if other else "the value is missing")

    def sequence(self, letter: str, end: str) -> list[Any]:
        self.at += 1
        values: list[Any] = []
        while True:
            self.skip(_BETWEEN)
            if self.peek() == end:
                self.at += 1
                return values
            if self.peek() != '"':
                raise _Syntax(f'expected "..." or {end}')
            values.append(self.typed(letter, self.string()))

    def string(self) -> str:
        self.at += 1
        parts: list[str] = []
        while True:
            char = self.peek()
            self.at += 1
            if char == '"':
                return "".join(parts)
            if not char or char == "\n":
                self.at -= 1
                raise _Syntax("the quotes are not closed")
            if char != "\\":
                parts.append(char)
                continue
            escaped = self.peek()
            self.at += 1
            if escaped == "u":
                code = self.text[self.at : self.at + 4]
                if not re.fullmatch("[0-9a-fA-F]{4}", code):
                    raise _Syntax(f"\\u{code} is no character")
                self.at += 4
                parts.append(chr(int(code, 16)))
            else:
                parts.append(_ESCAPES.get(escaped, escaped))

    def typed(self, letter: str, text: str) -> Any:
        kind = letter.upper()
        try:
            if kind in ("I", "L", "S", "X"):
                return int(text)
            if kind in ("F", "D"):
                return float(text)
        except ValueError:
            raise _Syntax(f'"{text}" is no number') from None
        if kind == "B":
            return text.lower() == "true"
        return text


def parse(text: str, path: str) -> dict[str, Any]:
    """The properties of one file, without Felix's own (``:org...:``).

    >>> parse('port=I"8082"', "Ui/Websocket.config")
    {'port': 8082}

    Raises :class:`BadConfiguration` with file, line and key.
    """
    scanner = _Scanner(text)
    try:
        found = scanner.properties()
    except _Syntax as e:
        where = f"{path}: line {scanner.line}" + (f": {scanner.key}" if scanner.key else "")
        raise BadConfiguration(path, [f"{where}: {e}"]) from None
    return {key: value for key, value in found.items() if not key.startswith(":")}


def read_folder(folder: str | Path) -> list[Component]:
    """Every ``*.config`` below, in order of their paths. Raises :class:`BadConfiguration` with all that is wrong."""
    root = Path(folder)
    if not root.is_dir():
        raise BadConfiguration(str(root), [f"{root}: no such directory"])
    components: list[Component] = []
    problems: list[str] = []

    def closed(e: OSError) -> None:
        problems.append(f"{e.filename}: cannot be read: {e.strerror}")

    for directory, below, names in os.walk(root, onerror=closed):
        below.sort()
        for name in sorted(names):
            if not name.endswith(".config"):
                continue
            path = Path(directory, name)
            try:
                properties = parse(read_text(path), str(path))
            except BadConfiguration as e:
                problems += e.problems
                continue
            pid = properties.get("service.factoryPid") or properties.get("service.pid")
            if not isinstance(pid, str):
                # A file made by hand: its path is its name; below a factory's folder the folder is.
                relative = path.relative_to(root).with_suffix("")
                pid = ".".join(relative.parts)
            components.append(Component(pid, str(path), properties))
    if problems:
        raise BadConfiguration(str(root), problems)
    return components


def convert(components: list[Component]) -> Import:
    """What this backend makes of them."""
    document: dict[str, Any] = {}
    notes: list[str] = []
    for component in components:
        pid, path = component.pid, component.path
        if pid in SUPERSEDED:
            section, successor = SUPERSEDED[pid]
            notes.append(f"{path}: {pid} exists no longer; {successor}")
        elif pid in ELSEWHERE:
            notes.append(f"{path}: {pid} {ELSEWHERE[pid]}")
            continue
        elif pid in _PIDS:
            section = _PIDS[pid]
        elif _factory(pid) is not None:
            section = _PIDS[_factory(pid) or ""]
        else:
            near = difflib.get_close_matches(pid, [*_PIDS, *SUPERSEDED], n=1)
            notes.append(f"{path}: {pid} is no known component" + (f"; the nearest is {near[0]}" if near else ""))
            continue
        known = KNOWN[section]
        fields = {field.encode_name for field in msgspec.structs.fields(known.section)}
        table: dict[str, Any] = {}
        for key, value in component.properties.items():
            name = _KEYS.get(key, key)
            if name in fields:
                table[name] = value
            elif not key.startswith("service.") and key not in WITHOUT_EFFECT:
                notes.append(f"{path}: {key} is no known key, ignored")
        if known.many:
            document.setdefault(section, []).append(table)
        elif section in document:
            notes.append(f"{path}: a second {pid}, ignored")
        else:
            document[section] = table
    return Import(document, notes)


def _factory(pid: str) -> str | None:
    return next((known for known in _PIDS if pid.startswith(known + ".") and _several(known)), None)


def _several(pid: str) -> bool:
    return pid == "Backend2Backend.Rest" or KNOWN[_PIDS[pid]].many


def load(folder: str | Path) -> tuple[Configuration, list[str]]:
    """The configuration of a folder and the notes to show once at start. Raises :class:`BadConfiguration`."""
    imported = convert(read_folder(folder))
    return imported.configuration(str(folder)), imported.notes
