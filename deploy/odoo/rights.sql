-- Optional: a role of PostgreSQL for the backend that can do what the backend does with Odoo's tables, and no more.
-- Run it in Odoo's database as the owner of the tables; give the role a password afterwards: \password openems_backend
CREATE ROLE openems_backend LOGIN;
GRANT SELECT ON openems_device TO openems_backend;
-- What edges report, and neither their names nor their keys.
GRANT UPDATE (openems_is_connected, lastmessage, openems_sum_state_level, openems_version, producttype, openems_config,
    openems_config_components) ON openems_device TO openems_backend;
GRANT INSERT ON openems_openemsconfigupdate TO openems_backend;
GRANT USAGE ON SEQUENCE openems_openemsconfigupdate_id_seq TO openems_backend
