"""A metadata file made into its model, and everything checked on the way (metadata.md 20.2, 20.6).

A file that Java's Metadata.File accepts is accepted with the same edges, keys, setup passwords and comments; members
Java does not know add users, roles and more. ``version`` 2 asks for strict checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import argon2
import msgspec

from openems.backend.metadata.file.model import ANY_EDGE, INFORMATION, MAX_DELAY, Delays, FileEdge, FileUser, Model
from openems.backend.metadata.file.reader import Document, Path, dotted
from openems.common.role import Language, Role

_ROOT = {"version", "edges", "users"}
_EDGE = {
    "apikey",
    "comment",
    "setuppassword",
    "producttype",
    "emsType",
    "serialNumber",
    "settings",
    "enabled",
}
_USER = {
    "name",
    "passwordHash",
    "externalIds",
    "enabled",
    "language",
    "globalRole",
    "roles",
    "settings",
    "information",
    "alerting",
}


class Problem(msgspec.Struct, frozen=True):
    """One finding. ``path`` names the member, never its value: values may be keys and passwords."""

    path: Path
    line: int
    text: str
    is_error: bool = True

    def __str__(self) -> str:
        where = f", {dotted(self.path)}" if self.path else ""
        return f"line {self.line}{where}: {self.text}"


def build(document: Document, *, allow_empty: bool = False) -> tuple[Model | None, list[Problem]]:
    """The model, or None if there is an error among the problems."""
    return _Builder(document, allow_empty).build()


class _Builder:
    def __init__(self, document: Document, allow_empty: bool) -> None:
        self._document = document
        self._allow_empty = allow_empty
        self._strict = False
        self.problems: list[Problem] = [Problem((), line, text, is_error=False) for line, text in document.warnings[:1]]

    def build(self) -> tuple[Model | None, list[Problem]]:
        root = self._document.value
        if not isinstance(root, dict) or not isinstance(root.get("edges"), dict):
            self._error((), 'member "edges" is missing or no object')
            return None, self.problems
        version = self._version(root.get("version"))
        self._strict = version >= 2
        self._unknown((), root, _ROOT)
        edges = {
            edge_id: edge
            for edge_id, value in root["edges"].items()
            if (edge := self._edge(edge_id, value)) is not None
        }
        self._unique(edges)
        users = self._users(root["users"], edges) if "users" in root else None
        if not edges and self._strict and not self._allow_empty:
            self._error(("edges",), "there are no edges")
        if any(problem.is_error for problem in self.problems):
            return None, self.problems
        return Model(version=version, edges=edges, users=users), self.problems

    def _version(self, value: Any) -> int:
        if value is None:
            return 1
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            # Java does not know the member, so this is no reason to refuse a file.
            self._warning(("version",), "is not 1 or 2; taken as 1")
            return 1
        if value > 2:
            self._error(("version",), "is newer than this program; 1 and 2 are known")
        return value

    # Edges

    def _edge(self, edge_id: str, value: Any) -> FileEdge | None:
        path = ("edges", edge_id)
        if not isinstance(value, dict):
            self._error(path, "is no object")
            return None
        self._unknown(path, value, _EDGE)
        apikey = self._required_text(path, value, "apikey")
        comment = self._required_text(path, value, "comment")
        if apikey is None or comment is None:
            return None
        if not apikey:
            self._graded((*path, "apikey"), "is empty; this edge cannot connect")
        elif self._strict and len(apikey) < 16:
            self._warning((*path, "apikey"), "is shorter than 16 characters")
        elif self._strict and apikey == edge_id:
            self._warning((*path, "apikey"), "is equal to the edge id")
        setup_password = value.get("setuppassword")
        if setup_password is not None and not isinstance(setup_password, str):
            self._warning((*path, "setuppassword"), "is no text and ignored")
        return FileEdge(
            id=edge_id,
            apikey=apikey,
            comment=comment,
            setup_password=setup_password if isinstance(setup_password, str) else "",
            producttype=self._optional(path, value, "producttype", str, ""),
            ems_type=self._optional(path, value, "emsType", str, None),
            serial_number=self._optional(path, value, "serialNumber", str, None),
            settings=self._optional(path, value, "settings", dict, None),
            enabled=self._optional(path, value, "enabled", bool, True),
        )

    def _unique(self, edges: Mapping[str, FileEdge]) -> None:
        for member, get in _SECRETS:
            seen: dict[str, str] = {}
            for edge in edges.values():
                secret = get(edge)
                if secret and secret in seen:
                    first = seen[secret]
                    text = f"is the same as that of edge {first!r}; the first one wins"
                    self._graded(("edges", edge.id, member), text)
                seen.setdefault(secret, edge.id)

    # Users

    def _users(self, value: Any, edges: Mapping[str, FileEdge]) -> dict[str, FileUser]:
        if not isinstance(value, dict):
            self._error(("users",), "is no object")
            return {}
        users: dict[str, FileUser] = {}
        external_ids: dict[str, str] = {}
        for login, member in value.items():
            path = ("users", login)
            if not isinstance(member, dict):
                self._error(path, "is no object")
                continue
            user = self._user(path, member, edges)
            if not user.login:
                self._error(path, "the login is empty")
            if user.login in users:
                self._error(path, "the same login in other letter case exists")
            for external_id in user.external_ids:
                if external_ids.setdefault(external_id, user.login) != user.login:
                    self._error((*path, "externalIds"), f"one of them belongs to {external_ids[external_id]!r} too")
            users[user.login] = user
        for external_id, login in external_ids.items():
            # Logins and external ids are looked up by the same text.
            if external_id.strip().lower() in users and external_id.strip().lower() != login:
                self._error(("users",), f"an external id of {login!r} is the login of another user")
        return users

    def _user(self, path: Path, value: dict[str, Any], edges: Mapping[str, FileEdge]) -> FileUser:
        self._unknown(path, value, _USER)
        login = path[-1].strip().lower()
        return FileUser(
            login=login,
            name=self._member(path, value, "name", str, path[-1]) or path[-1],
            password_hash=self._password_hash(path, value),
            external_ids=self._external_ids(path, value),
            enabled=self._member(path, value, "enabled", bool, True),
            language=self._language(path, value),
            global_role=self._global_role((*path, "globalRole"), value.get("globalRole", "guest")),
            roles=self._roles(path, value, edges),
            settings=self._member(path, value, "settings", dict, {}),
            information=self._information(path, value),
            alerting=self._alerting(path, value, edges),
        )

    def _password_hash(self, path: Path, value: dict[str, Any]) -> str | None:
        if "password" in value:
            text = 'passwords are not kept in plain text; use "passwordHash" (hash-password makes it)'
            self._error((*path, "password"), text)
        hashed: str | None = self._member(path, value, "passwordHash", str, None)
        if hashed is None:
            return None
        try:
            if not hashed.startswith("$argon2id$"):
                raise argon2.exceptions.InvalidHashError
            parameters = argon2.extract_parameters(hashed)
        except (argon2.exceptions.InvalidHashError, ValueError):
            self._error((*path, "passwordHash"), "is no Argon2id hash; hash-password makes one")
            return None
        # A check takes this much of every login attempt; more would be a way to stop the server.
        if parameters.memory_cost > 1 << 20 or parameters.time_cost > 20:
            self._error((*path, "passwordHash"), "costs more than 1 GiB or 20 rounds")
            return None
        return hashed

    def _external_ids(self, path: Path, value: dict[str, Any]) -> tuple[str, ...]:
        ids = self._member(path, value, "externalIds", list, [])
        if not all(isinstance(element, str) and element for element in ids):
            self._error((*path, "externalIds"), "is no list of texts")
            return ()
        return tuple(ids)

    def _language(self, path: Path, value: dict[str, Any]) -> Language | None:
        text = value.get("language")
        if text is None:
            return None
        language = Language.__members__.get(text.strip().upper()) if isinstance(text, str) else None
        if language is None:
            self._error((*path, "language"), f"is none of {', '.join(Language.__members__)}")
        return language

    def _global_role(self, path: Path, value: Any) -> Role:
        role = self._role(path, value)
        return Role.GUEST if role is None else role  # ADMIN is 0, and so is not true

    def _role(self, path: Path, text: Any) -> Role | None:
        role = Role.__members__.get(text.strip().upper()) if isinstance(text, str) else None
        if role is None:
            self._error(path, f"is none of {', '.join(role.json for role in Role)}")
        return role

    def _roles(self, path: Path, value: dict[str, Any], edges: Mapping[str, FileEdge]) -> dict[str, Role]:
        roles: dict[str, Role] = {}
        for edge_id, text in self._member(path, value, "roles", dict, {}).items():
            member = (*path, "roles", edge_id)
            if edge_id != ANY_EDGE and edge_id not in edges:
                self._warning(member, "there is no such edge")
            role = self._role(member, text)
            if role is not None:
                roles[edge_id] = role
        return roles

    def _information(self, path: Path, value: dict[str, Any]) -> dict[str, str]:
        information: dict[str, str] = {}
        for name, text in self._member(path, value, "information", dict, {}).items():
            if name in INFORMATION and isinstance(text, str):
                information[name] = text
            elif text is not None and self._strict:
                self._warning((*path, "information", name), "is unknown or no text and ignored")
        return information

    def _alerting(self, path: Path, value: dict[str, Any], edges: Mapping[str, FileEdge]) -> dict[str, Delays]:
        alerting: dict[str, Delays] = {}
        for edge_id, delays in self._member(path, value, "alerting", dict, {}).items():
            member = (*path, "alerting", edge_id)
            if edge_id not in edges:
                self._warning(member, "there is no such edge")
            if not isinstance(delays, dict) or not all(
                isinstance(delay, int) and not isinstance(delay, bool) and 0 <= delay <= MAX_DELAY
                for delay in delays.values()
            ):
                self._error(member, f"is no object of delays from 0 to {MAX_DELAY} minutes")
                continue
            self._unknown(member, delays, set(Delays.__struct_fields__))
            alerting[edge_id] = Delays(**{name: delays.get(name, 0) for name in Delays.__struct_fields__})
        return alerting

    # Members

    def _required_text(self, path: Path, value: dict[str, Any], name: str) -> str | None:
        text = value.get(name)
        if not isinstance(text, str):
            reason = "is missing" if name not in value else "is no text; numbers need quotes"
            self._error((*path, name), reason)
            return None
        return text

    def _member(self, path: Path, value: dict[str, Any], name: str, kind: type, default: Any) -> Any:
        """An optional member of a user: nothing Java reads, so a wrong type is an error."""
        member = value.get(name)
        if member is None:
            return default
        if not isinstance(member, kind):
            self._error((*path, name), f"is no {_KINDS[kind]}")
            return default
        return member

    def _optional(self, path: Path, value: dict[str, Any], name: str, kind: type, default: Any) -> Any:
        """An optional member of an edge: Java would ignore it, so in version 1 a wrong type is only a warning."""
        member = value.get(name)
        if member is None:
            return default
        if not isinstance(member, kind):
            self._graded((*path, name), f"is no {_KINDS[kind]}")
            return default
        return member

    def _unknown(self, path: Path, value: dict[str, Any], known: set[str]) -> None:
        if self._strict:
            for name in value.keys() - known:
                self._warning((*path, name), "is not known and ignored")

    # Findings

    def _error(self, path: Path, text: str) -> None:
        self._add(path, text, True)

    def _warning(self, path: Path, text: str) -> None:
        self._add(path, text, False)

    def _graded(self, path: Path, text: str) -> None:
        self._add(path, text, self._strict)

    def _add(self, path: Path, text: str, is_error: bool) -> None:
        # An error after a thousand warnings must still be seen as one.
        if len(self.problems) < 1000 or is_error:
            self.problems.append(Problem(path, self._document.line(path), text, is_error))


_KINDS: dict[type, str] = {str: "text", dict: "object", bool: "true or false", list: "list"}
_SECRETS: tuple[tuple[str, Callable[[FileEdge], str]], ...] = (
    ("apikey", lambda edge: edge.apikey),
    ("setuppassword", lambda edge: edge.setup_password),
)
