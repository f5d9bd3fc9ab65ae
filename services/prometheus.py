"""Prometheus and promtool: Debian's package; every instance scrapes itself until it is told otherwise."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

from services.framework import Running, Service, ServiceError, apt, free_port

CONFIGURATION = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
scrape_configs:
  - job_name: prometheus
    static_configs: [{targets: ["127.0.0.1:%d"]}]
"""


def promtool() -> str:
    """The program; ServiceError where it is not installed."""
    found = shutil.which("promtool")
    if found is None:
        raise ServiceError("no promtool on this machine")
    return found


class Prometheus(Service):
    """``info``: ``url``, ``configuration`` (the file: write it anew, then POST ``<url>/-/reload``)."""

    name = "prometheus"
    about = "Prometheus with promtool, Debian's package"

    def build(self) -> None:
        apt("prometheus")
        promtool()

    def start(self, directory: Path) -> Running:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        configuration = directory / "prometheus.yml"
        configuration.write_text(CONFIGURATION % port)
        running = Running(self.name, directory, port=port, info={"url": url, "configuration": configuration})
        running.log.touch()
        running.spawn(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-lifecycle",
                "--log.level=warn",
            ]
        )

        def ready() -> bool:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)

        running.wait_until(ready)
        return running


SERVICE = Prometheus()
