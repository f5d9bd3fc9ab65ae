from odoo import fields, models


class OpenemsConfigUpdate(models.Model):
    """Written by the backend, straight into the table."""

    _name = "openems.openemsconfigupdate"
    _description = "Change of an edge's configuration, or a system command"
    _order = "create_date desc"

    device_id = fields.Many2one("openems.device", "Edge", ondelete="cascade", index=True)
    teaser = fields.Text()
    details = fields.Html()
