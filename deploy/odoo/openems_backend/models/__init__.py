from . import alerting, app_center, config_update, device, partner, role, setup_protocol, stock_lot, user
