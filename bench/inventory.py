"""What a process holds: sizes of its tables, its objects by type. For finding what grows."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import Counter, deque
from pathlib import Path
from types import ModuleType
from typing import Any

#: What a table is; its parts are not looked at.
TABLES = (dict, set, list, deque, bytearray)
#: Dicts of classes and modules are no tables.
OURS = "openems."


def tables() -> dict[str, int]:
    """``Class.attribute`` or ``module.name`` -> entries of all tables of that name, of this project's modules and of
    all living objects of its classes; caches of functions too."""
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith(OURS):
            for name, value in _attributes(thing, kind):
                if isinstance(value, TABLES):
                    found[f"{kind.__qualname__}.{name}"] += len(value)
    for module_name, module in tuple(sys.modules.items()):
        if module_name.startswith(OURS) and isinstance(module, ModuleType):
            for name, value in tuple(vars(module).items()):
                if name.startswith("__"):
                    continue
                if isinstance(value, TABLES):
                    found[f"{module_name}.{name}"] = len(value)
                elif hasattr(value, "cache_info") and getattr(value, "__module__", "") == module_name:
                    found[f"{module_name}.{name}()"] = value.cache_info().currsize
    return dict(found)


def sqlite_bytes() -> int:
    """What SQLite has in hand, most of it pages of files up to ``cache_size``; 0 if its library cannot be asked."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if "libsqlite3" in path:
            used = ctypes.CDLL(path).sqlite3_memory_used
            used.restype = ctypes.c_int64
            return int(used())
    return 0


def _attributes(thing: Any, kind: type) -> list[tuple[str, Any]]:
    found = list(vars(thing).items()) if hasattr(thing, "__dict__") else []
    for base in kind.__mro__:
        names = base.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if not name.startswith("__") and hasattr(thing, name):
                found.append((name, getattr(thing, name)))
    return found


def types() -> dict[str, tuple[int, int]]:
    """Type -> (objects, bytes of themselves), also of those that the garbage collector does not track but a tracked
    one refers to, as texts and numbers."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    tracked = gc.get_objects()
    for thing in tracked:
        for one in (thing, *(leaf for leaf in gc.get_referents(thing) if not gc.is_tracked(leaf))):
            if id(one) not in seen:
                seen.add(id(one))
                name = f"{type(one).__module__}.{type(one).__qualname__}".removeprefix("builtins.")
                counts[name] += 1
                sizes[name] += sys.getsizeof(one)
    return {name: (counts[name], sizes[name]) for name in counts}


def grown(
    before: dict[str, int], after: dict[str, int], *, least: int = 10, part: float = 0.05
) -> dict[str, list[int]]:
    """Name -> [before, after] of what grew by more than ``least`` and that part, the largest growth first. Pure."""
    more = {
        name: [before.get(name, 0), size]
        for name, size in after.items()
        if size - before.get(name, 0) > max(least, part * before.get(name, 0))
    }
    return dict(sorted(more.items(), key=lambda item: item[1][0] - item[1][1]))


def by_type(before: dict[str, Any], after: dict[str, Any], edges: int) -> str:
    """Figures of the server with ``types`` and ``type_bytes``: what each edge costs, a line for each type. Pure."""
    lines = [f"{'bytes/edge':>10} {'objects/edge':>12}  type"]
    more = {name: size - before["type_bytes"].get(name, 0) for name, size in after["type_bytes"].items()}
    for name, size in sorted(more.items(), key=lambda item: -item[1]):
        if size >= edges:
            count = after["types"][name] - before["types"].get(name, 0)
            lines.append(f"{size / edges:10.0f} {count / edges:12.1f}  {name}")
    lines.append(f"{sum(more.values()) / edges:10.0f} {'':12}  all")
    return "\n".join(lines) + "\n"
