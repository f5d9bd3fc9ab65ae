-- Optional, once, in Odoo's database: the backend learns of new and changed edges and roles at once instead of by
-- looking every few seconds. Run it as the owner of Odoo's tables:  psql -d <database> -f notify.sql
-- What the backend itself writes (online, last message, state, version, configuration) notifies nobody.

CREATE OR REPLACE FUNCTION openems_backend_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('openems_backend', 'device ' || coalesce(NEW.id, OLD.id));
    RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS openems_backend_device ON openems_device;
CREATE TRIGGER openems_backend_device AFTER INSERT OR DELETE OR UPDATE OF name, apikey, setup_password, comment, active
    ON openems_device FOR EACH ROW EXECUTE FUNCTION openems_backend_device();

CREATE OR REPLACE FUNCTION openems_backend_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('openems_backend', 'role ' || OLD.user_id);
    END IF;
    IF TG_OP <> 'DELETE' AND (TG_OP = 'INSERT' OR NEW.user_id <> OLD.user_id) THEN
        PERFORM pg_notify('openems_backend', 'role ' || NEW.user_id);
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS openems_backend_role ON openems_device_user_role;
CREATE TRIGGER openems_backend_role AFTER INSERT OR UPDATE OR DELETE
    ON openems_device_user_role FOR EACH ROW EXECUTE FUNCTION openems_backend_role();
