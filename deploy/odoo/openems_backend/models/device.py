import re
import secrets
import string

from odoo import _, api, fields, models
from odoo.exceptions import UserError

LETTERS = string.ascii_letters + string.digits
CAPITALS = string.ascii_uppercase + string.digits
#: Fields for managers only.
SECRETS = ("apikey", "setup_password")
EDGE = re.compile(r"edge([0-9]{1,9})\Z")


class Device(models.Model):
    """An edge. Columns that the backend writes by SQL: openems_is_connected, lastmessage, openems_sum_state_level,
    openems_version, producttype, openems_config, openems_config_components. No stored field may depend on them."""

    _name = "openems.device"
    _description = "OpenEMS Edge"
    _inherit = ["mail.thread"]
    _order = "name_number asc, id asc"

    name = fields.Char("Edge-ID", required=True, copy=False)
    active = fields.Boolean(default=True)
    comment = fields.Char()
    producttype = fields.Char("Product type")
    ems_type = fields.Char("EMS type")
    oem = fields.Char(default="openems")
    openems_version = fields.Char("Version", tracking=True)
    openems_config = fields.Text("Configuration", copy=False)
    openems_config_components = fields.Text("Components", copy=False)
    openems_is_connected = fields.Boolean("Online", copy=False)
    openems_sum_state_level = fields.Selection(
        [("ok", "Ok"), ("info", "Info"), ("warning", "Warning"), ("fault", "Fault")], "State", copy=False
    )
    lastmessage = fields.Datetime("Last message", copy=False)
    settings = fields.Text(help="JSON object of the user interface", copy=False)
    # Whoever has these two is the edge, or its installer.
    apikey = fields.Char("API key", required=True, copy=False, groups="openems_backend.group_openems_manager")
    setup_password = fields.Char(copy=False, groups="openems_backend.group_openems_manager")
    stock_production_lot_id = fields.Many2one("stock.lot", "Serial number", copy=False)
    manual_setup_date = fields.Datetime("Set up on, by hand")
    first_setup_protocol_date = fields.Datetime("Set up on", compute="_compute_first_setup_protocol_date")
    name_number = fields.Integer(compute="_compute_name_number", store=True, index=True)
    user_role_ids = fields.One2many("openems.device_user_role", "device_id", "Roles")
    alerting_settings = fields.One2many("openems.alerting", "device_id", "Alerting")
    setup_protocol_ids = fields.One2many("openems.setup_protocol", "device_id", "Setup protocols")
    openems_config_update_ids = fields.One2many("openems.openemsconfigupdate", "device_id", "Changes")

    # They come with an index each: the backend finds edges by all three.
    _sql_constraints = [
        ("unique_name", "unique(name)", "There is an edge of this name already."),
        ("unique_apikey", "unique(apikey)", "Another edge has this API key."),
        ("unique_setup_password", "unique(setup_password)", "Another edge has this setup password."),
        ("unique_lot", "unique(stock_production_lot_id)", "Another edge has this serial number."),
    ]

    @api.depends("name")
    def _compute_name_number(self):
        for device in self:
            match = EDGE.match(device.name or "")
            device.name_number = int(match.group(1)) if match else -1

    @api.depends("manual_setup_date", "setup_protocol_ids.type")
    def _compute_first_setup_protocol_date(self):
        """Set by hand, else the oldest protocol of a set-up; extensions do not count."""
        for device in self:
            dates = [
                protocol.create_date
                for protocol in device.sudo().setup_protocol_ids
                if protocol.type in (False, "setup-protocol") and protocol.create_date
            ]
            device.first_setup_protocol_date = device.manual_setup_date or (min(dates) if dates else False)

    @api.model_create_multi
    def create(self, vals_list):
        for vals in vals_list:
            if not vals.get("apikey"):
                vals["apikey"] = self._new("apikey", lambda: "".join(secrets.choice(LETTERS) for _i in range(20)))
            if not vals.get("setup_password"):
                vals["setup_password"] = self._new("setup_password", self._random_setup_password)
        return super().create(vals_list)

    def write(self, vals):
        if "name" in vals and any(device.name != vals["name"] for device in self):
            raise UserError(_("The name of an edge cannot be changed: its history is kept under it."))
        return super().write(vals)

    # Odoo 14 guards fields with groups where they are read, but not where they are searched, grouped or ordered by:
    # that tells them, too, if only letter by letter. Paths from other models lead here as well.

    @api.model
    def _where_calc(self, domain, active_test=True):
        for term in domain or []:
            if isinstance(term, (list, tuple)) and term:
                self._check_secret(str(term[0]).split(".")[0])
        return super()._where_calc(domain, active_test=active_test)

    @api.model
    def _inherits_join_calc(self, alias, fname, query):
        self._check_secret(fname)
        return super()._inherits_join_calc(alias, fname, query)

    def _check_secret(self, name):
        if name in SECRETS and not self.env.su:
            self.check_field_access_rights("read", [name])

    def _fill_secrets(self):
        for device in self.filtered(lambda device: not device.setup_password):
            device.setup_password = self._new("setup_password", self._random_setup_password)

    @staticmethod
    def _random_setup_password():
        return "-".join("".join(secrets.choice(CAPITALS) for _i in range(4)) for _j in range(4))

    def _new(self, field, make):
        while True:
            value = make()
            if not self.sudo().with_context(active_test=False).search_count([(field, "=", value)]):
                return value
