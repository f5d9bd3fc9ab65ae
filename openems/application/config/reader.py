"""Turns a decoded document into sections, and says everything that is wrong with it at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from openems.application.config.section import Section

#: Keys of OpenEMS without a meaning here: there are no message threads.
WITHOUT_EFFECT = (
    "poolSize",
    "clientPoolSize",
    "serverPoolSize",
    "eventPoolSize",
    "debugMode",
    "webconsole.configurationFactory.nameHint",
)


class Known(msgspec.Struct, frozen=True):
    """One section as the reader and the documentation see it."""

    name: str
    field: str
    section: type[Section]
    many: bool


def known_sections(configuration: type[msgspec.Struct]) -> dict[str, Known]:
    """Section name -> what the reader knows of it, of a struct whose fields are sections."""
    table: dict[str, Known] = {}
    for field in msgspec.structs.fields(configuration):
        many = get_origin(field.type) is list
        types = get_args(field.type) if many or get_origin(field.type) in (Union, UnionType) else (field.type,)
        section = next(t for t in types if t is not NoneType)
        name = field.name.replace("_", ".")
        table[name] = Known(name, field.name, section, many)
    return table


def nearest(name: str, known: list[str]) -> str:
    lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f'; the nearest known is "{lower[found[0]]}"' if found else ""


def _reason(error: msgspec.ValidationError, expected: Any) -> str:
    text = str(error).replace("`", "")
    if text.startswith("Invalid enum value"):
        text += f"; known are {', '.join(choices(expected))}"
    return text


def choices(expected: Any) -> list[str]:
    """The texts a key of that type may have, where these are counted.

    >>> choices(Literal["a", "b"] | None)
    ['a', 'b']
    """
    if get_origin(expected) is Literal:
        return [str(choice) for choice in get_args(expected)]
    if isinstance(expected, type) and issubclass(expected, Enum):
        return [str(member.value) for member in expected]
    return [choice for part in get_args(expected) for choice in choices(part)]


class Reader:
    """Turns a decoded document into sections, collecting problems."""

    def __init__(
        self,
        source: str,
        strict: bool,
        environ: Mapping[str, str],
        directory: Path,
        headers: frozenset[str],
        known: Mapping[str, Known],
    ) -> None:
        self.source = source
        self.known = known
        self.headers = headers
        self.strict = strict
        self.environ = environ
        self.directory = directory
        self.problems: list[str] = []
        self.found: dict[str, Any] = {}

    def problem(self, section: str, key: str, reason: str) -> None:
        where = f"[{section}] {key}" if key else f"[{section}]"
        self.problems.append(f"{self.source}: {where if section else key}: {reason}")

    def walk(self, table: dict[str, Any], path: str) -> None:
        """``table`` is the content of ``[path]``: its own keys, and sections below."""
        own: dict[str, Any] = {}
        for key, value in table.items():
            name = f"{path}.{key}" if path else key
            below = any(known == name or known.startswith(name + ".") for known in self.known)
            if below:
                self.section(name, value)
            else:
                own[key] = value
        if path in self.known:
            known = self.known[path]
            # [edge.manager] alone makes no [edge]; an empty [edge] does, which only the header tells.
            if own or path in self.headers or len(own) == len(table):
                self.read(known, own)
        else:
            for key, value in own.items():
                self.unknown(path, key, value)

    def section(self, name: str, value: Any) -> None:
        known = self.known.get(name)
        if isinstance(value, dict):
            self.walk(value, name)
        elif isinstance(value, list) and known is not None and value and all(isinstance(v, dict) for v in value):
            if not known.many:
                self.problem(name, "", f"may be there only once: [{name}], not [[{name}]]")
                return
            for entry in value:
                self.walk(entry, name)
        else:
            self.problem("", name, f"is a section: [{name}]")

    def unknown(self, path: str, key: str, value: Any) -> None:
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict | list):
            full = self._deepest(name, value)
            self.problem(full, "", f"unknown section{nearest(full, list(self.known))}")
        else:
            self.problem(path, key, f"unknown key{nearest(name, list(self.known)) or '; no section has it'}")

    @staticmethod
    def _deepest(name: str, value: Any) -> str:
        """``[a.b]`` with an unknown ``a`` is reported as a.b."""
        while isinstance(value, dict) and len(value) == 1:
            key, inner = next(iter(value.items()))
            if not isinstance(inner, dict | list):
                break
            name, value = f"{name}.{key}", inner
        return name

    def read(self, known: Known, table: dict[str, Any]) -> None:
        values: dict[str, Any] = {}
        if known.field == "core_timedatamanager" and isinstance(table.get("timedata"), dict):
            table = {**table, **table["timedata"]}
            del table["timedata"]
        fields = {field.encode_name: field for field in msgspec.structs.fields(known.section)}
        before = len(self.problems)
        for key, raw in table.items():
            if key not in fields:
                if key in WITHOUT_EFFECT:
                    self.problem(known.name, key, "has no effect here, there are no message threads; leave it out")
                else:
                    self.problem(known.name, key, f"unknown key{nearest(key, list(fields))}")
                continue
            value = self.indirect(known.name, key, raw)
            try:
                values[fields[key].name] = msgspec.convert(value, fields[key].type, strict=self.strict)
            except msgspec.ValidationError as e:
                self.problem(known.name, key, _reason(e, fields[key].type))
        for key, field in fields.items():
            if field.required and key not in table:
                self.problem(known.name, key, "is required")
        if len(self.problems) > before:
            return
        section = known.section(**values)
        if known.many:
            self.found.setdefault(known.field, []).append(section)
        elif known.field in self.found:
            self.problem(known.name, "", "is there twice")
        else:
            self.found[known.field] = section

    def indirect(self, section: str, key: str, value: Any) -> Any:
        """``{ env = "NAME" }`` and ``{ file = "path" }`` stand for a text that is kept elsewhere."""
        if not isinstance(value, dict) or len(value) != 1:
            return value
        way, name = next(iter(value.items()))
        if not isinstance(name, str) or way not in ("env", "file"):
            return value
        if way == "env":
            if name not in self.environ:
                self.problem(section, key, f"the environment has no {name}")
            return self.environ.get(name, "-")
        try:
            return (self.directory / name).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            self.problem(section, key, f"cannot read {name}: {getattr(e, 'strerror', None) or 'no text'}")
            return "-"
