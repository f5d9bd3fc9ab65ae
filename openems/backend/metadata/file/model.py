"""What a metadata file says (metadata.md 20.2)."""

from __future__ import annotations

from typing import Any

import msgspec

from openems.common.role import Language, Role

#: Delays in minutes; more than a year is a typing error.
MAX_DELAY = 527_040
ANY_EDGE = "*"


class FileEdge(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    apikey: str
    comment: str
    setup_password: str = ""
    producttype: str = ""
    ems_type: str | None = None
    serial_number: str | None = None
    settings: dict[str, Any] | None = None
    enabled: bool = True


class FileUser(msgspec.Struct, frozen=True, kw_only=True):
    """``login`` in lower case. ``roles``: edge id or ``*`` -> role. ``alerting``: edge id -> delays in minutes."""

    login: str
    name: str
    password_hash: str | None = None
    external_ids: tuple[str, ...] = ()
    enabled: bool = True
    language: Language | None = None
    global_role: Role = Role.GUEST
    roles: dict[str, Role] = {}
    settings: dict[str, Any] = {}
    information: dict[str, str] = {}
    alerting: dict[str, Delays] = {}


class Delays(msgspec.Struct, frozen=True):
    offline: int = 0
    fault: int = 0
    warning: int = 0


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """``users`` is None where the file has no member of that name, as Java's files."""

    version: int = 1
    edges: dict[str, FileEdge] = {}
    users: dict[str, FileUser] | None = None


#: Flat members of a user's ``information``.
INFORMATION = ("firstname", "lastname", "email", "phone", "street", "zip", "city", "country", "company")
