"""Builds and drives the load generator, one C file (generator.c)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("generator.c")
#: Seconds until all edges are connected.
CONNECT_PATIENCE = 90.0


class NoCompiler(RuntimeError):
    """There is no C compiler; the text says how to get one."""


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "openems-backend-bench"


def compiler() -> str:
    """Path of ``cc``, installed first where this is Debian and we are root. Raises :class:`NoCompiler`."""
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "gcc", "libc6-dev"]):
            subprocess.run(["apt-get", *command], env=environment, stdout=subprocess.DEVNULL, check=False)
        found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        raise NoCompiler("the load generator needs a C compiler: install the packages gcc and libc6-dev")
    return found


def build() -> Path:
    """The program, made once for each state of its source."""
    name = "generator-" + hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = cache_folder() / name
    if not program.exists():
        cc = compiler()
        program.parent.mkdir(parents=True, exist_ok=True)
        made = program.with_name(f"{name}.{os.getpid()}")
        subprocess.run([cc, "-O2", "-std=c11", "-o", str(made), str(SOURCE)], check=True)
        made.replace(program)
    return program


class Generator:
    """One run: :meth:`ready` returns when all edges are connected, :meth:`run` begins and returns the figures."""

    def __init__(self, mode: str, cpus: set[int] | None = None, **settings: Any) -> None:
        words = [f"{name}={value}" for name, value in settings.items()]
        command = [str(build()), mode, "wait=1", *words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if cpus:
            os.sched_setaffinity(self._process.pid, cpus)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != "ready\n":
            raise RuntimeError(f"the generator did not get ready: {line!r}")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def figures(self, *, stays: bool = False) -> dict[str, Any]:
        """``stays``: the process goes on, as with ``stay=1``."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not stays:
            self._process.wait(30)
        result: dict[str, Any] = json.loads(line)
        return result

    def stop(self) -> None:
        """Ends a run of ``hold`` with ``reconnect=1`` before its time; ask for the :meth:`figures` then."""
        if self._process.poll() is not None:
            assert self._process.stdout is not None
            raise RuntimeError(f"the generator ended, exit {self._process.returncode}: {self._process.stdout.read()}")
        self.go()

    def run(self) -> dict[str, Any]:
        self.go()
        return self.figures()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
