"""Edges and users from a metadata file into Odoo, and the other way (metadata.md 20, metadata-odoo.md 10).

What is there already stays as it is, so a copy may be repeated. Passwords are not copied: each side keeps hashes that
the other cannot check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openems.backend.metadata.file.model import ANY_EDGE, INFORMATION, FileEdge, FileUser, Model
from openems.backend.metadata.file.state import State
from openems.backend.metadata.odoo.known import settings_of
from openems.backend.metadata.odoo.partners import Models, Partners
from openems.backend.metadata.odoo.replies import many2one, text_of
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import dumps
from openems.common.role import Language, Role

#: Records of one request.
BATCH = 200
ARCHIVED_TOO = {"active_test": False}
GROUPS = {Role.ADMIN: "group_openems_manager", Role.GUEST: "group_openems_reader"}


class Copy:
    """``say`` gets one line for each thing that was not, or cannot be, copied. ``dry``: nothing is written."""

    def __init__(self, models: Models, *, say: Callable[[str], None], dry: bool = False) -> None:
        self.edges = self.users = self.roles = self.alerting = 0
        self._models = models
        self._partners = Partners(models)
        self._say = say
        self._dry = dry
        self._fields: dict[str, set[str]] = {}

    def summary(self) -> str:
        verb = "would be copied" if self._dry else "copied"
        return f"{self.edges} edges, {self.users} users, {self.roles} roles, {self.alerting} alerting settings {verb}"

    async def _known_fields(self, model: str) -> set[str]:
        """An older addon has fewer; one unknown field fails a whole call."""
        if model not in self._fields:
            self._fields[model] = await self._models.fields(model)
        return self._fields[model]

    async def _all(self, model: str, fields: list[str], domain: list[Any] | None = None) -> list[dict[str, Any]]:
        wanted = [field for field in fields if field in await self._known_fields(model)]
        records: list[dict[str, Any]] = []
        last = 0
        while True:
            more = [["id", ">", last], *(domain or [])]
            found = await self._models.search_read(
                model, more, wanted, order="id asc", limit=BATCH, context=ARCHIVED_TOO
            )
            records += found
            if len(found) < BATCH:
                return records
            last = found[-1]["id"]

    # --- into Odoo

    async def to_odoo(self, model: Model, state: State) -> None:
        """``state``: what users changed since, beside the file."""
        devices = await self._edges_to_odoo(model.edges)
        if model.users is None:
            self._say("the file has no users")
            return
        records = await self._all("res.users", ["login"])
        logins = {str(record["login"]).lower(): int(record["id"]) for record in records}
        existing = {
            (many2one(record.get("user_id")), many2one(record.get("device_id")))
            for record in await self._all("openems.device_user_role", ["user_id", "device_id"])
        }
        alerting = {
            (many2one(record.get("user_id")), many2one(record.get("device_id")))
            for record in await self._all("openems.alerting", ["user_id", "device_id"])
        }
        for user in model.users.values():
            number = logins.get(user.login)
            if number is None:
                try:
                    number = await self._user_to_odoo(user, state)
                except OpenemsError as e:
                    self._say(f"user {user.login}: {e.message}")
                    continue
            else:
                self._say(f"user {user.login}: is in Odoo already, only roles and alerting are added")
            await self._roles_to_odoo(user, number, state, devices, existing)
            await self._alerting_to_odoo(user, number, state, devices, alerting)

    async def _edges_to_odoo(self, edges: Mapping[str, FileEdge]) -> dict[str, int]:
        """Edge id -> Odoo's id; 0 where it would be made."""
        records = await self._all("openems.device", ["name", "apikey"])
        there = {str(record["name"]): record for record in records}
        devices = {name: int(record["id"]) for name, record in there.items()}
        known = await self._known_fields("openems.device")
        new: list[dict[str, Any]] = []
        for edge in edges.values():
            record = there.get(edge.id)
            if record is not None:
                if record.get("apikey") != edge.apikey:
                    self._say(f"edge {edge.id}: is in Odoo already, with another API key")
                continue
            values: dict[str, Any] = {
                "name": edge.id,
                "apikey": edge.apikey,
                "comment": edge.comment or False,
                "producttype": edge.producttype or False,
                "active": edge.enabled,
            }
            if edge.setup_password:
                values["setup_password"] = edge.setup_password
            if edge.ems_type and "ems_type" in known:
                values["ems_type"] = edge.ems_type
            if edge.settings is not None and "settings" in known:
                values["settings"] = dumps(edge.settings).decode()
            if edge.serial_number and not self._dry:
                values["stock_production_lot_id"] = await self._lot(edge.serial_number)
            new.append(values)
            devices[edge.id] = 0
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            if not self._dry:
                numbers = await self._models.create_all("openems.device", part)
                devices |= {str(values["name"]): number for values, number in zip(part, numbers, strict=True)}
            self.edges += len(part)
        return devices

    async def _lot(self, serial_number: str) -> int:
        found = await self._models.search("stock.lot", [["name", "=", serial_number]])
        return found[0] if found else await self._models.create("stock.lot", {"name": serial_number})

    async def _user_to_odoo(self, user: FileUser, state: State) -> int:
        changed = state.users.get(user.login)
        flat: dict[str, str | None] = dict(user.information)
        settings = dict(user.settings)
        language = user.language
        if changed is not None:
            flat |= changed.information
            settings |= changed.settings
            language = Language.__members__.get(changed.language or "") or language
        person: dict[str, Any] = {
            name: flat[name] for name in ("firstname", "lastname", "email", "phone") if flat.get(name)
        }
        address = {name: flat[name] for name in ("street", "zip", "city", "country") if flat.get(name)}
        if address:
            person["address"] = address
        if flat.get("company"):
            person["company"] = {"name": flat["company"]}
        self.users += 1
        if user.password_hash is not None:
            self._say(f"user {user.login}: needs a new password in Odoo")
        if self._dry:
            return 0
        known = await self._known_fields("res.users")
        values: dict[str, Any] = {
            **await self._partners.values(person),
            "login": user.login,
            "name": user.name,
            "active": user.enabled,
            "global_role": user.global_role.json,
            "groups_id": [[6, 0, [await self._models.reference("base", "group_portal")]]],
        }
        if "email" not in values and "@" in user.login:
            values["email"] = user.login
        if language is not None:
            values["openems_language"] = language.value
        if settings and "settings" in known:
            values["settings"] = dumps(settings).decode()
        if user.external_ids and "oauth_uid" in known:
            values["oauth_uid"] = user.external_ids[0]
        if len(user.external_ids) > 1:
            self._say(f"user {user.login}: Odoo keeps one external id, the first")
        return await self._models.create("res.users", values, no_reset_password=True)

    async def _roles_to_odoo(
        self, user: FileUser, number: int, state: State, devices: Mapping[str, int], existing: set[tuple[Any, Any]]
    ) -> None:
        changed = state.users.get(user.login)
        roles = dict(user.roles)
        for edge_id, text in (changed.grants if changed is not None else {}).items():
            roles[edge_id] = min(roles.get(edge_id, Role.GUEST), Role.parse(text))
        everywhere = roles.pop(ANY_EDGE, None)
        if everywhere is not None and everywhere in GROUPS:
            self.roles += 1
            if not self._dry:
                group = await self._models.reference("openems", GROUPS[everywhere])
                await self._models.write("res.users", number, {"groups_id": [[4, group]]})
        elif everywhere is not None:
            roles = {**dict.fromkeys(devices, everywhere), **roles}
        new = []
        for edge_id, role in roles.items():
            device = devices.get(edge_id)
            if device is None:
                self._say(f"user {user.login}: there is no edge {edge_id}")
            elif (number, device) not in existing or not number or not device:
                new.append({"user_id": number, "device_id": device, "role": role.json})
        await self._create("openems.device_user_role", new)
        self.roles += len(new)

    async def _alerting_to_odoo(
        self, user: FileUser, number: int, state: State, devices: Mapping[str, int], existing: set[tuple[Any, Any]]
    ) -> None:
        delays = {edge_id: (d.offline, d.fault, d.warning) for edge_id, d in user.alerting.items()}
        for edge_id, logins in state.alerting.items():
            if user.login in logins:
                entry = logins[user.login]
                delays[edge_id] = (entry.offline, entry.fault, entry.warning)
        new = []
        for edge_id, (offline, fault, warning) in delays.items():
            device = devices.get(edge_id)
            if device is not None and ((number, device) not in existing or not number or not device):
                values = {"offline_delay": offline, "fault_delay": fault, "warning_delay": warning}
                new.append({"user_id": number, "device_id": device, **values})
        await self._create("openems.alerting", new)
        self.alerting += len(new)

    async def _create(self, model: str, records: list[dict[str, Any]]) -> None:
        for start in range(0, len(records), BATCH):
            if not self._dry:
                await self._models.create_all(model, records[start : start + BATCH])

    # --- out of Odoo

    async def from_odoo(self) -> dict[str, Any]:
        """The document of a metadata file, version 2."""
        names: dict[int, str] = {}
        edges: dict[str, Any] = {}
        fields = ["name", "apikey", "setup_password", "comment", "producttype", "ems_type", "active", "settings"]
        for record in await self._all("openems.device", [*fields, "stock_production_lot_id"]):
            name = str(record["name"])
            names[int(record["id"])] = name
            edge: dict[str, Any] = {
                "comment": text_of(record.get("comment")) or "",
                "apikey": text_of(record.get("apikey")) or "",
                "setuppassword": text_of(record.get("setup_password")) or "",
            }
            optional = {
                "producttype": text_of(record.get("producttype")),
                "emsType": text_of(record.get("ems_type")),
                "settings": settings_of(record.get("settings")),
            }
            edge |= {member: value for member, value in optional.items() if value}
            lot = record.get("stock_production_lot_id")
            if isinstance(lot, list) and len(lot) == 2:
                edge["serialNumber"] = lot[1]
            if record.get("active") is False:
                edge["enabled"] = False
            edges[name] = edge
        self.edges = len(edges)
        return {"version": 2, "edges": edges, "users": await self._users_from_odoo(names)}

    async def _users_from_odoo(self, names: Mapping[int, str]) -> dict[str, Any]:
        roles: dict[int, dict[str, str]] = {}
        for record in await self._all("openems.device_user_role", ["user_id", "device_id", "role"]):
            user, edge = many2one(record.get("user_id")), names.get(many2one(record.get("device_id")) or 0)
            if user is not None and edge is not None:
                roles.setdefault(user, {})[edge] = Role.parse(text_of(record.get("role"))).json
        for role, name in reversed(GROUPS.items()):
            group = await self._models.reference("openems", name)
            for number in await self._models.search("res.users", [["groups_id", "in", [group]]]):
                roles.setdefault(number, {})[ANY_EDGE] = role.json
        alerting: dict[int, dict[str, Any]] = {}
        delays = ["offline_delay", "fault_delay", "warning_delay"]
        for record in await self._all("openems.alerting", ["user_id", "device_id", *delays]):
            user, edge = many2one(record.get("user_id")), names.get(many2one(record.get("device_id")) or 0)
            if user is not None and edge is not None:
                alerting.setdefault(user, {})[edge] = {
                    delay.removesuffix("_delay"): max(0, int(record.get(delay) or 0)) for delay in delays
                }
                self.alerting += 1
        users = {}
        person = ["firstname", "lastname", "email", "phone", "street", "zip", "city", "country_id"]
        fields = ["login", "name", "active", "global_role", "openems_language", "oauth_uid", "settings", *person]
        countries = {int(r["id"]): text_of(r.get("code")) for r in await self._all("res.country", ["code"])}
        for record in await self._all("res.users", [*fields, "commercial_company_name"]):
            number = int(record["id"])
            if number not in roles and number not in alerting and record.get("global_role") in (False, None, "guest"):
                continue
            users[str(record["login"]).strip().lower()] = self._user_from_odoo(
                record, roles.get(number, {}), alerting.get(number, {}), countries
            )
        self.users = len(users)
        return users

    def _user_from_odoo(
        self,
        record: Mapping[str, Any],
        roles: dict[str, str],
        alerting: dict[str, Any],
        countries: Mapping[int, str | None],
    ) -> dict[str, Any]:
        information: dict[str, Any] = {name: text_of(record.get(name)) for name in INFORMATION}
        information["country"] = (countries.get(many2one(record.get("country_id")) or 0) or "").lower()
        information["company"] = text_of(record.get("commercial_company_name"))
        external_id = text_of(record.get("oauth_uid"))
        optional: dict[str, Any] = {
            "externalIds": [external_id] if external_id else None,
            "settings": settings_of(record.get("settings")),
            "information": {name: value for name, value in information.items() if value},
            "alerting": alerting,
        }
        self.roles += len(roles)
        user: dict[str, Any] = {
            "name": text_of(record.get("name")) or str(record["login"]),
            "globalRole": Role.parse(text_of(record.get("global_role"))).json,
            "language": Language.parse(text_of(record.get("openems_language"))).value,
            "roles": roles,
            **{member: value for member, value in optional.items() if value},
        }
        if record.get("active") is False:
            user["enabled"] = False
        return user
