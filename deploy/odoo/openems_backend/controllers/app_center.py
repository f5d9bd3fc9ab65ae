import json

from odoo import http

from .acting import as_manager, device_of


class AppCenter(http.Controller):
    """Who may do this for which edge is decided by the backend."""

    @http.route("/openems_app_center/is_key_applicable", type="json", auth="user")
    def is_key_applicable(self, key=None, edgeId=None, appId=None):
        """A key that exists, is registered at this edge or may be registered at one more, and opens ``appId``."""
        env = as_manager()
        device = device_of(edgeId)
        record = self._key(env, key)
        bundles = self._bundles(record)
        registrations = env["openems.app_history"].registrations([("key", "=", key)]) if record else []
        edges = {registration.device_id for registration in registrations}
        opens = appId is None or any(app["appId"] == appId for bundle in bundles for app in bundle)
        free = device in edges or len(edges) < record.edges
        return {
            "isKeyApplicable": bool(record) and opens and free,
            "additionalInfo": {
                "keyId": key,
                "bundles": bundles,
                "registrations": [
                    dict({"edgeId": r.device_id.name}, **({"appId": r.app_id} if r.app_id else {}))
                    for r in registrations
                ],
                "usages": self._usages(env, key) if record else [],
            },
        }

    @http.route("/openems_app_center/get_possible_apps", type="json", auth="user")
    def get_possible_apps(self, key=None, edgeId=None):
        env = as_manager()
        device_of(edgeId)
        return {"bundles": self._bundles(self._key(env, key))}

    @http.route("/openems_app_center/get_registered_key", type="json", auth="user")
    def get_registered_key(self, edgeId=None, appId=None):
        env = as_manager()
        found = env["openems.app_history"].registrations([("device_id", "=", device_of(edgeId).id)])
        keys = []
        for key in sorted({record.key for record in found if appId is None or record.app_id in (False, appId)}):
            bundles = self._bundles(self._key(env, key))
            if appId is None or any(app["appId"] == appId for bundle in bundles for app in bundle):
                keys.append({"keyId": key, "bundles": bundles})
        return {"keys": keys}

    @http.route("/openems_app_center/get_installed_apps", type="json", auth="user")
    def get_installed_apps(self, edgeId=None):
        found = as_manager()["openems.app_history"].installed([("device_id", "=", device_of(edgeId).id)])
        return {"installedApps": [{"appId": record.app_id, "instanceId": record.instance_id} for record in found]}

    @http.route("/openems_app_center/add_install_app_instance_history", type="json", auth="user")
    def add_install(self, key=None, edgeId=None, appId=None, instanceId=None, userId=None):
        return self._add("install", edgeId, key=key, app_id=appId, instance_id=instanceId, user_login=userId)

    @http.route("/openems_app_center/add_deinstall_app_instance_history", type="json", auth="user")
    def add_deinstall(self, edgeId=None, appId=None, instanceId=None, userId=None):
        return self._add("deinstall", edgeId, app_id=appId, instance_id=instanceId, user_login=userId)

    @http.route("/openems_app_center/add_register_key_history", type="json", auth="user")
    def add_register(self, edgeId=None, key=None, appId=None, userId=None):
        return self._add("register", edgeId, key=key, app_id=appId, user_login=userId)

    @http.route("/openems_app_center/add_deregister_key_history", type="json", auth="user")
    def add_deregister(self, edgeId=None, key=None, appId=None, user=None):
        return self._add("deregister", edgeId, key=key, app_id=appId, user_login=user)

    @staticmethod
    def _add(kind, edge_id, **values):
        as_manager()["openems.app_history"].create(dict(values, kind=kind, device_id=device_of(edge_id).id))
        return {}

    @staticmethod
    def _key(env, key):
        return env["openems.app_key"].search([("name", "=", key)], limit=1) if key else env["openems.app_key"]

    @staticmethod
    def _bundles(record):
        return json.loads(record.bundles) if record else []

    @staticmethod
    def _usages(env, key):
        counts = {}
        for record in env["openems.app_history"].installed([("key", "=", key)]):
            counts[record.app_id] = counts.get(record.app_id, 0) + 1
        return [{"appId": app, "installedInstances": count} for app, count in sorted(counts.items())]
