"""TimescaleDB under the Apache licence: PostgreSQL 17 and its extension, Debian 13's packages, in a chroot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from services.framework import Running, Service, answers, as_root, chroot, free_port, run
from services.postgresql import SETTINGS

PROGRAMS = Path("/usr/lib/postgresql/17/bin")
#: Where an instance's folder is seen inside the chroot.
INSIDE = Path("/srv")
#: A mount namespace of its own: nothing stays mounted, and instances do not see each other.
ENTER = 'mount --bind "$1" "$2/srv" && shift && root="$1" && shift && exec chroot "$root" "$@"'


class Timescaledb(Service):
    """``info``: ``user`` (superuser), ``password``, ``dsn`` of the database ``postgres``. The extension is loaded;
    ``CREATE EXTENSION timescaledb`` it in a database of your own."""

    name = "timescaledb"
    version = "17"
    about = "PostgreSQL 17 with Apache TimescaleDB, Debian 13's packages in a chroot"

    def _root(self) -> Path:
        return self.folder() / "root"

    def build(self) -> None:
        chroot(self._root(), "trixie", ["postgresql-17", "postgresql-17-timescaledb"])

    def _inside(self, directory: Path) -> list[str | Path]:
        """What must precede a command for it to run in the chroot, as the server's user, with ``directory`` there."""
        enter: list[str | Path] = ["unshare", "-m", "--propagation", "private", "sh", "-c", ENTER, "enter"]
        user: list[str | Path] = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        return [*as_root(*enter), directory, self._root(), *user]

    def start(self, directory: Path) -> Running:
        port = free_port()
        running = Running(
            self.name,
            directory,
            port=port,
            info={
                "user": "postgres",
                "password": "secret",
                "dsn": f"host=127.0.0.1 port={port} user=postgres password=secret dbname=postgres",
            },
        )
        (directory / "password").write_text("secret")
        account = run(["chroot", self._root(), "id", "-u", "postgres"]).strip() if os.geteuid() == 0 else None
        if account is not None:
            for path in (directory, directory / "password"):
                shutil.chown(path, int(account))
        inside = self._inside(directory)
        initdb: list[str | Path] = [
            PROGRAMS / "initdb",
            "-D",
            INSIDE / "data",
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "--no-sync",
        ]
        run([*inside, *initdb, f"--pwfile={INSIDE / 'password'}", "-E", "UTF8", "--locale=C"], seconds=120)
        settings = {
            **SETTINGS,
            "shared_preload_libraries": "timescaledb",
            "timescaledb.telemetry_level": "off",
            "timescaledb.license": "apache",
        }
        options = [f"-c{key}={value}" for key, value in settings.items()]
        running.spawn([*inside, PROGRAMS / "postgres", "-D", INSIDE / "data", f"-p{port}", *options])
        ready: list[str | Path] = [*inside, PROGRAMS / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        running.wait_until(lambda: answers(port) and subprocess.run(ready).returncode == 0)
        return running


SERVICE = Timescaledb()
