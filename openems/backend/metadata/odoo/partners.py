"""People and companies in Odoo: what the backend writes about them, and reads (metadata-odoo.md 11.5).

Absent members stay as they are, null clears, as with the other metadata.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from openems.backend.metadata.odoo.replies import MARSHAL, Fault, many2one, text_of
from openems.backend.metadata.odoo.rpc import SLOW_SECONDS, OdooRpc
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import dumps

READ = "Unable to read from Odoo"
SEARCH = "Unable to search from Odoo"
WRITE = "Unable to write to Odoo"
#: Characters of one text.
MAX_TEXT = 1_000
PERSON = ("firstname", "lastname", "email", "phone")
ADDRESS = ("street", "zip", "city")


class Models:
    """The calls of XML-RPC by what they do (8); errors are code 1 and name what failed."""

    def __init__(self, rpc: OdooRpc) -> None:
        self._rpc = rpc

    async def search(self, model: str, domain: list[Any]) -> list[int]:
        found = await self._rpc.execute(SEARCH, model, "search", [domain], {})
        return [number for number in found if isinstance(number, int)] if isinstance(found, list) else []

    async def search_read(self, model: str, domain: list[Any], fields: list[str], **more: Any) -> list[dict[str, Any]]:
        found = await self._rpc.execute(READ, model, "search_read", [domain], {"fields": fields, **more})
        return [record for record in found if isinstance(record, dict)] if isinstance(found, list) else []

    async def read_one(self, model: str, number: int, fields: list[str]) -> dict[str, Any]:
        found = await self._rpc.execute(READ, model, "read", [number], {"fields": fields})
        if not isinstance(found, list) or not found or not isinstance(found[0], dict):
            raise generic(f"{READ}: No matching entry found for id [{number}]")
        record: dict[str, Any] = found[0]
        return record

    async def create(self, model: str, values: dict[str, Any], **context: Any) -> int:
        """``context`` is Odoo's, for what it does beside creating."""
        options = {"context": context} if context else None
        number = await self._rpc.execute(WRITE, model, "create", [values], options)
        if not isinstance(number, int) or isinstance(number, bool):
            raise generic(f"{WRITE}: no id was returned")
        return number

    async def create_all(self, model: str, records: list[dict[str, Any]]) -> list[int]:
        """Several at once, all or none; their ids in the same order."""
        numbers = await self._rpc.execute(WRITE, model, "create", [records], timeout=SLOW_SECONDS)
        if not isinstance(numbers, list) or len(numbers) != len(records):
            raise generic(f"{WRITE}: no ids were returned")
        return [int(number) for number in numbers]

    async def fields(self, model: str) -> set[str]:
        """The names of its fields."""
        found = await self._rpc.execute(READ, model, "fields_get", [], {"attributes": ["type"]})
        return set(found) if isinstance(found, dict) else set()

    async def write(self, model: str, number: int, values: dict[str, Any]) -> None:
        """The fault of an answer that could not be sent is none: the work was done (T075)."""
        try:
            done = await self._rpc.execute(WRITE, model, "write", [[number], values])
        except Fault as e:
            if MARSHAL in e.text:
                return
            raise
        if done is False:
            raise generic(f"{WRITE}: Returned False.")

    async def reference(self, module: str, name: str) -> int:
        found = await self._rpc.execute(READ, "ir.model.data", "check_object_reference", [module, name])
        number = found[1] if isinstance(found, list) and len(found) == 2 else None
        if not isinstance(number, int):
            raise generic(f"{READ}: No matching entry found for module [{module}] and name [{name}]")
        return number


class Partners:
    _log = Logger()

    def __init__(self, models: Models) -> None:
        self._models = models
        self._has_names: bool | None = None

    async def _names(self) -> bool:
        """Whether partners have first and last names: Odoo itself knows one name only."""
        if self._has_names is None:
            self._has_names = "firstname" in await self._models.fields("res.partner")
        return self._has_names

    async def of_user(self, odoo_id: int) -> int:
        record = await self._models.read_one("res.users", odoo_id, ["partner_id"])
        partner = many2one(record.get("partner_id"))
        if partner is None:
            raise generic(f"Odoo partner not found for user [{odoo_id}]")
        return partner

    async def information(self, odoo_id: int) -> dict[str, Any]:
        """The ``user`` member of getUserInformation."""
        partner = await self.of_user(odoo_id)
        names = ["firstname", "lastname"] if await self._names() else ["name"]
        fields = [*names, "email", "phone", *ADDRESS, "country_id", "commercial_company_name"]
        record = await self._models.read_one("res.partner", partner, fields)
        record.setdefault("lastname", record.get("name"))
        country = many2one(record.get("country_id"))
        code = None
        if country is not None:
            code = text_of((await self._models.read_one("res.country", country, ["code"])).get("code"))
        return {
            **{name: text_of(record.get(name)) for name in PERSON},
            "address": {
                **{name: text_of(record.get(name)) for name in ADDRESS},
                "country": None if code is None else code.lower(),
            },
            "company": {"name": text_of(record.get("commercial_company_name"))},
        }

    async def set_information(self, odoo_id: int, information: dict[str, Any]) -> None:
        partner = await self.of_user(odoo_id)
        values = await self.values(information, partner)
        if values:
            await self._models.write("res.partner", partner, values)

    async def values(self, person: dict[str, Any], partner: int | None = None) -> dict[str, Any]:
        """Fields of res.partner. ``partner``: whose company is compared, so that an unchanged one is left alone."""
        values: dict[str, Any] = {name: _text(person, name) for name in PERSON if name in person}
        if isinstance(values.get("email"), str):
            values["email"] = values["email"].lower()
        if ("firstname" in values or "lastname" in values) and not await self._names():
            name = " ".join(str(part) for part in (values.pop("firstname", ""), values.pop("lastname", "")) if part)
            if name:
                values["name"] = name
        address = person.get("address")
        if isinstance(address, dict):
            values["type"] = "contact"
            values |= {name: _text(address, name) for name in ADDRESS if name in address}
            country = _text(address, "country") if "country" in address else None
            if country is False:
                values["country_id"] = False
            elif country:
                found = await self._models.search("res.country", [["code", "=", str(country).upper()]])
                if len(found) == 1:
                    values["country_id"] = found[0]
                else:
                    self._log.warn("Country with code {code!r} not found", code=str(country)[:20])
        company = person.get("company")
        firm = _text(company, "name") if isinstance(company, dict) and "name" in company else False
        if firm:
            parent = await self._company(str(firm), partner)
            if parent is not None:
                values["parent_id"] = parent
        return values

    async def _company(self, name: str, partner: int | None) -> int | None:
        if partner is not None:
            record = await self._models.read_one("res.partner", partner, ["commercial_company_name"])
            if record.get("commercial_company_name") == name:
                return None
        domain = [["is_company", "=", True], ["commercial_company_name", "=", name]]
        found = await self._models.search("res.partner", domain)
        return found[0] if found else await self._models.create("res.partner", {"is_company": True, "name": name})


def _text(source: dict[str, Any], name: str) -> str | bool:
    """The text; False, Odoo's word for "not set", for null. 5010 for anything else."""
    value = source.get(name)
    if value is None:
        return False
    if not isinstance(value, str):
        raise OpenemsError(errors.JSON_NO_STRING_MEMBER, name, dumps(source).decode()[:200])
    if len(value) > MAX_TEXT:
        raise generic(f"[{name}] may not be longer than {MAX_TEXT} characters")
    return value
