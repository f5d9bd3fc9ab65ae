"""Real services for tests and benchmarks: databases, brokers, identity providers, browsers.

Each is one :class:`Service`: how it comes onto a bare Debian machine (from package registries only, once, into a cache
outside the checkout) and how one throw-away instance is started on free loopback ports. Only the standard library is
used, so that a machine without anything can begin here. Everything blocks: it runs before a test or beside a benchmark.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

#: How long one command of an installation may take; the slowest builds a database from source.
INSTALL_SECONDS = 2400.0
START_SECONDS = 120.0
STOP_SECONDS = 15.0


def cache() -> Path:
    """Where installed services live: ``OPENEMS_BACKEND_SERVICES``, else a folder of the user's cache."""
    chosen = os.environ.get("OPENEMS_BACKEND_SERVICES")
    return Path(chosen) if chosen else Path.home() / ".cache" / "openems-backend-services"


class ServiceError(Exception):
    """What went wrong, with the end of the service's own output."""


class Running:
    """One started instance. ``port`` is its main port on 127.0.0.1; what else a client must know is in ``info``."""

    def __init__(self, name: str, directory: Path, *, port: int = 0, info: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.directory = directory
        self.port = port
        self.info: dict[str, Any] = dict(info or {})
        self._processes: list[subprocess.Popen[bytes]] = []
        self._cleanups: list[Callable[[], None]] = []

    @property
    def pid(self) -> int:
        """Of the process started last: for signals."""
        return self._processes[-1].pid

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def spawn(
        self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, user: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process whose output goes to :attr:`log`; it gets a process group of its own, so that whatever it
        starts ends with it."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                user=user,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def wait_until(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Polls ``ready`` (OSError counts as no); ServiceError when the process ends or time is up."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if ready():
                    return
            except OSError:
                pass
            if any(process.poll() is not None for process in self._processes):
                raise self._failed("ended while starting")
            if time.monotonic() > deadline:
                raise self._failed(f"is not ready after {seconds:.0f} s")
            time.sleep(0.05)

    def _failed(self, what: str) -> ServiceError:
        tail = self.log.read_bytes()[-2000:].decode(errors="replace") if self.log.exists() else ""
        self.stop()
        return ServiceError(f"{self.name} {what}:\n{tail}")

    def on_stop(self, cleanup: Callable[[], None]) -> None:
        self._cleanups.append(cleanup)

    def signal(self, number: int) -> None:
        """To the whole process group of the process started last: STOP, CONT, KILL."""
        os.killpg(self.pid, number)

    def stop(self) -> None:
        """TERM, then KILL, to all that was spawned; then the cleanups. May be called twice."""
        for process in reversed(self._processes):
            end(process)
        self._processes.clear()
        while self._cleanups:
            self._cleanups.pop()()


class Service:
    """``name`` is what tests ask for; a new ``version`` is a new folder in the cache, so old installations are never
    mistaken for new ones."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    #: For the list of ./dev services.
    about: ClassVar[str] = ""

    def folder(self) -> Path:
        return cache() / f"{self.name}-{self.version}"

    def installed(self) -> bool:
        """Cheap; asked before each use."""
        return (self.folder() / ".installed").exists()

    def install(self) -> None:
        """Idempotent; the mark is set last, so that a broken attempt is begun anew. One process at a time."""
        with self._lock():
            if self.installed():
                return
            self.folder().mkdir(parents=True, exist_ok=True)
            self.build()
            (self.folder() / ".installed").touch()

    @contextmanager
    def _lock(self) -> Any:
        cache().mkdir(parents=True, exist_ok=True)
        with (cache() / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def build(self) -> None:
        """What :meth:`install` does once."""

    def start(self, directory: Path) -> Running:
        """A new instance whose data are below ``directory`` (exists, empty)."""
        raise NotImplementedError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def end(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """TERM to the process group, KILL after ``seconds``."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = INSTALL_SECONDS,
) -> str:
    """One command of an installation; its standard output. ServiceError with the end of its output if it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"{command[0]}: {error}") from None
    if done.returncode:
        output = (done.stdout[-2000:] + done.stderr[-4000:]).decode(errors="replace")
        raise ServiceError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{output}")
    return done.stdout.decode(errors="replace")


def as_root(*command: str | Path) -> list[str | Path]:
    """The command as it must be called to run as root. ServiceError where that cannot be."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo"):
        return ["sudo", "-n", *command]
    raise ServiceError(f"root or sudo is needed for: {' '.join(map(str, command))}")


def apt(*packages: str) -> None:
    """Debian packages; nothing is done where all are there. ServiceError where this is no Debian."""
    if shutil.which("apt-get") is None:
        raise ServiceError(f"this machine has no apt-get; what Debian calls {', '.join(packages)} is needed")
    listed = subprocess.run(["dpkg-query", "-W", "-f=${Status}\n", *packages], capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout.count("install ok installed") == len(packages):
        return
    # Two of us at once would find the database of packages locked.
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(as_root("apt-get", "update", "-qq"), env=quiet)
        # No service of the machine's own is started: tests start what they need.
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        policy = Path("/usr/sbin/policy-rc.d")
        own = not policy.exists() and os.geteuid() == 0
        if own:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            run(as_root("env", "DEBIAN_FRONTEND=noninteractive", *install), env=quiet)
        finally:
            if own:
                policy.unlink()


def debian_mirror() -> str:
    """The archive this machine's own apt uses: for chroots of other Debian releases."""
    listed = run(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"])
    for line in listed.splitlines():
        if line.startswith(("http://", "https://")) and "security" not in line:
            return line.strip()
    raise ServiceError("this machine's apt names no http archive")


def chroot(folder: Path, release: str, packages: Sequence[str]) -> None:
    """A minimal Debian of another release with some packages, below ``folder``."""
    apt("debootstrap")
    if not (folder / ".bootstrapped").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(as_root("debootstrap", "--variant=minbase", release, folder, debian_mirror()))
        (folder / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (folder / "usr/sbin/policy-rc.d").chmod(0o755)
        for name in ("resolv.conf", "hosts"):
            shutil.copy(Path("/etc") / name, folder / "etc" / name)
        # How this machine's apt reaches its archive (proxies, certificates) holds inside too.
        for source in (Path("/etc/apt/apt.conf.d"), Path("/etc/ssl/certs"), Path("/usr/local/share/ca-certificates")):
            if source.exists():
                shutil.copytree(source, folder / source.relative_to("/"), dirs_exist_ok=True, symlinks=False)
        (folder / ".bootstrapped").touch()
    inside: list[str | Path] = ["chroot", folder, "env", "DEBIAN_FRONTEND=noninteractive"]
    run(as_root(*inside, "apt-get", "update", "-qq"))
    run(as_root(*inside, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages))


def progress(text: str) -> None:
    print(f"[services] {text}", file=sys.stderr, flush=True)
