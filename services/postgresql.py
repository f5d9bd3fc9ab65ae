"""PostgreSQL of the machine's Debian: one cluster, throw-away data, nothing survives a crash of the machine."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from services.framework import Running, Service, ServiceError, apt, free_port, run

#: The server refuses to run as root.
USER = "postgres"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
}


class Postgresql(Service):
    """``info``: ``user`` (superuser), ``password``, ``dsn`` of the database ``postgres``."""

    name = "postgresql"
    about = "PostgreSQL 15 or later, Debian's package"

    def build(self) -> None:
        apt("postgresql")
        self._programs()

    @staticmethod
    def _programs() -> Path:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
        if not found:
            raise ServiceError("no initdb below /usr/lib/postgresql")
        return found[-1].parent

    def start(self, directory: Path) -> Running:
        programs = self._programs()
        port = free_port()
        running = Running(
            self.name,
            directory,
            port=port,
            info={
                "user": USER,
                "password": "secret",
                "dsn": f"host=127.0.0.1 port={port} user={USER} password=secret dbname=postgres",
            },
        )
        owner = USER if os.geteuid() == 0 else None
        if owner:
            account = pwd.getpwnam(owner)
            # Every folder above must let the server through.
            os.chown(directory, account.pw_uid, account.pw_gid)
            directory.chmod(0o700)
        password = directory / "password"
        password.write_text("secret")
        shutil.chown(password, owner) if owner else None
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            directory / "data",
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            "--no-sync",
        ]
        as_owner = ["setpriv", f"--reuid={owner}", f"--regid={owner}", "--init-groups"] if owner else []
        run([*as_owner, *initdb, f"--pwfile={password}", "-E", "UTF8", "--locale=C"], cwd=directory, seconds=120)
        settings = [f"-c{key}={value}" for key, value in SETTINGS.items()]
        running.log.touch()
        running.spawn([*as_owner, programs / "postgres", "-D", directory / "data", f"-p{port}", *settings])
        ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        running.wait_until(lambda: subprocess.run(ready).returncode == 0)
        return running


SERVICE = Postgresql()
