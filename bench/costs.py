"""The top costs in a profile of ``./dev bench NAME --profile FILE``: ``python -m bench.costs FILE [LINES]``."""

from __future__ import annotations

import pstats
import sys
from pathlib import Path
from typing import Any

#: Ours and others' packages, by a part of the path.
PARTS = {"openems": "openems/", "twisted": "twisted/", "autobahn": "autobahn/", "python": "lib/python"}


def table(stats: dict[Any, Any], lines: int) -> str:
    """Own time of each function as part of all but waiting for the kernel's next event, the largest first. Pure."""
    own = {where: (calls, time) for where, (_, calls, time, _, _) in stats.items() if "epoll" not in where[2]}
    whole = sum(time for _, time in own.values()) or 1.0
    rows = [f"{'part':>6} {'calls':>9} {'us/call':>8}  function"]
    for where, (calls, time) in sorted(own.items(), key=lambda item: -item[1][1])[:lines]:
        rows.append(f"{time / whole:6.1%} {calls:9} {time / calls * 1e6:8.1f}  {name(*where)}")
    rows.append(f"{whole:.2f} s in all")
    return "\n".join(rows)


def name(path: str, line: int, function: str) -> str:
    if path in ("~", ""):
        return function.strip("<>").removeprefix("built-in method ").removeprefix("method ")
    for part, mark in PARTS.items():
        if f"/{mark}" in path:
            path = f"{part}/" + path.rpartition(f"/{mark}")[2]
            break
    return f"{path}:{line} {function}"


def main(words: list[str]) -> int:
    if not words or not Path(words[0]).is_file():
        print(__doc__, file=sys.stderr)
        return 2
    found: Any = pstats.Stats(words[0])
    print(table(found.stats, int(words[1]) if len(words) > 1 else 12))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
