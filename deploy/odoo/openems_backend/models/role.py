from odoo import fields, models

from .user import ROLES


class DeviceUserRole(models.Model):
    _name = "openems.device_user_role"
    _description = "Role of a user for an edge"

    device_id = fields.Many2one("openems.device", "Edge", required=True, ondelete="cascade", index=True)
    user_id = fields.Many2one("res.users", "User", required=True, ondelete="cascade", index=True)
    role = fields.Selection(ROLES, default="guest", required=True)

    _sql_constraints = [
        ("device_user_uniq", "unique(device_id, user_id)", "The user has a role for this edge already.")
    ]
