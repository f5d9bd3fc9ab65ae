"""Putting an edge into operation: whose it is, and the protocols of that (ui.md 9)."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from openems.backend.models import User
from openems.backend.roles import assert_user_role
from openems.backend.ui import parameters
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import EMPTY, Members, Request
from openems.common.role import Role
from openems.websocket.proxies import host_of

if TYPE_CHECKING:
    from openems.backend.ui.session import Session


#: Setup protocols a session remembers as its user's own.
MAX_PROTOCOLS = 1_000

_log = Logger()


class OwnProtocols:
    """Ids of the protocols that were listed to the user of a session, the latest of them."""

    def __init__(self) -> None:
        self._ids: dict[int, None] = {}

    def __contains__(self, protocol_id: int) -> bool:
        return protocol_id in self._ids

    def add(self, ids: Iterable[int]) -> None:
        self._ids.update(dict.fromkeys(ids))
        while len(self._ids) > MAX_PROTOCOLS:
            del self._ids[next(iter(self._ids))]

    def clear(self) -> None:
        self._ids.clear()


async def add_edge_to_user(session: Session, user: User, request: Request) -> Any:
    metadata = session.server.metadata
    setup_password = request.members().string("setupPassword")
    # Knowing a setup password is all it takes, so it must not be guessed (the UI repeats a refused one once).
    server, now = session.server, session.server.reactor.seconds()
    if not (
        server.setup_attempts.take(user.user_id, now)
        and server.setup_attempts_of_address.take(host_of(session.connection.remote), now)
    ):
        server.limited += 1
        raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
    edge_id = metadata.edge_id_for_setup_password(setup_password)
    edge = None if edge_id is None else metadata.get_edge(edge_id)
    if edge is None:
        raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
    await metadata.add_edge_to_user(user, edge)
    result = {"edge": edge.json()}
    try:
        serial_number = await metadata.get_serial_number(edge.id)
    except OpenemsError as e:
        # The edge has been added: this must not look like a failure.
        _log.warn("{edge}: no serial number: {reason}", edge=edge.id, reason=e.message)
        serial_number = None
    if serial_number is not None:
        result["serialNumber"] = serial_number
    return result


async def submit_setup_protocol(session: Session, user: User, request: Request) -> Any:
    protocol = request.members().object("protocol")
    members = Members(protocol)
    edge_id = Members(members.object("edge")).string("id")
    customer = members.object("customer")
    assert_user_role(session.server.metadata, user, edge_id, Role.INSTALLER, request.method)
    choose = session.server.random.choice
    customer["role"] = Role.OWNER.name
    customer["password"] = "".join(choose(parameters.GENERATED_ALPHABET) for _ in range(parameters.GENERATED_LENGTH))
    record = parameters.registration_record({**customer, "includePasswordInRegistrationEmail": True})
    await session.server.logins.register_customer(record, session.connection.remote)
    protocol_id = await session.server.metadata.submit_setup_protocol(user, protocol)
    _remember(session, user, [protocol_id])
    return {"setupProtocolId": protocol_id}


async def get_setup_protocol(session: Session, user: User, request: Request) -> Any:
    """Only protocols of edges the user owns: those listed to him before, or of an edge his page is open for
    (ui.md 19, 13)."""
    protocol_id = request.members().integer("setupProtocolId")
    if user.global_role is not Role.ADMIN and protocol_id not in session.protocols:
        for edge_id in sorted(session.watcher.edges)[:10]:
            if session.may(edge_id, Role.OWNER):
                await _listed(session, user, edge_id)
        if protocol_id not in session.protocols:
            raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, request.method, user.global_role.name)
    pdf = await session.server.metadata.get_setup_protocol(user, protocol_id)
    return {"payload": base64.b64encode(pdf).decode()}


async def get_setup_protocol_data(session: Session, user: User, request: Request) -> Any:
    edge_id = request.members().string("edgeId")
    assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, request.method)
    return await session.server.metadata.get_setup_protocol_data(user, edge_id) or EMPTY


async def get_latest_setup_protocol_core_info(session: Session, user: User, request: Request) -> Any:
    edge_id = request.members().string("edgeId")
    assert_user_role(session.server.metadata, user, edge_id, Role.OWNER, request.method)
    infos = await _listed(session, user, edge_id)
    return parameters.core_info_json(infos[0]) if infos else EMPTY


async def get_protocols_core_info(session: Session, user: User, request: Request) -> Any:
    edge_id = request.members().string("edgeId")
    assert_user_role(session.server.metadata, user, edge_id, Role.OWNER, request.method)
    return {"setupProtocols": [parameters.core_info_json(info) for info in await _listed(session, user, edge_id)]}


async def _listed(session: Session, user: User, edge_id: str) -> list[Any]:
    infos = await session.server.metadata.get_setup_protocols_core_info(edge_id)
    _remember(session, user, [info.id for info in infos])
    return list(infos)


def _remember(session: Session, user: User, ids: list[int]) -> None:
    # Not for whoever logged in meanwhile; the same user may be another object by now, if his settings changed.
    if session.user is not None and session.user.user_id == user.user_id:
        session.protocols.add(ids)
