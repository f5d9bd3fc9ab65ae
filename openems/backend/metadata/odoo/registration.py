"""New users in Odoo (metadata-odoo.md 11.6)."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IAuthUserRegistrationService
from openems.backend.metadata.odoo.partners import Models, Partners
from openems.backend.metadata.odoo.replies import Fault, OdooUnavailable
from openems.backend.metadata.odoo.rpc import SLOW_SECONDS, OdooRpc
from openems.common.errors import OpenemsError, generic
from openems.common.role import Role

SEND_EMAIL = "/openems_backend/sendRegistrationEmail"
PERSON = ("firstname", "lastname", "phone", "address", "company")
#: Seconds before each look whether a user was made although nobody said so.
LOOKS = (1.0, 2.0, 4.0, 8.0, 15.0)
#: Others may not be asked for by strangers (quirk Q6).
ROLES = frozenset({Role.INSTALLER, Role.OWNER, Role.GUEST})


class UserExists(OpenemsError):
    def __init__(self, email: str) -> None:
        super().__init__(1, f"User already exists with email [{email}]")


class Registration:
    """``passwords``: Odoo may keep passwords of users. ``provider_name``: auth.oauth.provider of users who log in
    elsewhere. ``category_module``: where the external ids of partner categories are."""

    _log = Logger()

    def __init__(
        self,
        rpc: OdooRpc,
        models: Models,
        partners: Partners,
        *,
        reactor: Any,
        passwords: bool = True,
        provider_name: str | None = None,
        category_module: str = "fems",
    ) -> None:
        self._rpc = rpc
        self._models = models
        self._partners = partners
        self._reactor = reactor
        self._passwords = passwords
        self._provider_name = provider_name
        self._category_module = category_module
        self._portal: int | None = None

    async def register(self, record: dict[str, Any], oem: str) -> int:
        """Odoo's id of the new user. Raises :class:`UserExists`."""
        text = record.get("role")
        role = Role.OWNER if text is None else Role.__members__.get(str(text).upper())
        if role is None:
            raise generic(f"Role [{str(text)[:40]}] does not exist")
        if role not in ROLES:
            raise generic(f"Registration with Role [{role.name}] is not allowed")
        email = record.get("email")
        if not isinstance(email, str) or not email.strip():
            raise generic("No email specified")
        email = email.strip().lower()
        # Archived users have their login, too.
        domain = [["login", "=", email], ["active", "in", [True, False]]]
        if await self._models.search("res.users", domain):
            raise UserExists(email)
        person: dict[str, Any] = {"email": email}
        for name in PERSON:
            if name in record:
                person[name] = record[name]
        values = await self._partners.values(person)
        values |= {"login": email, "global_role": role.json}
        password = record.get("password") if isinstance(record.get("password"), str) else None
        if password and self._passwords:
            values["password"] = password
        if isinstance(record.get("oauthUid"), str):
            values["oauth_uid"] = record["oauthUid"]
        if "oauthProviderId" in record and self._provider_name is not None:
            found = await self._models.search("auth.oauth.provider", [["name", "=", self._provider_name]])
            if len(found) != 1:
                raise generic(f"OAuth Provider not found for name [{self._provider_name}]")
            values["oauth_provider_id"] = found[0]
        try:
            number = await self._create(values, email)
        except OdooUnavailable as e:
            number = await self._look_for(values, e)
        include = record.get("includePasswordInRegistrationEmail") is True
        await self._tag(number, role, include)
        await self._mail(number, password if include else None, oem)
        return number

    async def _create(self, values: dict[str, Any], email: str) -> int:
        groups = [[6, 0, [await self._portal_group()]]]
        # Odoo's own invitation would come beside our mail.
        quiet = {"no_reset_password": True}
        try:
            return await self._models.create("res.users", {**values, "groups_id": groups}, **quiet)
        except Fault as e:
            # Odoo 18.2 renamed the field.
            if "Invalid field 'groups_id'" in e.text:
                return await self._models.create("res.users", {**values, "group_ids": groups}, **quiet)
            if "res_users_login_key" in e.text or "same login" in e.text:
                raise UserExists(email) from None
            raise

    async def _look_for(self, values: dict[str, Any], unclear: OdooUnavailable) -> int:
        """The answer was lost, but the user may have been made: whoever gave up now would leave a login that nobody can
        register any more. Only of users who log in elsewhere: their ``oauth_uid`` says that it is this very one."""
        if unclear.sent and "oauth_uid" in values:
            domain = [["login", "=", values["login"]], ["oauth_uid", "=", values["oauth_uid"]]]
            for seconds in LOOKS:
                await deferLater(self._reactor, seconds)
                try:
                    found = await self._models.search("res.users", domain)
                except OdooUnavailable:
                    continue
                if found:
                    self._log.info("Odoo user id [{number}] was made, though its answer was lost", number=found[0])
                    return found[0]
            self._log.error(
                "Odoo may have a user with oauth_uid [{uid}] whose registration failed, remove it: {reason}",
                uid=values["oauth_uid"],
                reason=unclear.reason,
            )
        raise unclear

    async def _portal_group(self) -> int:
        if self._portal is None:
            self._portal = await self._models.reference("base", "group_portal")
        return self._portal

    async def _tag(self, number: int, role: Role, by_installer: bool) -> None:
        names = ["res_partner_category_customer"] if role is Role.OWNER else []
        if by_installer:
            names.append("res_partner_category_created_via_ibn")
        if not names:
            return
        try:
            ids = [await self._models.reference(self._category_module, name) for name in names]
            partner = await self._partners.of_user(number)
            await self._models.write("res.partner", partner, {"category_id": [[6, 0, ids]]})
        except OpenemsError as e:
            self._log.warn("Unable to add tag for Odoo user id [{number}]: {reason}", number=number, reason=e.message)

    async def _mail(self, number: int, password: str | None, oem: str) -> None:
        params = {"userId": number, "password": password, "oem": oem}
        try:
            await self._rpc.call(SEND_EMAIL, params, timeout=SLOW_SECONDS)
        except OpenemsError as e:
            self._log.warn(
                "Unable to send registration mail for Odoo user id [{number}]: {reason}",
                number=number,
                reason=e.message,
            )


@implementer(IAuthUserRegistrationService)
class OdooRegistration:
    """Registration of users who log in with Odoo's own passwords. ``strangers``: anybody may; else only installers
    register their customers."""

    def __init__(self, registration: Registration, *, strangers: bool = True, oem: str = "openems") -> None:
        self._registration = registration
        self._strangers = strangers
        self._oem = oem

    async def register_user(self, record: dict[str, Any]) -> None:
        if not self._strangers:
            raise generic("Registration is not available on this server")
        await self._registration.register(record, self._oem)

    async def register_user_if_not_exist(self, record: dict[str, Any]) -> None:
        try:
            await self._registration.register(record, self._oem)
        except UserExists:
            pass
