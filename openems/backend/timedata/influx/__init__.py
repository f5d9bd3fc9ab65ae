"""Component ``Timedata.InfluxDB``: history in InfluxDB 1 and 2 in the Java backend's layout (timedata.md 5 to 8)."""
