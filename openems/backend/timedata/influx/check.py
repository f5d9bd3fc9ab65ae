"""What a user needs to know before trusting an InfluxDB: health, bucket, retention, rights.

For commands: the client library blocks, so this runs in a thread. Nothing is written. InfluxDB 1 is asked for its
version only; the rest of what can be told about it needs questions, which the provider itself asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS

from openems.backend.timedata.export import Finding
from openems.backend.timedata.influx.client import InfluxError
from openems.backend.timedata.influx.database import explained

#: For one exchange; there are three.
TIMEOUT = 10.0
DAY = 86_400


def check(
    url: str, bucket: str, *, org: str, token: str, read_only: bool = False, timeout: float = TIMEOUT
) -> list[Finding]:
    """Blocks. Never raises for what the server says or does not say; the token is in no text."""
    # Without repetitions and, with them, redirections: the token is for this server.
    with InfluxDBClient(url, token, org=org, timeout=round(timeout * 1000), retries=False) as client:
        return list(_findings(client, url, bucket, org, read_only))


def _findings(client: Any, url: str, bucket: str, org: str, read_only: bool) -> Iterator[Finding]:
    what = "read"
    try:
        version = client.version().removeprefix("v")
        yield Finding("ok", f"{url}: InfluxDB {version or '2'}")
        if version.startswith("1."):
            return
        found = client.buckets_api().find_buckets(name=bucket, org=org).buckets
        if not found:
            yield _error(url, InfluxError(404, "not found"), bucket, what)
            return
        yield Finding("ok", f'bucket "{bucket}" keeps values {_retention(found[0])}')
        if not read_only:
            what = "write"
            # The rights are looked at before the lines, of which there are none.
            client.write_api(write_options=SYNCHRONOUS).write(bucket, org, "")
            yield Finding("ok", f'bucket "{bucket}" can be written')
    except InfluxDBError as error:
        told = InfluxError(getattr(error, "status", None) or 0, str(error.message))
        yield _error(url, told, bucket, what)
    except ValueError as error:
        # No header, or no answer, of InfluxDB. Its text may quote what was sent.
        yield _error(url, InfluxError(0, f"no answer of InfluxDB ({type(error).__name__})"), bucket, what)
    except Exception as error:
        # Of the library below: no connection, no answer in time.
        yield _error(url, InfluxError(0, str(error)), bucket, what)


def _error(url: str, error: InfluxError, bucket: str, what: str) -> Finding:
    return Finding("error", f"{url}: {explained(error, bucket, what)}")


def _retention(bucket: Any) -> str:
    """
    >>> from types import SimpleNamespace
    >>> _retention(SimpleNamespace(retention_rules=[SimpleNamespace(every_seconds=7200)]))
    'for 2 hours'
    """
    seconds = min((rule.every_seconds for rule in bucket.retention_rules or () if rule.every_seconds), default=0)
    if not seconds:
        return "for ever"
    return f"for {seconds // DAY} days" if seconds >= 2 * DAY else f"for {seconds // 3600} hours"
