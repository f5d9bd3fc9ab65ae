"""``appCenter`` requests (wire.md 6.12, core.md 3.6)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core.appcenter import handle_edge_request, handle_user_request
from openems.backend.models import User
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Request, new_id, raw
from openems.common.methods import names
from openems.testing.services import now_of

USER = User(id="jane", user_id="7", name="Jane")
INSTANCE = new_id()


class Apps:
    """Remembers every call; ``answers`` by method."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            return f"answer of {name}"

        return call


class AppCenter(SynchronousTestCase):
    def setUp(self) -> None:
        self.apps = Apps()

    def edge(self, method: str, **params: Any) -> Any:
        inner = {"jsonrpc": "2.0", "id": new_id(), "method": method, "params": params}
        return now_of(handle_edge_request(self.apps, "edge0", Request("appCenter", raw({"payload": inner}), new_id())))

    def user(self, method: str, **params: Any) -> Any:
        return now_of(handle_user_request(self.apps, "edge0", USER, Request(method, raw(params), new_id())))

    def test_of_edges(self) -> None:
        self.assertEqual(self.edge("getInstalledApps"), {"installedApps": "answer of get_installed_apps"})
        self.assertEqual(self.edge("getPossibleApps", key="k"), {"bundles": "answer of get_possible_apps"})
        self.assertEqual(self.edge("addInstallInstanceHistory", key="k", appId="a", instanceId=INSTANCE), {})
        self.assertEqual(self.edge("addDeinstallInstanceHistory", appId="a", instanceId=INSTANCE, userId="u"), {})
        self.assertEqual(
            self.apps.calls[2:],
            [
                ("add_install_app_instance_history", "k", "edge0", "a", INSTANCE, None),
                ("add_deinstall_app_instance_history", "edge0", "a", INSTANCE, "u"),
            ],
        )

    def test_of_users(self) -> None:
        self.assertEqual(self.user("isKeyApplicable", key="k", appId="a"), "answer of is_key_applicable")
        self.assertEqual(self.user("getRegisteredKeys"), {"keys": "answer of get_registered_keys"})
        self.assertEqual(self.user("isAppFree", appId="a"), {"isAppFree": "answer of is_app_free"})
        self.assertEqual(self.user("addRegisterKeyHistory", key="k"), {})
        self.assertEqual(self.user("addUnregisterKeyHistory", key="k"), {})
        self.assertEqual(self.apps.calls[-1], ("add_unregister_key_history", "edge0", None, "k", USER))

    def test_errors(self) -> None:
        for ask, code in (
            (lambda: self.edge("foo"), 4001),
            (lambda: self.edge("getPossibleApps"), 5010),
            (lambda: self.edge("addDeinstallInstanceHistory", appId="a", instanceId="x"), 5033),
            (lambda: self.user("isAppFree"), 5010),
        ):
            self.assertEqual(self.assertRaises(OpenemsError, ask).code, code)
        self.assertEqual(self.apps.calls, [])
        for method in names.APP_CENTER:
            request = Request(method, raw({"key": "k", "appId": "a"}), new_id())
            error = self.assertRaises(OpenemsError, now_of, handle_user_request(None, "edge0", USER, request))
            self.assertEqual(error.message, "No AppCenter Metadata provided.")
