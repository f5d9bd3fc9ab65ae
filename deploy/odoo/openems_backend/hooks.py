"""What the backend looks for under names of other modules: it was written for the modules ``openems`` and ``fems``."""

from odoo import SUPERUSER_ID, api

#: module that the backend names, name -> our own record, or the name of a partner category to make.
ALIASES = {
    ("openems", "group_openems_reader"): "openems_backend.group_openems_reader",
    ("openems", "group_openems_manager"): "openems_backend.group_openems_manager",
    ("openems", "report_openems_setup_protocol_template"): "openems_backend.report_setup_protocol_template",
}
CATEGORIES = {
    "res_partner_category_customer": "Customer",
    "res_partner_category_created_via_ibn": "Created via installation assistant",
}


def post_init_hook(cr, registry):
    env = api.Environment(cr, SUPERUSER_ID, {})
    for (module, name), target in ALIASES.items():
        _alias(env, module, name, env.ref(target))
    for name, title in CATEGORIES.items():
        category = env["res.partner.category"].search([("name", "=", title)], limit=1)
        if not category:
            category = env["res.partner.category"].create({"name": title})
        for module in ("fems", "openems"):
            _alias(env, module, name, category)
    # An installation that had devices before (the public addon's tables) gets what is missing.
    env["openems.device"].with_context(active_test=False).search([])._fill_secrets()


def _alias(env, module, name, record):
    data = env["ir.model.data"]
    if not data.search([("module", "=", module), ("name", "=", name)]):
        data.create({"module": module, "name": name, "model": record._name, "res_id": record.id, "noupdate": True})


def uninstall_hook(cr, registry):
    env = api.Environment(cr, SUPERUSER_ID, {})
    names = [name for _, name in ALIASES] + list(CATEGORIES)
    env["ir.model.data"].search([("module", "in", ["openems", "fems"]), ("name", "in", names)]).unlink()
