-- Partitions are made by the program, a day for ts_num, a month for the others; there is no default one.

CREATE TABLE ts_num (
    series_id int NOT NULL,
    time timestamptz(3) NOT NULL,
    value float8 NOT NULL,
    PRIMARY KEY (series_id, time)
) PARTITION BY RANGE (time);

CREATE TABLE ts_txt (
    series_id int NOT NULL,
    time timestamptz(3) NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (series_id, time)
) PARTITION BY RANGE (time);

CREATE TABLE ts_num_5m (
    series_id int NOT NULL,
    time timestamptz(3) NOT NULL,           -- start of the five minutes
    cnt int NOT NULL,
    avg float8 NOT NULL,
    min float8 NOT NULL,
    max float8 NOT NULL,
    first float8 NOT NULL,
    last float8 NOT NULL,
    rise float8,                            -- how far a counter rose, restarts left out; null where nothing did
    first_at int NOT NULL,                  -- ms after time
    last_at int NOT NULL,
    PRIMARY KEY (series_id, time)
) PARTITION BY RANGE (time);
