-- Who has history, and the marks of the program. The same on every kind of server.

CREATE TABLE ts_edge (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE ts_channel (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address text NOT NULL UNIQUE            -- component/channel, shared by all edges
);

CREATE TABLE ts_series (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    edge_id int NOT NULL REFERENCES ts_edge,
    channel_id int NOT NULL REFERENCES ts_channel,
    txt boolean NOT NULL DEFAULT false,     -- has rows in ts_txt
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (edge_id, channel_id)
);

-- Five minutes of an edge with samples that are not, or not all, in ts_num_5m.
CREATE TABLE ts_dirty (
    edge_id int NOT NULL,
    bucket timestamptz NOT NULL,
    PRIMARY KEY (edge_id, bucket)
);

-- The same, being rolled up. Without a key: nobody may wait for it.
CREATE TABLE ts_rolling (
    edge_id int NOT NULL,
    bucket timestamptz NOT NULL
);
CREATE INDEX ts_rolling_edge ON ts_rolling (edge_id, bucket);

-- raw_from: samples before it may be gone from ts_num; only ts_num_5m has them.
CREATE TABLE ts_state (
    name text PRIMARY KEY,
    time timestamptz NOT NULL
);
INSERT INTO ts_state VALUES ('raw_from', '-infinity');

CREATE FUNCTION ts_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('openems_ts_series', name) FROM (
        SELECT DISTINCT e.name FROM changed JOIN ts_edge e ON e.id = changed.edge_id LIMIT 1000
    ) AS edges;
    RETURN NULL;
END $$;

CREATE TRIGGER ts_series_new AFTER INSERT ON ts_series
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION ts_tell();
CREATE TRIGGER ts_series_changed AFTER UPDATE ON ts_series
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION ts_tell();
