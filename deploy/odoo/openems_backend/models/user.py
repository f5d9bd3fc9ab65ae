import json

from odoo import api, fields, models

LANGUAGES = [(code, code) for code in ("EN", "DE", "CZ", "NL", "ES", "FR")]
ROLES = [("admin", "Admin"), ("installer", "Installer"), ("owner", "Owner"), ("guest", "Guest")]
#: Roles of one user that are told with a login; who has more is asked for by edge.
MAX_ROLES = 1000


class User(models.Model):
    _inherit = "res.users"

    global_role = fields.Selection(ROLES, default="guest", required=True)
    openems_language = fields.Selection(LANGUAGES, default="DE", required=True)
    settings = fields.Text(help="JSON object of the user interface")
    device_role_ids = fields.One2many("openems.device_user_role", "user_id")
    alerting_settings = fields.One2many("openems.alerting", "user_id")

    @api.model_create_multi
    def create(self, vals_list):
        portal = self.env.ref("base.group_portal")
        for vals in vals_list:
            groups = vals.get("groups_id")
            # The Java backend writes a plain list of ids, which are those of another database, or an empty one: without
            # a group a user could read nothing.
            if isinstance(groups, list) and all(isinstance(group, int) for group in groups):
                vals["groups_id"] = [(6, 0, portal.ids)]
            if not vals.get("name"):
                names = [vals.get("firstname"), vals.get("lastname")]
                vals["name"] = " ".join(name for name in names if name) or vals.get("login")
        return super().create(vals_list)

    def _openems_default_role(self):
        """Without a role of his own for a device: a manager is admin, a reader guest, others have none."""
        user = self.sudo()
        if user.has_group("openems_backend.group_openems_manager"):
            return "admin"
        return "guest" if user.has_group("openems_backend.group_openems_reader") else None

    def _openems_role(self, device):
        """The role for one device; one's own record wins, also downwards."""
        own = self.env["openems.device_user_role"].sudo()
        record = own.search([("user_id", "=", self.id), ("device_id", "=", device.id)], limit=1)
        return record.role or self._openems_default_role()

    def _openems_settings(self):
        try:
            value = json.loads(self.settings or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _openems_info(self):
        """Members of ``user`` in the answer of ``info``. ``roles`` is left out where they are too many."""
        user = self.sudo()
        default = user._openems_default_role()
        records = self.env["openems.device_user_role"].sudo().search([("user_id", "=", user.id)], limit=MAX_ROLES + 1)
        info = {
            "id": user.id,
            "login": user.login,
            "name": user.name,
            "language": user.openems_language,
            "global_role": "admin" if default == "admin" else user.global_role,
            "has_multiple_edges": default is not None or len(records) > 1,
            "settings": json.dumps(user._openems_settings()),
            "default_role": default,
        }
        if len(records) <= MAX_ROLES:
            info["roles"] = {record.device_id.name: record.role for record in records}
        return info


class Http(models.AbstractModel):
    _inherit = "ir.http"

    def session_info(self):
        """With it a login tells everything the backend needs to know of the user, in one answer."""
        info = super().session_info()
        info["openems"] = self.env.user._openems_info()
        return info
