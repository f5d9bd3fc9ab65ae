"""InfluxDB 1, Debian's package: InfluxQL and the old write path, no authentication in the test instance."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from services.framework import Running, Service, ServiceError, apt, end, free_port

PROGRAM = Path("/usr/bin/influxd")
CONFIGURATION = """\
reporting-disabled = true
bind-address = "127.0.0.1:{backup_port}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  max-series-per-database = 0
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[logging]
  level = "warn"
"""


class Influxdb1(Service):
    """``info``: ``url``. Databases are made with ``CREATE DATABASE`` (POST /query)."""

    name = "influxdb1"
    about = "InfluxDB 1.6 or later, Debian's package"

    def build(self) -> None:
        apt("influxdb")
        if not PROGRAM.exists():
            raise ServiceError(f"Debian's influxdb brought no {PROGRAM}")

    def start(self, directory: Path) -> Running:
        running = Running(self.name, directory, port=free_port())
        running.info.update(url=f"http://127.0.0.1:{running.port}")
        (directory / "influxdb.conf").write_text(
            CONFIGURATION.format(directory=directory, port=running.port, backup_port=free_port())
        )
        self.resume(running)
        return running

    def resume(self, running: Running) -> None:
        """Starts the instance that a signal or :func:`~services.framework.end` ended, on its port with its data."""
        for process in running._processes:
            end(process)
        running._processes.clear()
        running.spawn([PROGRAM, "-config", running.directory / "influxdb.conf"])
        running.wait_until(lambda: pings(running.info["url"]))


def pings(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/ping", timeout=5) as reply:
        return bool(reply.status == 204)


SERVICE = Influxdb1()
