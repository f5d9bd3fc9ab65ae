"""Recorded frames as data, and the comparison of two JSON values by shape."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

#: Members whose keys are data, not structure.
OPEN = frozenset({"components", "factories", "data", "properties", "settings", "params", "timestamps", "options"})


def lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(HERE / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def texts(name: str, connection: Any, direction: str) -> list[str]:
    """The text frames one side of one connection sent, in order."""
    return [
        line["text"]
        for line in lines(name)
        if line["kind"] == "text" and line["conn"] == connection and line["dir"] == direction
    ]


def differences(recorded: Any, ours: Any, path: str = "") -> list[str]:
    """What a peer that knows ``recorded`` could stumble over in ``ours``: members and types, not values."""
    kind, our_kind = _kind(recorded), _kind(ours)
    if kind != our_kind:
        return [f"{path}: {kind} became {our_kind}"]
    if kind == "object":
        name = path.rpartition(".")[2]
        if name in OPEN:
            return []
        found = [f"{path}.{key}: missing" for key in recorded if key not in ours]
        found += [f"{path}.{key}: new" for key in ours if key not in recorded]
        for key in recorded:
            if key in ours:
                found += differences(recorded[key], ours[key], f"{path}.{key}")
        if path == ".error" and recorded.get("code") != ours.get("code"):
            found.append(f".error.code: {recorded.get('code')} became {ours.get('code')}")
        return found
    if kind == "array" and recorded and ours:
        return differences(recorded[0], ours[0], f"{path}[]")
    return []


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object"}[type(value)]
