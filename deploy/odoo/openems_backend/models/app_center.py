import json

from odoo import _, api, fields, models
from odoo.exceptions import ValidationError


class AppKey(models.Model):
    """A key opens bundles of apps; it is registered at an edge before apps are installed with it."""

    _name = "openems.app_key"
    _description = "Key of the App Center"

    name = fields.Char("Key", required=True, copy=False)
    bundles = fields.Text(default="[[]]", required=True, help='JSON: [[{"appId": "App.Meter.Socomec"}]]')
    edges = fields.Integer("Number of edges it may be registered at", default=1)

    _sql_constraints = [("unique_name", "unique(name)", "There is such a key already.")]

    @api.constrains("bundles")
    def _check_bundles(self):
        for key in self:
            try:
                value = json.loads(key.bundles)
            except ValueError:
                value = None
            if not isinstance(value, list) or not all(
                isinstance(bundle, list) and all(isinstance(app, dict) and "appId" in app for app in bundle)
                for bundle in value
            ):
                raise ValidationError(_('Bundles are a JSON list of lists of {"appId": "..."}'))


class AppHistory(models.Model):
    """What happened, in order; what is registered and installed now follows from it."""

    _name = "openems.app_history"
    _description = "History of the App Center"
    _order = "id"

    kind = fields.Selection(
        [
            ("register", "Key registered"),
            ("deregister", "Key unregistered"),
            ("install", "App installed"),
            ("deinstall", "App removed"),
        ],
        required=True,
    )
    device_id = fields.Many2one("openems.device", "Edge", required=True, ondelete="cascade", index=True)
    key = fields.Char(index=True)
    app_id = fields.Char("App")
    instance_id = fields.Char("Instance")
    user_login = fields.Char("User")

    @api.model
    def _left(self, domain, added, removed, identity):
        """Records of the kind ``added`` that no later one ``removed`` took back; by what ``identity`` says is one."""
        left = {}
        for record in self.search(domain + [("kind", "in", [added, removed])]):
            if record.kind == added:
                left[identity(record)] = record
            else:
                left.pop(identity(record), None)
        return list(left.values())

    @api.model
    def registrations(self, domain):
        return self._left(domain, "register", "deregister", lambda r: (r.device_id.id, r.key, r.app_id or ""))

    @api.model
    def installed(self, domain):
        return self._left(domain, "install", "deinstall", lambda r: (r.device_id.id, r.instance_id))
