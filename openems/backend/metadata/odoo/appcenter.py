"""The App Center of Odoo (metadata-odoo.md 11.13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from openems.backend.interfaces import IAppCenterMetadata
from openems.backend.metadata.odoo.rpc import OdooRpc
from openems.backend.models import User
from openems.backend.roles import assert_role
from openems.common import errors
from openems.common.errors import OpenemsError, json_text, short
from openems.common.jsonrpc import Members
from openems.common.role import Role

BASE = "/openems_app_center/"
MASTER_KEY = "DUMMY_MASTER_KEY"
FREE_APPS = frozenset(
    {
        "App.Hardware.KMtronic8Channel",
        "App.Cloud.Clever-PV",
        "App.Prediction.Weather",
        "App.Meter.Shelly",
        "App.Evse.ElectricVehicle.Generic",
    }
)


@implementer(IAppCenterMetadata)
class OdooAppCenter:
    """``role(user, edge id)`` as in IMetadata; ``master_key`` opens every app for an installer of the edge."""

    def __init__(self, rpc: OdooRpc, *, role: Callable[[User, str], Role | None], master_key: str = MASTER_KEY) -> None:
        self._rpc = rpc
        self._role = role
        self._master_key = master_key

    async def _call(self, route: str, **params: Any) -> dict[str, Any]:
        """Arguments that are None are left out. 5002 for an answer that is no object."""
        answer = await self._rpc.call(BASE + route, {name: v for name, v in params.items() if v is not None})
        if not isinstance(answer, dict):
            raise OpenemsError(errors.JSON_NO_OBJECT, short(json_text(answer), 100))
        return answer

    async def is_key_applicable(self, key: str, edge_id: str, app_id: str | None) -> dict[str, Any]:
        answer = await self._call("is_key_applicable", key=key, edgeId=edge_id, appId=app_id)
        more = Members(Members(answer).object("additionalInfo"))
        return {
            "isKeyApplicable": answer.get("isKeyApplicable") is True,
            "additionalInfo": {
                "keyId": more.string("keyId"),
                **{name: more.array(name) for name in ("bundles", "registrations", "usages")},
            },
        }

    async def get_possible_apps(self, key: str, edge_id: str) -> list[Any]:
        return Members(await self._call("get_possible_apps", key=key, edgeId=edge_id)).array("bundles")

    async def add_install_app_instance_history(
        self, key: str, edge_id: str, app_id: str, instance_id: str, user_id: str | None
    ) -> None:
        await self._call(
            "add_install_app_instance_history",
            key=key,
            edgeId=edge_id,
            appId=app_id,
            instanceId=instance_id,
            userId=user_id,
        )

    async def add_deinstall_app_instance_history(
        self, edge_id: str, app_id: str, instance_id: str, user_id: str | None
    ) -> None:
        await self._call(
            "add_deinstall_app_instance_history", edgeId=edge_id, appId=app_id, instanceId=instance_id, userId=user_id
        )

    async def get_installed_apps(self, edge_id: str) -> list[Any]:
        return Members(await self._call("get_installed_apps", edgeId=edge_id)).array("installedApps")

    async def add_register_key_history(self, edge_id: str, app_id: str | None, key: str, user: User) -> None:
        self._may(user, edge_id, "addRegisterKeyHistory")
        await self._call("add_register_key_history", edgeId=edge_id, key=key, appId=app_id, userId=user.id)

    async def add_unregister_key_history(self, edge_id: str, app_id: str | None, key: str, user: User) -> None:
        self._may(user, edge_id, "addUnregisterKeyHistory")
        # Here, and only here, the argument is called ``user`` (quirk Q25).
        await self._call("add_deregister_key_history", edgeId=edge_id, key=key, appId=app_id, user=user.id)

    async def get_registered_keys(self, edge_id: str, app_id: str | None) -> list[Any]:
        keys = (await self._call("get_registered_key", edgeId=edge_id, appId=app_id)).get("keys")
        return keys if isinstance(keys, list) else []

    async def get_suppliable_key(self, user: User, edge_id: str, app_id: str) -> str:
        if app_id not in FREE_APPS:
            assert_role(self._role(user, edge_id), user, Role.INSTALLER, "PredefinedKey")
        return self._master_key

    async def is_app_free(self, user: User, app_id: str) -> bool:
        return app_id in FREE_APPS

    def _may(self, user: User, edge_id: str, resource: str) -> None:
        """Keys are registered by owners and installers, not by guests (quirk Q38)."""
        assert_role(self._role(user, edge_id), user, Role.OWNER, resource)
