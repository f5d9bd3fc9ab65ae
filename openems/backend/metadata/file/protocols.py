"""Setup protocols: a list of each edge in the state file, each protocol in a file of its own (metadata.md 20.8)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from openems.backend.metadata.file.audit import AuditLog
from openems.backend.metadata.file.state import InThread, ProtocolState, StateFile
from openems.backend.metadata.file.users import Users
from openems.backend.models import SetupProtocolCoreInfo, User
from openems.backend.roles import assert_user_role
from openems.common.atomicfile import write_atomically
from openems.common.errors import generic
from openems.common.jsonrpc import Members, dumps
from openems.common.role import Role

#: setup protocols of one edge, and bytes of one.
MAX_PROTOCOLS = 100
MAX_PROTOCOL = 256 << 10


class Protocols:
    _log = Logger()

    def __init__(
        self,
        directory: str,
        file: StateFile,
        users: Users,
        audit: AuditLog,
        *,
        now: Callable[[], int],
        in_thread: InThread,
    ) -> None:
        self.directory = directory
        self._file = file
        self._users = users
        self._audit = audit
        self._now = now
        self._in_thread = in_thread

    def edges(self) -> Iterable[str]:
        """Edges with protocols."""
        return self._file.state.protocols

    def forget_edge(self, edge_id: str) -> None:
        """The protocols name customers: their files go, too."""
        paths = [self._path(protocol.id) for protocol in self._file.state.protocols.pop(edge_id, ())]
        if paths:
            removing: Deferred[None] = self._in_thread(lambda: _remove(paths))
            removing.addErrback(lambda f: self._log.failure("protocols of {edge} not removed", f, edge=edge_id))

    async def submit(self, user: User, protocol: dict[str, Any]) -> int:
        """Stored as it is, under a new number; the customer becomes OWNER if he is a user of the file.

        Needs INSTALLER for ``edge.id``.
        """
        members = Members(protocol)
        edge_id = Members(members.object("edge")).string("id")
        customer = members.object("customer")
        assert_user_role(self._users, user, edge_id, Role.INSTALLER, "submitSetupProtocol")
        protocols = self._file.state.protocols.setdefault(edge_id, [])
        if len(protocols) >= MAX_PROTOCOLS:
            raise generic(f"Edge [{edge_id}] has {MAX_PROTOCOLS} setup protocols already")
        # The first password of a customer is no part of the record.
        kept = {**protocol, "customer": {name: value for name, value in customer.items() if name != "password"}}
        data = dumps(kept)
        if len(data) > MAX_PROTOCOL:
            raise generic(f"A setup protocol may not be larger than {MAX_PROTOCOL} bytes")
        self._file.state.last_protocol = number = self._file.state.last_protocol + 1
        try:
            await self._in_thread(lambda: _write(self._path(number), data))
        except OSError:
            raise generic("The setup protocol could not be stored") from None
        protocols.append(ProtocolState(id=number, created=self._now()))
        email = customer.get("email")
        owner = self._users.file_user(email) if isinstance(email, str) else None
        if owner is not None and self._users.role(owner, edge_id) in (None, Role.GUEST):
            self._users.state_of(owner.login).grants[edge_id] = Role.OWNER.json
        self._audit.write(edge_id, user.id, "submitSetupProtocol", {"setupProtocolId": str(number)})
        await self._file.stored()
        return number

    async def data(self, user: User, edge_id: str) -> dict[str, Any]:
        """The newest one, ``{}`` if there is none. It names the customer, so it needs OWNER."""
        assert_user_role(self._users, user, edge_id, Role.OWNER, "getSetupProtocolData")
        protocols = self._file.state.protocols.get(edge_id)
        if not protocols:
            return {}
        path = self._path(protocols[-1].id)
        try:
            return Members(await self._in_thread(lambda: _read(path))).as_dict()
        except OSError:
            raise generic("The setup protocol could not be read") from None

    async def core_info(self, edge_id: str) -> list[SetupProtocolCoreInfo]:
        return [
            SetupProtocolCoreInfo(id=protocol.id, create_date=protocol.created, type=protocol.type)
            for protocol in reversed(self._file.state.protocols.get(edge_id, ()))
        ]

    def _path(self, number: int) -> str:
        return os.path.join(self.directory, f"{number}.json")


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_atomically(path, data)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
