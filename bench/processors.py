"""Which processors whom: the server on the first one, whatever loads it on the others."""

from __future__ import annotations

import os
from typing import Any

CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = {CPUS[0]}
LOAD_CPUS = set(CPUS[1:]) or SERVER_CPU


def place(applications: int = 0) -> dict[str, Any]:
    """Where the server runs: on one processor; with edge applications on all, beside the load."""
    return {"cpus": None, "applications": applications} if applications else {"cpus": SERVER_CPU}
