"""Setup protocols (metadata-odoo.md 11.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.logger import Logger

from openems.backend.metadata.odoo.assignments import Assignments
from openems.backend.metadata.odoo.edges import EdgeTable
from openems.backend.metadata.odoo.partners import MAX_TEXT, Models, Partners
from openems.backend.metadata.odoo.replies import Fault, OdooError, many2one, text_of
from openems.backend.metadata.odoo.rpc import SLOW_SECONDS, OdooRpc
from openems.backend.metadata.odoo.times import milliseconds
from openems.backend.metadata.odoo.users import Users
from openems.backend.models import SetupProtocolCoreInfo, User
from openems.backend.roles import assert_role
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Members
from openems.common.role import Role

MODEL = "openems.setup_protocol"
LOT = "openems.setup_protocol_production_lot"
ITEM = "openems.setup_protocol_item"
REPORT = "openems.report_openems_setup_protocol_template"
LATEST = "/openems_backend/get_latest_setup_protocol"
SEND_EMAIL = "/openems_backend/sendSetupProtocolEmail"
#: As it stands in Odoo's lists.
NOT_FOUND = "Seriennummern wurden im System nicht gefunden"
#: Odoo's word -> that of the UI.
TYPES = {
    "setup-protocol": "SETUP_PROTOCOL",
    "ems-exchange": "EMS_EXCHANGE",
    "capacity-extension": "CAPACITY_EXTENSION",
}
#: Lots or items of one protocol: each is a request.
MAX_ELEMENTS = 300


class Protocols:
    """``role(user, edge id)`` as in IMetadata. ``login_suffix``: the end of a customer's e-mail that is no part of his
    login."""

    _log = Logger()

    def __init__(
        self,
        rpc: OdooRpc,
        models: Models,
        partners: Partners,
        assignments: Assignments,
        users: Users,
        table: EdgeTable,
        *,
        role: Callable[[User, str], Role | None],
        login_suffix: str = "@fenecon.de",
    ) -> None:
        self._rpc = rpc
        self._models = models
        self._partners = partners
        self._assignments = assignments
        self._users = users
        self._table = table
        self._role = role
        self._login_suffix = login_suffix

    async def submit(self, user: User, protocol: dict[str, Any]) -> int:
        """The number of the new protocol. Everything is read and checked before the first record is made."""
        members = Members(protocol)
        customer = members.object("customer")
        edge_id = Members(members.object("edge")).string("id")
        installer = members.object("installer")
        assert_role(self._role(user, edge_id), user, Role.INSTALLER, "submitSetupProtocol")
        lots, items = _elements(protocol, "lots"), _elements(protocol, "items")
        device = await self._assignments.device(edge_id)
        email = Members(customer).string("email").lower()
        login = email.removesuffix(self._login_suffix) if self._login_suffix else email
        customer_user = await self._users.odoo_id_of_login(login)
        customer_partner = await self._partners.of_user(customer_user)
        installer_partner = await self._partners.of_user(await self._users.odoo_id(user))
        location = protocol.get("location")
        place = await self._partners.values(location) if isinstance(location, dict) and location else {}
        serials = await self._serials(lots)

        role = await self._assignments.assign(customer_user, edge_id, Role.OWNER)
        known = self._users.cached(login)
        if known is not None:
            self._users.learn_role(known.user, edge_id, role)
        different = await self._models.create("res.partner", place) if place else None
        number = await self._models.create(
            MODEL,
            {
                "customer_id": customer_partner,
                "different_location_id": different,
                "installer_id": installer_partner,
                "device_id": device,
            },
        )
        await self._fill(number, lots, items, serials)
        comment = comment_of(customer)
        await self._models.write("openems.device", device, {"comment": comment})
        edge = self._table.edges.get(edge_id)
        if edge is not None:
            edge.comment = comment
        await self._name_installer(installer_partner, installer)
        await self._mail(number, edge_id)
        return number

    async def extend(
        self, edge_id: str, serials: Mapping[str, Mapping[str, str]], items: Sequence[Mapping[str, Any]]
    ) -> int | None:
        """A protocol of more capacity: category -> name -> serial number. Errors are logged only (11.7)."""
        lots = [
            {"category": category, "name": name, "serialNumber": serial}
            for category, named in serials.items()
            for name, serial in named.items()
        ]
        try:
            device = await self._assignments.device(edge_id)
            found = await self._serials(lots)
            number = await self._models.create(MODEL, {"type": "capacity-extension", "device_id": device})
            await self._fill(number, lots, [dict(item) for item in items], found)
        except OpenemsError as e:
            self._log.warn("Unable to create serialnumber protocol: {reason}", reason=e.message)
            return None
        return number

    async def _serials(self, lots: list[dict[str, Any]]) -> dict[str, int]:
        """Serial number -> record of stock.lot, of those that Odoo knows."""
        found = {}
        for serial in {lot["serialNumber"] for lot in lots if isinstance(lot.get("serialNumber"), str)}:
            records = await self._models.search("stock.lot", [["name", "=", serial]])
            if records:
                found[serial] = records[0]
        return found

    async def _fill(
        self, number: int, lots: list[dict[str, Any]], items: list[dict[str, Any]], serials: dict[str, int]
    ) -> None:
        missing = []
        for sequence, lot in enumerate(lots):
            serial = lot.get("serialNumber")
            if not isinstance(serial, str):
                continue
            if serial not in serials:
                missing.append(lot)
                continue
            values = {"setup_protocol_id": number, "sequence": sequence, "lot_id": serials[serial]}
            await self._models.create(LOT, {**values, **_texts(lot, "category", "name")})
        for sequence, lot in enumerate(missing):
            texts = {**_texts(lot, "name"), "category": NOT_FOUND, "value": lot["serialNumber"][:MAX_TEXT]}
            await self._models.create(ITEM, {"setup_protocol_id": number, "sequence": sequence, **texts})
        for sequence, item in enumerate(items):
            values = {"setup_protocol_id": number, "sequence": sequence}
            await self._models.create(ITEM, values | _texts(item, "category", "name", "value", "view", "field"))

    async def _name_installer(self, partner: int, installer: dict[str, Any]) -> None:
        try:
            names = await self._partners.values(_texts(installer, "firstname", "lastname"))
            record = await self._models.read_one("res.partner", partner, ["is_company"])
            if names and not record.get("is_company"):
                await self._models.write("res.partner", partner, names)
        except OpenemsError as e:
            self._log.warn("Unable to write the installer's name: {reason}", reason=e.message)

    async def _mail(self, number: int, edge_id: str) -> None:
        try:
            await self._rpc.call(SEND_EMAIL, {"setupProtocolId": number, "edgeId": edge_id}, timeout=SLOW_SECONDS)
        except OpenemsError as e:
            self._log.warn("Unable to send the mail of setup protocol {number}: {reason}", number=number, reason=e)

    async def pdf(self, user: User, number: int) -> bytes:
        """Of an edge that the user owns (quirk Q7)."""
        found = await self._models.search_read(MODEL, [["id", "=", number]], ["device_id"])
        edge_id = self._table.name(many2one(found[0].get("device_id")) or 0) if found else None
        if edge_id is None:
            raise generic(f"There is no setup protocol [{number}]")
        assert_role(self._role(user, edge_id), user, Role.OWNER, "getSetupProtocol")
        return await self._rpc.report(REPORT, number)

    async def data(self, user: User, edge_id: str) -> dict[str, Any]:
        """It names the customer, so it needs OWNER. ``{}`` if there is none."""
        assert_role(self._role(user, edge_id), user, Role.OWNER, "getSetupProtocolData")
        answer = await self._rpc.call(LATEST, {"external_uid": user.user_id, "edge_name": edge_id})
        if not isinstance(answer, dict):
            raise OdooError("Odoo sent no setup protocol")
        return answer

    async def core_info(self, edge_id: str) -> list[SetupProtocolCoreInfo]:
        """Newest first."""
        device = self._table.odoo_id(edge_id)
        if device is None:
            raise generic(f"Edge not found for id [{edge_id[:100]}]")
        domain = [["device_id", "=", device]]
        order = "create_date desc, id desc"
        try:
            found = await self._models.search_read(MODEL, domain, ["create_date", "type"], order=order)
        except Fault as e:
            if "type" not in e.text:
                raise
            found = await self._models.search_read(MODEL, domain, ["create_date"], order=order)
        return [
            SetupProtocolCoreInfo(
                id=record["id"],
                create_date=milliseconds(record.get("create_date")),
                type=TYPES.get(text_of(record.get("type")) or "", "SETUP_PROTOCOL"),
            )
            for record in found
        ]


def comment_of(customer: dict[str, Any]) -> str:
    """
    >>> comment_of({"firstname": "Max", "lastname": "Muster", "address": {"city": "Deggendorf"}})
    'Max Muster, Deggendorf'
    """
    address = customer.get("address")
    city = text_of(address.get("city")) if isinstance(address, dict) else None
    name = " ".join(part for part in (text_of(customer.get("firstname")), text_of(customer.get("lastname"))) if part)
    return ", ".join(part for part in (name, city) if part)[:MAX_TEXT]


def _elements(protocol: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = protocol.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        raise generic(f"[{name}] is no list of objects")
    if len(value) > MAX_ELEMENTS:
        raise generic(f"A setup protocol may not have more than {MAX_ELEMENTS} {name}")
    return value


def _texts(source: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: source[name][:MAX_TEXT] for name in names if isinstance(source.get(name), str)}
