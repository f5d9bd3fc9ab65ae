"""Writes a metadata file to begin with (metadata.md 20.2)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from openems.backend.metadata.password import hash_password
from openems.common.atomicfile import write_atomically


def create_demo_file(path: str, admin_password: str, edges: Iterable[tuple[str, str]]) -> None:
    """A file with user ``admin``, ADMIN of everything, and ``edges`` as (id, apikey). Only its owner may read it."""
    body = {
        "version": 2,
        "edges": {edge_id: {"comment": f"Demo {edge_id}", "apikey": apikey} for edge_id, apikey in edges},
        "users": {
            "admin": {
                "name": "Administrator",
                "passwordHash": hash_password(admin_password),
                "globalRole": "admin",
                "roles": {"*": "admin"},
            }
        },
    }
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    write_atomically(path, json.dumps(body, indent=2, ensure_ascii=False).encode() + b"\n")
