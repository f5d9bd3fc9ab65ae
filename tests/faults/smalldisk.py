"""A real service with its data on a small file system of its own, for filling it up.

``python -m tests.faults.smalldisk SERVICE SIZE DIRECTORY [PLACE]`` in a mount namespace that ends with it: nothing
stays mounted. ``PLACE`` below the directory is what is small; without it the whole directory. Prints what a client
needs as JSON, then answers each line on stdin with one: ``fill`` takes all the room, ``free`` gives it back, ``alive``
tells whether the server's process runs, ``again`` starts it once more. Ends with stdin.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from services import known
from tests.postgres.databases import again

ENTER = 'mount -t tmpfs -o size="$1",mode=755 tmpfs "$2" && shift 2 && exec "$@"'


class SmallDisk:
    """For tests: ``ask("fill")`` blocks; ``info`` and ``port`` are of the service."""

    def __init__(self, service: str, size: str, directory: Path, place: str = "") -> None:
        self.directory = directory
        small = directory / place
        small.mkdir(parents=True, exist_ok=True)
        for folder in (directory, small):
            folder.chmod(0o755)
        self._process = subprocess.Popen(
            [
                *("unshare", "-m", "--propagation", "private", "sh", "-c", ENTER, "sh", size, str(small)),
                *(sys.executable, "-m", "tests.faults.smalldisk", service, size, str(directory), place),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        told = self._read()
        self.port: int = told["port"]
        self.info: dict[str, Any] = told["info"]
        #: As services.framework.Running has it.
        self.name = service

    def ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"no service on a small disk: exit {self._process.wait(20)}")
        return json.loads(line)

    def stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def fill(path: Path) -> int:
    """Bytes it took."""
    written = 0
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    written += file.write(b"x" * size)
            except OSError:
                pass
    return written


def main() -> None:
    name, _, folder, place = sys.argv[1:]
    directory = Path(folder)
    small = directory / place
    if name == "postgresql" and os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(small, account.pw_uid, account.pw_gid)
    service = known()[name]
    running = service.start(directory)
    filler = small / "filler"
    commands: dict[str, Any] = {
        "fill": lambda: fill(filler),
        "free": lambda: filler.unlink(),
        "alive": lambda: running._processes[-1].poll() is None,
        "again": lambda: again(running) if name == "postgresql" else service.resume(running),  # type: ignore[attr-defined]
        "kill": lambda: os.killpg(running.pid, signal.SIGKILL),
    }
    try:
        print(json.dumps({"port": running.port, "info": running.info}), flush=True)
        for line in sys.stdin:
            print(json.dumps(commands[line.strip()]()), flush=True)
    finally:
        running.stop()


if __name__ == "__main__":
    main()
