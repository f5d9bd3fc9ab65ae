"""Component ``Timedata.AggregatedInfluxDB``: five-minute averages and one counter reading a day (timedata.md 9)."""
