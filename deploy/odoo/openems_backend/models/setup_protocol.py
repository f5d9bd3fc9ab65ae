from odoo import fields, models


class SetupProtocol(models.Model):
    _name = "openems.setup_protocol"
    _description = "Setup protocol"
    _order = "create_date desc, id desc"

    # A protocol of an extension has neither customer nor installer.
    customer_id = fields.Many2one("res.partner", "Customer", ondelete="restrict")
    installer_id = fields.Many2one("res.partner", "Installer", ondelete="restrict")
    different_location_id = fields.Many2one("res.partner", "Different location", ondelete="restrict")
    device_id = fields.Many2one("openems.device", "Edge", required=True, ondelete="cascade", index=True)
    type = fields.Selection(
        [
            ("setup-protocol", "Setup protocol"),
            ("ems-exchange", "Exchange of the EMS"),
            ("capacity-extension", "Extension of capacity"),
        ],
        default="setup-protocol",
    )
    productionlot_ids = fields.One2many("openems.setup_protocol_production_lot", "setup_protocol_id", "Serial numbers")
    item_ids = fields.One2many("openems.setup_protocol_item", "setup_protocol_id", "Items")

    def name_get(self):
        return [(protocol.id, "%s #%d" % (protocol.device_id.name, protocol.id)) for protocol in self]

    def _openems_data(self):
        """What the user interface shows of it."""
        data = {
            "customer": self._person(self.customer_id),
            "items": [
                {key: item[key] for key in ("view", "field", "category", "name", "value")} for item in self.item_ids
            ],
        }
        if self.different_location_id:
            data["location"] = self._person(self.different_location_id)
        return data

    @staticmethod
    def _person(partner):
        person = {key: partner[key] for key in ("firstname", "lastname", "email", "phone")}
        person["address"] = {key: partner[key] for key in ("street", "city", "zip")}
        person["address"]["country"] = partner.country_id.name
        if partner.commercial_company_name:
            person["company"] = {"name": partner.commercial_company_name}
        return person


class SetupProtocolProductionLot(models.Model):
    _name = "openems.setup_protocol_production_lot"
    _description = "Serial number of a setup protocol"
    _order = "sequence, id"

    setup_protocol_id = fields.Many2one("openems.setup_protocol", required=True, ondelete="cascade", index=True)
    sequence = fields.Integer()
    category = fields.Char()
    name = fields.Char()
    lot_id = fields.Many2one("stock.lot", "Serial number", required=True)


class SetupProtocolItem(models.Model):
    _name = "openems.setup_protocol_item"
    _description = "Item of a setup protocol"
    _order = "sequence, id"

    setup_protocol_id = fields.Many2one("openems.setup_protocol", required=True, ondelete="cascade", index=True)
    sequence = fields.Integer()
    category = fields.Char()
    name = fields.Char()
    value = fields.Char()
    view = fields.Char()
    field = fields.Char()
