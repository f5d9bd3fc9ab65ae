"""Lists of edges as Odoo sees them for a user (metadata-odoo.md 11.3), joined with what is known here.

Online, version and what else an edge tells by itself come from memory: it is fresher. A device that is not known here
yet, or that Odoo describes badly, never spoils the page (quirk Q1). While Odoo is away the page is made from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.logger import Logger

from openems.backend.metadata.odoo.edges import EdgeTable
from openems.backend.metadata.odoo.replies import OdooUnavailable, RouteMissing, text_of
from openems.backend.metadata.odoo.rpc import OdooRpc
from openems.backend.metadata.odoo.statements import level
from openems.backend.metadata.odoo.times import milliseconds
from openems.backend.metadata.odoo.users import Users
from openems.backend.metadata.page import page, shape
from openems.backend.models import Edge, PageRequest, User
from openems.common.errors import generic
from openems.common.instant import instant
from openems.common.role import Level, Role

GET_EDGES = "/openems_backend/get_edges"
GET_EDGE = "/openems_backend/get_edge_with_role"


class Device(msgspec.Struct, frozen=True):
    """One element of an answer; times in epoch milliseconds."""

    name: str
    comment: str
    producttype: str
    role: Role
    lastmessage: int | None
    sum_state: Level
    first_setup_protocol: int | None
    settings: dict[str, Any] | None


def parse_device(value: Any) -> Device:
    """Unset values may be absent, null or false. Raises ValueError for a device without name or role.

    >>> parse_device({"name": "edge0", "role": "guest", "comment": False, "openems_sum_state_level": "fault"}).sum_state
    <Level.FAULT: 3>
    """
    name = text_of(value.get("name")) if isinstance(value, dict) else None
    if not name:
        raise ValueError("Member [name] was not part of a device")
    role = Role.__members__.get((text_of(value.get("role")) or "").upper())
    if role is None:
        raise ValueError(f"device {name} has no known role")
    settings = value.get("settings")
    return Device(
        name,
        text_of(value.get("comment")) or "",
        text_of(value.get("producttype")) or "",
        role,
        milliseconds(value.get("lastmessage")),
        level(value.get("openems_sum_state_level")) or Level.OK,
        milliseconds(value.get("first_setup_protocol_date")),
        settings if isinstance(settings, dict) else None,
    )


def parameters(external_id: str, request: PageRequest) -> dict[str, Any]:
    """What is asked (11.3): filters that are not set are left out, ``searchParams`` never is."""
    search: dict[str, Any] = {}
    if request.producttype:
        search["producttype"] = request.producttype
    if request.sum_state:
        search["sumState"] = [state.name for state in request.sum_state]
    if request.order is not None:
        search["orderState"] = [
            {"field": item.field, "sortOrder": "DESC" if item.descending else "ASC"} for item in request.order
        ]
    if request.is_online is not None:
        search["isOnline"] = request.is_online
    asked: dict[str, Any] = {"external_uid": external_id, "page": request.page, "limit": request.limit}
    if request.query is not None:
        asked["query"] = request.query
    asked["searchParams"] = search
    return asked


class Pages:
    _log = Logger()

    def __init__(self, rpc: OdooRpc, users: Users, table: EdgeTable, *, wanted: Callable[[], None]) -> None:
        self.from_memory = 0
        self.bad_devices = 0
        self._rpc = rpc
        self._users = users
        self._table = table
        self._wanted = wanted

    async def page(self, user: User, request: PageRequest) -> list[dict[str, Any]]:
        if self._users.addon_answers is False:
            return self._page(user, request)
        try:
            answer = await self._rpc.call(GET_EDGES, parameters(user.user_id, request))
        except (OdooUnavailable, RouteMissing):
            # Of a user nobody knows anything about there is nothing to show.
            if self._users.cached(user.id) is None:
                raise
            self.from_memory += 1
            return self._page(user, request)
        devices = answer.get("devices") if isinstance(answer, dict) else None
        if not isinstance(devices, list):
            raise generic("Odoo sent no list of edges")
        shapes = []
        for element in devices:
            try:
                device = parse_device(element)
            except ValueError as e:
                self.bad_devices += 1
                if self.bad_devices == 1 or self.bad_devices % 1_000 == 0:
                    self._log.warn("a device of Odoo is left out: {reason}", reason=str(e))
                continue
            shapes.append(self._shape(user, device))
        return shapes

    async def edge(self, user: User, edge_id: str) -> dict[str, Any]:
        """Code 1 ``Unable to find edge with id [..]`` where Odoo shows the user no such edge."""
        if self._users.addon_answers is False:
            return self._edge(user, edge_id)
        try:
            answer = await self._rpc.call(GET_EDGE, {"external_uid": user.user_id, "edge_id": edge_id})
        except (OdooUnavailable, RouteMissing):
            if self._users.cached(user.id) is None:
                raise
            self.from_memory += 1
            return self._edge(user, edge_id)
        try:
            device = parse_device(answer)
        except ValueError:
            self._users.learn_role(user, edge_id, None)
            raise _not_found(edge_id) from None
        return self._shape(user, device)

    def _shape(self, user: User, device: Device) -> dict[str, Any]:
        self._users.learn_role(user, device.name, device.role)
        edge = self._table.edges.get(device.name)
        if edge is None:
            self._wanted()
        known = edge.lastmessage if edge is not None else None
        lastmessage = max((time for time in (known, device.lastmessage) if time is not None), default=None)
        state = edge.sum_state if edge is not None and edge.sum_state is not None else device.sum_state
        result: dict[str, Any] = {
            "id": device.name,
            "comment": device.comment,
            "producttype": device.producttype,
            "version": "0.0.0" if edge is None else str(edge.version),
            "role": device.role.json,
            "isOnline": edge is not None and edge.online,
        }
        if lastmessage is not None:
            result["lastmessage"] = instant(lastmessage)
        result["sumState"] = state.name
        if device.first_setup_protocol is not None:
            result["firstSetupProtocol"] = instant(device.first_setup_protocol)
        if device.settings is not None:
            result["settings"] = device.settings
        return result

    # Without Odoo

    def _page(self, user: User, request: PageRequest) -> list[dict[str, Any]]:
        known = self._users.cached(user.id)
        if known is None:
            return []
        visible: list[tuple[Edge, Role]] = []
        names = self._table.edges if known.default is not None else known.roles
        for name in names:
            edge, role = self._table.edges.get(name), known.roles.get(name, known.default)
            if edge is not None and role is not None:
                visible.append((edge, role))
        return page(visible, request)

    def _edge(self, user: User, edge_id: str) -> dict[str, Any]:
        role, edge = self._users.role(user, edge_id), self._table.edges.get(edge_id)
        if role is None or edge is None:
            raise _not_found(edge_id)
        return shape(edge, role)


def _not_found(edge_id: str) -> Exception:
    return generic(f"Unable to find edge with id [{edge_id[:100]}]")
