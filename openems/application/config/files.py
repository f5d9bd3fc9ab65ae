"""Reads and writes files of configuration."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from openems.application.config.configuration import Configuration
from openems.application.config.contradictions import contradictions
from openems.application.config.reader import Known, Reader, known_sections

_HEADER = re.compile(r"^[ \t]*\[([^\[\]\n]+)\]", re.MULTILINE)


KNOWN = known_sections(Configuration)


class BadConfiguration(Exception):
    """What is wrong with a file: ``problems`` are complete lines for a human."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(problems))


def from_document(
    document: dict[str, Any],
    source: str,
    *,
    strict: bool = True,
    environ: Mapping[str, str] = os.environ,
    directory: Path = Path("."),
    headers: frozenset[str] = frozenset(),
) -> Configuration:
    """Check and convert a decoded document. ``strict`` False also takes numbers written as text (Felix files);
    ``headers`` are sections that are there although nothing is in them.

    Raises :class:`BadConfiguration` with every problem found.
    """
    reader = Reader(source, strict, environ, directory, headers, KNOWN)
    reader.walk(document, "")
    if reader.problems:
        raise BadConfiguration(source, reader.problems)
    configuration = Configuration(**reader.found)
    problems = contradictions(configuration)
    if problems:
        raise BadConfiguration(source, [f"{source}: {problem}" for problem in problems])
    return configuration


def sections(text: str, source: str, known: Mapping[str, Known], **options: Any) -> dict[str, Any]:
    """Field -> section, for a program with a configuration of its own. Raises :class:`BadConfiguration`."""
    document, headers = _document(text, source)
    reader = Reader(
        source, True, options.get("environ", os.environ), options.get("directory", Path(".")), headers, known
    )
    reader.walk(document, "")
    if reader.problems:
        raise BadConfiguration(source, reader.problems)
    return reader.found


def parse(text: str, source: str, **options: Any) -> Configuration:
    document, headers = _document(text, source)
    return from_document(document, source, headers=headers, **options)


def _document(text: str, source: str) -> tuple[dict[str, Any], frozenset[str]]:
    """And the headers that are in it, which a section without keys leaves no other trace of."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise BadConfiguration(source, [f"{source}: no valid TOML: {e}"]) from None
    return document, frozenset(name.strip() for name in _HEADER.findall(text))


def load(path: str | Path, *, environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read a TOML file. Raises :class:`BadConfiguration`; a file that cannot be read, too."""
    text = read_text(Path(path))
    return parse(text, str(path), environ=environ, directory=Path(path).parent)


def read_text(path: Path) -> str:
    """UTF-8, with or without byte order mark. Raises :class:`BadConfiguration` that says what permission is wanted."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except PermissionError:
        raise BadConfiguration(str(path), [_unreadable(path)]) from None
    except OSError as e:
        raise BadConfiguration(str(path), [f"{path}: cannot be read: {e.strerror}"]) from None
    except UnicodeDecodeError as e:
        raise BadConfiguration(str(path), [f"{path}: is no UTF-8 text (byte {e.start})"]) from None


def _unreadable(path: Path) -> str:
    wanted = f"user {_user_name(os.geteuid())} needs read permission"
    try:
        stat = path.stat()
    except OSError:
        return f"{path}: permission denied, a directory above it is closed; {wanted}"
    owner = _user_name(stat.st_uid)
    return f"{path}: permission denied, it belongs to {owner} with mode {stat.st_mode & 0o7777:04o}; {wanted}"


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def to_toml(document: Mapping[str, Any]) -> str:
    """``{section: {key: value}}`` or ``{section: [{..}, ..]}`` as TOML text."""
    parts: list[str] = []
    for section, tables in document.items():
        many = isinstance(tables, list)
        for table in tables if many else [tables]:
            lines = [f"[[{section}]]" if many else f"[{section}]"]
            lines += [f"{key} = {toml_value(value)}" for key, value in table.items()]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # JSON's texts, numbers and booleans are TOML's, except for DEL.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
