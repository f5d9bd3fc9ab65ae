"""The App Center of the providers without one: every key is good, nothing is remembered (metadata.md 16.4)."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from openems.backend.interfaces import IAppCenterMetadata
from openems.backend.models import User

#: The key that stands for "no key needed".
FREE_KEY = "0000-0000-0000-0000"
_APP = "App.Evcs.Keba"


@implementer(IAppCenterMetadata)
class AppCenterMetadata:
    async def is_key_applicable(self, key: str, edge_id: str, app_id: str | None) -> dict[str, Any]:
        return {
            "isKeyApplicable": True,
            "additionalInfo": {
                "keyId": key,
                "bundles": [[{"appId": app_id or _APP}]],
                "registrations": [],
                "usages": [],
            },
        }

    async def get_possible_apps(self, key: str, edge_id: str) -> list[Any]:
        return [[]] if key == FREE_KEY else [[{"appId": _APP}]]

    async def add_install_app_instance_history(
        self, key: str, edge_id: str, app_id: str, instance_id: str, user_id: str | None
    ) -> None:
        return None

    async def add_deinstall_app_instance_history(
        self, edge_id: str, app_id: str, instance_id: str, user_id: str | None
    ) -> None:
        return None

    async def get_installed_apps(self, edge_id: str) -> list[Any]:
        return []

    async def add_register_key_history(self, edge_id: str, app_id: str | None, key: str, user: User) -> None:
        return None

    async def add_unregister_key_history(self, edge_id: str, app_id: str | None, key: str, user: User) -> None:
        return None

    async def get_registered_keys(self, edge_id: str, app_id: str | None) -> list[Any]:
        return [{"keyId": FREE_KEY, "bundles": [[{"id": 1, "appId": _APP}]]}]

    async def get_suppliable_key(self, user: User, edge_id: str, app_id: str) -> str:
        return FREE_KEY

    async def is_app_free(self, user: User, app_id: str) -> bool:
        return True
