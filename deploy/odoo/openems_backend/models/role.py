from odoo import api, fields, models

from .user import ROLES


class DeviceUserRole(models.Model):
    _name = "openems.device_user_role"
    _description = "Role of a user for an edge"

    device_id = fields.Many2one("openems.device", "Edge", required=True, ondelete="cascade", index=True)
    user_id = fields.Many2one("res.users", "User", required=True, ondelete="cascade", index=True)
    role = fields.Selection(ROLES, default="guest", required=True)
    # Guests see the edge, but neither who had it set up nor what was changed: for the record rules.
    more_than_guest_id = fields.Many2one("res.users", compute="_compute_more_than_guest_id", store=True, index=True)

    _sql_constraints = [
        ("device_user_uniq", "unique(device_id, user_id)", "The user has a role for this edge already.")
    ]

    @api.depends("role", "user_id")
    def _compute_more_than_guest_id(self):
        for record in self:
            record.more_than_guest_id = record.user_id if record.role != "guest" else False
