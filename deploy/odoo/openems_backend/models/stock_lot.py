from odoo import fields, models


class StockLot(models.Model):
    """Serial numbers. Odoo's own model of this name comes with its module stock, from Odoo 16 on."""

    _name = "stock.lot"
    _description = "Serial number"

    name = fields.Char("Serial number", required=True, index=True)
    device_ids = fields.One2many("openems.device", "stock_production_lot_id", "Edge")
