from odoo import api, fields, models


class Partner(models.Model):
    """First and last name, as the module partner_firstname has them."""

    _inherit = "res.partner"

    firstname = fields.Char("First name")
    lastname = fields.Char("Last name")

    @api.model_create_multi
    def create(self, vals_list):
        for vals in vals_list:
            if not vals.get("name"):
                name = self._joined(vals.get("firstname"), vals.get("lastname"))
                if name or vals.get("email"):
                    vals["name"] = name or vals["email"]
        return super().create(vals_list)

    def write(self, vals):
        result = super().write(vals)
        if ("firstname" in vals or "lastname" in vals) and "name" not in vals:
            for partner in self:
                name = self._joined(partner.firstname, partner.lastname)
                if name and name != partner.name:
                    partner.name = name
        return result

    @staticmethod
    def _joined(firstname, lastname):
        return " ".join(part.strip() for part in (firstname, lastname) if part and part.strip())
