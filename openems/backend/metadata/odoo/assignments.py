"""Whose edge it is: records of openems.device_user_role (metadata-odoo.md 11.4)."""

from __future__ import annotations

from twisted.logger import Logger

from openems.backend.metadata.odoo.edges import EdgeTable
from openems.backend.metadata.odoo.partners import Models
from openems.backend.metadata.odoo.replies import Fault, text_of
from openems.backend.metadata.odoo.users import Users
from openems.backend.models import User
from openems.common.errors import generic
from openems.common.role import Role

MODEL = "openems.device_user_role"
ALERTING = "openems.alerting"
#: Minutes: alerting of an owner, who did not ask for it.
OWNER_OFFLINE_DELAY = 60


class Assignments:
    _log = Logger()

    def __init__(self, models: Models, users: Users, table: EdgeTable) -> None:
        self._models = models
        self._users = users
        self._table = table

    async def device(self, edge_id: str) -> int:
        """Odoo's id. Code 1 where there is no such edge."""
        number = self._table.odoo_id(edge_id)
        if number is None:
            found = await self._models.search("openems.device", [["name", "=", edge_id]])
            if len(found) != 1:
                raise generic(f"Edge not found for id [{edge_id[:100]}]")
            number = found[0]
        return number

    async def assign(self, odoo_id: int, edge_id: str, role: Role) -> Role:
        """The role of the user from now on; one that he has already is kept (quirk Q13)."""
        device = await self.device(edge_id)
        domain = [["user_id", "=", odoo_id], ["device_id", "=", device]]
        found = await self._models.search_read(MODEL, domain, ["role"])
        if found:
            return Role.parse(text_of(found[0].get("role")))
        await self._models.create(MODEL, {"user_id": odoo_id, "device_id": device, "role": role.json})
        if role is Role.OWNER:
            await self._alert(odoo_id, device)
        return role

    async def _alert(self, odoo_id: int, device: int) -> None:
        """The edge is his already: that an addon knows no alerting does not undo it."""
        values = {"user_id": odoo_id, "device_id": device, "offline_delay": OWNER_OFFLINE_DELAY}
        try:
            if not await self._models.search(ALERTING, [["user_id", "=", odoo_id], ["device_id", "=", device]]):
                await self._models.create(ALERTING, values)
        except Fault as e:
            self._log.warn("Edge without alerting of its owner: {reason}", reason=e.message)

    async def add_edge(self, user: User, edge_id: str) -> None:
        role = await self.assign(await self._users.odoo_id(user), edge_id, Role.INSTALLER)
        self._users.learn_role(user, edge_id, role)
