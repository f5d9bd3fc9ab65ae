-- Optional: a role of PostgreSQL for the backend that can do what the backend does with Odoo's tables, and no more.
-- Run it in Odoo's database as the owner of the tables; give the role a password afterwards: \password openems_backend
CREATE ROLE openems_backend LOGIN;
GRANT SELECT, UPDATE ON openems_device TO openems_backend;
GRANT INSERT ON openems_openemsconfigupdate TO openems_backend;
GRANT USAGE ON SEQUENCE openems_openemsconfigupdate_id_seq TO openems_backend
