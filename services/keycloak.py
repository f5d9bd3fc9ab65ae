"""Keycloak from its Maven artifact, with the realm of ``deploy/keycloak/realm.json``.

The program is built for its embedded database once; an instance has its own settings and data beside shared libraries.
"""

from __future__ import annotations

import shutil
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from services.framework import Running, Service, ServiceError, apt, free_port, run

VERSION = "26.7.3"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:tar.gz"
#: Fixes the plugin, so that what is fetched does not change.
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
ADMIN = ("admin", "admin-secret")
REALM = Path(__file__).parent.parent / "deploy" / "keycloak" / "realm.json"
#: Seconds: the first start of a new database on a busy machine.
START = 240.0


class Keycloak(Service):
    """``info``: ``url``, and ``admin`` and ``password`` of the realm ``master``."""

    name = "keycloak"
    version = VERSION
    about = f"Keycloak {VERSION} of Maven's central repository; Java 17 or later"

    def build(self) -> None:
        if shutil.which("java") is None:
            apt("openjdk-17-jre-headless")
        if shutil.which("mvn") is None:
            apt("maven")
        download = self.folder() / "download"
        run(["mvn", "-q", "-B", COPY, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={download}"])
        archive = next(iter(download.glob("*.tar.gz")), None)
        if archive is None:
            raise ServiceError(f"{ARTIFACT} is not in {download} although Maven said so")
        with tarfile.open(archive) as packed:
            packed.extractall(self.folder(), filter="data")
        shutil.rmtree(download)
        run([self.home() / "bin" / "kc.sh", "build", "--db=dev-file", "--health-enabled=true"], env=self._environment())

    def home(self) -> Path:
        return self.folder() / f"keycloak-{VERSION}"

    @staticmethod
    def _environment() -> dict[str, str]:
        return {
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN[0],
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN[1],
            "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
        }

    def start(self, directory: Path) -> Running:
        """Further realms are made with the administrator's REST interface."""
        home = directory / "keycloak"
        home.mkdir()
        # Scripts and settings find their server beside them, so they are copied; the libraries are shared.
        for part in ("bin", "conf"):
            shutil.copytree(self.home() / part, home / part)
        for part in ("lib", "providers", "themes"):
            (home / part).symlink_to(self.home() / part)
        (home / "data" / "import").mkdir(parents=True)
        shutil.copy(REALM, home / "data" / "import" / "openems-realm.json")
        running = Running(self.name, directory, port=free_port())
        running.info.update(url=f"http://127.0.0.1:{running.port}", admin=ADMIN[0], password=ADMIN[1])
        self.resume(running)
        return running

    def resume(self, running: Running, seconds: float = START) -> None:
        """Starts the instance, or once more after a signal has ended it: on its port, with its data."""
        running._processes[:] = [process for process in running._processes if process.poll() is None]
        running.spawn(
            [
                running.directory / "keycloak" / "bin" / "kc.sh",
                "start",
                "--optimized",
                "--import-realm",
                "--http-enabled=true",
                "--hostname-strict=false",
                "--http-host=127.0.0.1",
                f"--http-port={running.port}",
                f"--http-management-port={free_port()}",
                "--cache=local",
            ],
            env=self._environment(),
        )
        discovery = f"{running.info['url']}/realms/openems/.well-known/openid-configuration"
        running.wait_until(lambda: answered(discovery), seconds)


def answered(url: str) -> bool:
    """Whether it answers 200; while Keycloak starts, it is 503 or nothing."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


SERVICE = Keycloak()
