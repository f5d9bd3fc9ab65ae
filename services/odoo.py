"""Odoo 14 with the addon of ``deploy/odoo``: Debian 11's packages in a chroot, its own PostgreSQL 13 inside.

The database is initialised once into the cache: Odoo's own modules by ``install``, the addon the first time it is
started and again when the addon's files change. Every start gets a copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from services.framework import Running, Service, answers, as_root, chroot, end, free_port, run
from services.postgresql import SETTINGS

ADDON = Path(__file__).parent.parent / "deploy" / "odoo" / "openems_backend"
MODULES = "base,web,mail,auth_oauth"
DATABASE = "prod"
#: Name and password, equal for all: throw-away data on loopback.
ADMIN = ("admin", "admin")
PG = Path("/usr/lib/postgresql/13/bin")
#: Where an instance's folder, and the addon's, are seen inside the chroot.
INSIDE = Path("/srv")
ADDONS = Path("/mnt")
#: A mount namespace of its own: nothing stays mounted. Odoo reads /proc; the report generator wants /dev/shm.
ENTER = (
    'mount --bind "$1" "$3/srv" && mount --bind -o ro "$2" "$3/mnt" && mount -t proc proc "$3/proc" && '
    'root="$3" && shift 3 && exec chroot "$root" "$@"'
)
START = 120.0


class Odoo(Service):
    """``info``: ``url``, ``database``, ``login`` and ``password`` of the administrator, ``uid`` for XML-RPC;
    ``pg_port``, ``pg_user`` (superuser), ``pg_password``, ``dsn``. ``port`` is the HTTP port.

    :meth:`stop_odoo`, :meth:`resume_odoo`, and the same for PostgreSQL, break one of the two.
    """

    name = "odoo"
    version = "14"
    about = "Odoo 14 with PostgreSQL 13 and wkhtmltopdf, Debian 11's packages in a chroot"

    def _root(self) -> Path:
        return self.folder() / "root"

    def build(self) -> None:
        chroot(self._root(), "bullseye", ["odoo-14", "postgresql-13", "wkhtmltopdf", "fonts-dejavu-core"])
        template = self.folder() / "base"
        shutil.rmtree(template, ignore_errors=True)
        self._initialise(template, MODULES)

    # --- databases in the cache

    def _initialise(self, template: Path, modules: str, *, source: Path | None = None) -> None:
        """A database with ``modules`` at ``template``, made from the one at ``source``."""
        work = template.with_suffix(".new")
        shutil.rmtree(work, ignore_errors=True)
        if source is None:
            work.mkdir(parents=True)
            self._new_cluster(work)
        else:
            run(as_root("cp", "-a", "--reflink=auto", source, work))
        running = Running(self.name, work, port=free_port())
        self._describe(running)
        try:
            self.resume_postgres(running)
            if source is None:
                command = self._as(work, "postgres", PG / "createdb", "-h127.0.0.1", f"-p{running.info['pg_port']}")
                run([*command, "-Oodoo", "-Upostgres", DATABASE], env={"PGPASSWORD": "secret"})
            run([*self._odoo(running), "-i", modules, "--stop-after-init"], seconds=900)
        finally:
            running.stop()
        for leftover in (work / "odoo.log", work / "data" / "postmaster.pid"):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(template, ignore_errors=True)
        work.rename(template)

    def _new_cluster(self, directory: Path) -> None:
        (directory / "password").write_text("secret")
        for owner, name in (("odoo", "odoo"), ("postgres", "pg")):
            (directory / name).mkdir()
            run(as_root("chown", self._uid(owner), directory / name))
        directory.chmod(0o755)
        initdb: list[str | Path] = [
            PG / "initdb",
            "-D",
            INSIDE / "pg" / "data",
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "--no-sync",
        ]
        encoding = ["-E", "UTF8", "--locale=C", f"--pwfile={INSIDE / 'password'}"]
        run([*self._as(directory, "postgres", *initdb), *encoding], seconds=120)
        single: list[str | Path] = [PG / "postgres", "--single", "-D", INSIDE / "pg" / "data", "postgres"]
        # Odoo refuses to work as the role postgres.
        subprocess.run(
            [str(part) for part in self._as(directory, "postgres", *single)],
            input=b"CREATE ROLE odoo SUPERUSER LOGIN PASSWORD 'secret'\n",
            check=True,
            capture_output=True,
            timeout=60,
        )

    def _template(self) -> Path:
        """The database with the addon as it is now."""
        digest = hashlib.sha256()
        for path in sorted(path for path in ADDON.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            digest.update(str(path.relative_to(ADDON)).encode() + b"\0" + path.read_bytes())
        template = self.folder() / f"addon-{digest.hexdigest()[:12]}"
        with (self.folder() / "template.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not template.exists():
                for old in self.folder().glob("addon-*"):
                    shutil.rmtree(old, ignore_errors=True)
                self._initialise(template, "openems_backend", source=self.folder() / "base")
        return template

    # --- processes

    def _uid(self, user: str) -> str:
        return run(as_root("chroot", self._root(), "id", "-u", user)).strip()

    def _as(self, directory: Path, user: str, *command: str | Path) -> list[str | Path]:
        """``command`` inside the chroot as ``user``, with ``directory`` and the addon there."""
        enter: list[str | Path] = ["unshare", "-m", "--propagation", "private", "sh", "-c", ENTER, "enter"]
        inside: list[str | Path] = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*as_root(*enter), directory, ADDON.parent, self._root(), *inside, *command]

    def _odoo(self, running: Running) -> list[str | Path]:
        info = running.info
        options: Sequence[str] = (
            "--config=/dev/null",
            "--db_host=127.0.0.1",
            f"--db_port={info['pg_port']}",
            f"--db_user={info['pg_user']}",
            f"--db_password={info['pg_password']}",
            f"--database={DATABASE}",
            f"--db-filter=^{DATABASE}$",
            "--no-database-list",
            "--http-interface=127.0.0.1",
            f"--http-port={running.port}",
            f"--data-dir={INSIDE / 'odoo'}",
            f"--addons-path=/usr/lib/python3/dist-packages/odoo/addons,{ADDONS}",
            "--without-demo=all",
            "--workers=0",
            "--max-cron-threads=0",
            "--log-level=warn",
            "--db_maxconn=40",
        )
        smtp = [f"--smtp={info['smtp_host']}", f"--smtp-port={info['smtp_port']}"] if "smtp_port" in info else []
        home: list[str | Path] = ["env", f"HOME={INSIDE / 'odoo'}", "QT_QPA_PLATFORM=offscreen", "LANG=C.UTF-8"]
        return self._as(running.directory, "odoo", *home, "PYTHONDONTWRITEBYTECODE=1", "odoo", *options, *smtp)

    def _describe(self, running: Running) -> None:
        port = free_port()
        running.info.update(
            url=f"http://127.0.0.1:{running.port}",
            database=DATABASE,
            login=ADMIN[0],
            password=ADMIN[1],
            uid=2,
            pg_port=port,
            pg_user="odoo",
            pg_password="secret",
            dsn=f"host=127.0.0.1 port={port} user=odoo password=secret dbname={DATABASE}",
        )

    def start(self, directory: Path) -> Running:
        """Put ``smtp_host`` and ``smtp_port`` into ``info`` and restart Odoo to have mails leave through there."""
        template = self._template()
        for name in ("odoo", "pg"):
            run(as_root("cp", "-a", "--reflink=auto", template / name, directory / name))
        running = Running(self.name, directory, port=free_port())
        self._describe(running)
        self.resume_postgres(running)
        self.resume_odoo(running)
        return running

    def resume_postgres(self, running: Running) -> None:
        port = running.info["pg_port"]
        settings = [f"-c{key}={value}" for key, value in SETTINGS.items()]
        server: list[str | Path] = [PG / "postgres", "-D", INSIDE / "pg" / "data", f"-p{port}", *settings]
        running.info["pg_process"] = running.spawn(self._as(running.directory, "postgres", *server))
        ready = self._as(running.directory, "postgres", PG / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port))
        running.wait_until(lambda: answers(port) and subprocess.run([str(part) for part in ready]).returncode == 0)

    def resume_odoo(self, running: Running) -> None:
        running.info["odoo_process"] = running.spawn(self._odoo(running))
        running.wait_until(lambda: answered(f"{running.info['url']}/web/webclient/version_info"), START)

    def stop_odoo(self, running: Running) -> None:
        self._stop(running, "odoo_process")

    def stop_postgres(self, running: Running) -> None:
        self._stop(running, "pg_process")

    @staticmethod
    def _stop(running: Running, name: str) -> None:
        process = running.info[name]
        # INT is PostgreSQL's fast shutdown; it waits for its clients at TERM.
        if process.poll() is None and name == "pg_process":
            process.send_signal(2)
        end(process)
        if process in running._processes:
            running._processes.remove(process)


def answered(url: str) -> bool:
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


SERVICE = Odoo()
