from odoo import api, fields, models


class Alerting(models.Model):
    _name = "openems.alerting"
    _description = "When a user is told about an edge"

    device_id = fields.Many2one("openems.device", "Edge", required=True, ondelete="cascade", index=True)
    user_id = fields.Many2one("res.users", "User", required=True, ondelete="cascade", index=True)
    device_name = fields.Text(compute="_compute_names", store=True)
    user_login = fields.Text(compute="_compute_names", store=True)
    offline_delay = fields.Integer("Offline, minutes", default=1440)
    warning_delay = fields.Integer("Warning, minutes", default=1440)
    fault_delay = fields.Integer("Fault, minutes", default=1440)
    offline_last_notification = fields.Datetime()
    sum_state_last_notification = fields.Datetime()

    _sql_constraints = [("device_user_uniq", "unique(device_id, user_id)", "There are such settings already.")]

    @api.depends("device_id.name", "user_id.login")
    def _compute_names(self):
        for record in self:
            record.device_name = record.device_id.name
            record.user_login = record.user_id.login
