import json
import re

from odoo import fields, http
from odoo.osv import expression

from .acting import OpenemsException, acting_user, as_manager

#: By severity; an edge without a state counts as Ok. The column is text and would sort by alphabet.
SEVERITY = """CASE coalesce("openems_device"."openems_sum_state_level", 'ok')
    WHEN 'fault' THEN 3 WHEN 'warning' THEN 2 WHEN 'info' THEN 1 ELSE 0 END"""
ORDER = {
    "id": '"openems_device"."name_number"',
    "comment": 'coalesce("openems_device"."comment", \'\')',
    "sumState": SEVERITY,
}
LAST = '"openems_device"."name_number", "openems_device"."id"'
MAX_LIMIT = 1000


class OpenemsBackend(http.Controller):
    @http.route("/openems_backend/info", type="json", auth="user")
    def info(self, external_uid=None):
        return {"user": acting_user(external_uid)._openems_info(), "devices": []}

    @http.route("/openems_backend/get_edges", type="json", auth="user")
    def get_edges(self, external_uid=None, page=0, limit=20, query=None, searchParams=None):
        user = acting_user(external_uid)
        # With the user's own rights: which devices there are for him is said by the record rules alone.
        devices = user.env["openems.device"].with_user(user)
        domain = self._domain(query, searchParams or {})
        found = devices._where_calc(domain)
        devices._apply_ir_rules(found, "read")
        tables, where, params = found.get_sql()
        text = 'SELECT "openems_device"."id" FROM %s %s ORDER BY %s LIMIT %%s OFFSET %%s' % (
            tables,
            "WHERE " + where if where else "",
            self._order(searchParams or {}),
        )
        limit = max(1, min(int(limit), MAX_LIMIT))
        user.env["openems.device"].flush()
        user.env.cr.execute(text, params + [limit, max(0, int(page)) * limit])
        ids = [row[0] for row in user.env.cr.fetchall()]
        return {"devices": self._shapes(user, ids)}

    @http.route("/openems_backend/get_edge_with_role", type="json", auth="user")
    def get_edge_with_role(self, external_uid=None, edge_id=None):
        user = acting_user(external_uid)
        found = user.env["openems.device"].with_user(user).search([("name", "=", edge_id)], limit=1)
        shapes = self._shapes(user, found.ids)
        return shapes[0] if shapes else {}

    @http.route("/openems_backend/set_user_settings", type="json", auth="user")
    def set_user_settings(self, userId=None, settings=None):
        env = as_manager()
        user = env["res.users"].search([("login", "=", userId)], limit=1) if userId else env["res.users"]
        if not user:
            raise OpenemsException("User not found")
        if not isinstance(settings, dict):
            raise OpenemsException("Settings are no object")
        merged = dict(user._openems_settings(), **settings)
        user.settings = json.dumps(merged)
        return {"status": "success", "settings": merged}

    @staticmethod
    def _domain(query, search):
        domains = []
        if query:
            # Text, no pattern.
            query = re.sub(r"([\\%_])", r"\\\1", str(query))
            domains.append(expression.OR([[(name, "ilike", query)] for name in ("name", "comment", "producttype")]))
        if search.get("producttype"):
            domains.append([("producttype", "in", search["producttype"])])
        if search.get("sumState"):
            states = [state.lower() for state in search["sumState"]]
            # No state counts as Ok.
            domains.append([("openems_sum_state_level", "in", states + ([False] if "ok" in states else []))])
        if search.get("isOnline") is not None:
            domains.append([("openems_is_connected", "=", bool(search["isOnline"]))])
        return expression.AND(domains) if domains else []

    @staticmethod
    def _order(search):
        parts = []
        for item in search.get("orderState") or []:
            column = ORDER.get(item.get("field"))
            if column is not None:
                parts.append(column + (" DESC" if str(item.get("sortOrder")).upper() == "DESC" else " ASC"))
        return ", ".join(parts + [LAST])

    @staticmethod
    def _shapes(user, ids):
        env = user.env(su=True)
        default = user._openems_default_role()
        records = env["openems.device_user_role"].search([("user_id", "=", user.id), ("device_id", "in", ids)])
        roles = {record.device_id.id: record.role for record in records}
        shapes = []
        for device in env["openems.device"].browse(ids):
            shape = {
                "id": device.id,
                "name": device.name,
                "comment": device.comment or "",
                "producttype": device.producttype or "",
                "role": roles.get(device.id) or default or "guest",
                "lastmessage": fields.Datetime.to_string(device.lastmessage) if device.lastmessage else None,
                "openems_sum_state_level": device.openems_sum_state_level or "ok",
            }
            if device.first_setup_protocol_date:
                shape["first_setup_protocol_date"] = fields.Datetime.to_string(device.first_setup_protocol_date)
            try:
                settings = json.loads(device.settings or "null")
            except ValueError:
                settings = None
            if isinstance(settings, dict):
                shape["settings"] = settings
            shapes.append(shape)
        return shapes
