"""A backend as a process of its own, and two honest peers of it whom no fault of another may touch."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from openems.application.config import to_toml
from openems.backend.metadata.file.demo import create_demo_file
from openems.common.jsonrpc import Notification, raw
from openems.testing.uiclient import UiClient
from openems.websocket.client import ReconnectingClient
from tests.application.ports import free_offset

ROOT = Path(__file__).parents[2]
EDGES = 20
#: Seconds.
OLD = 1.5


class Process(ProcessProtocol):
    def __init__(self) -> None:
        self.output = ""
        #: -1 also for a signal; None while it runs.
        self.code: int | None = None
        self.signal: int | None = None
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode(errors="replace")

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        self.signal = reason.value.signal
        self.code = 0 if isinstance(reason.value, ProcessDone) else reason.value.exitCode or -1
        self.ended.callback(self.code)


class SilentEndpoint:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def opened(self) -> None: ...

    def received(self, text: bytes) -> bool:
        return True

    def closed(self) -> None: ...


class WitnessTab(UiClient):
    """``delays``: seconds from the edge to here, of each value."""

    def __init__(self, url: str, delays: list[float]) -> None:
        super().__init__(url, reactor)
        self._delays = delays

    def _arrived(self, params: dict[str, Any]) -> None:
        sent = params["payload"]["params"].get("_sum/EssSoc") if params["payload"]["method"] == "currentData" else None
        if sent is not None:
            self._delays.append(time.time() - sent / 1000)


class Faults(TestCase):
    """``self.port(8081)``; the witness edge sends its clock twenty times a second, the witness tab watches it."""

    timeout = 120

    async def start(self, *, limit: str = "", disk: str = "", launcher: Sequence[str] = ()) -> None:
        """``limit``: an option of prlimit; ``disk``: size of a file system of its own for the state, which only the
        process sees; ``launcher``: options of tests.faults.launcher."""
        self.offset = free_offset()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        self.state = tempfile.mkdtemp(dir=folder)
        self.keys = {f"edge{number}": f"key-{number}" for number in range(EDGES)}
        create_demo_file(f"{self.state}/metadata.json", "secret", self.keys.items())
        configuration = Path(self.state, "backend.toml")
        configuration.write_text(
            to_toml(
                {
                    "backend": {"stateDir": self.state, "offset": self.offset, "interface": "127.0.0.1"},
                    "edge": {},
                    "edge.manager": {},
                    "ui.websocket": {},
                    "metadata.file": {"path": f"{self.state}/metadata.json"},
                    "timedata.sqlite": [{"id": "timedata0"}],
                }
            )
        )
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [sys.executable, twistd, "-n", "--pidfile=", "openems-backend", "--config", str(configuration)]
        if launcher:
            command[1:2] = ["-m", "tests.faults.launcher", *launcher, "--"]
        if limit:
            command = ["prlimit", limit, *command]
        if disk:
            copy = f"{folder}/copy"
            Path(self.state).rename(copy)
            Path(self.state).mkdir()
            script = f'mount -t tmpfs -o size={disk} tmpfs {self.state} && cp -a {copy}/. {self.state} && exec "$@"'
            command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *command]
        self._command = command
        self.spawn()
        self.addCleanup(self.end)
        await self.witnesses()

    def spawn(self) -> None:
        """The process, or when it has ended another one with the same state."""
        self.process = Process()
        self.transport: Any = reactor.spawnProcess(  # type: ignore[attr-defined]
            self.process, self._command[0], self._command, env={**os.environ, "PYTHONPATH": str(ROOT)}, path=self.state
        )

    async def end(self) -> None:
        if not self.process.ended.called:
            self.transport.signalProcess("TERM")
            await self.process.ended.addTimeout(20, reactor)  # type: ignore[arg-type]

    def port(self, default: int) -> int:
        return default + self.offset

    async def witnesses(self) -> None:
        self.delays: list[float] = []
        client = ReconnectingClient(
            f"ws://127.0.0.1:{self.port(8081)}",
            {"apikey": self.keys["edge0"]},
            SilentEndpoint,
            reactor=reactor,
            min_wait=0.2,
            max_wait=0.2,
            name="Witness",
        )
        self.edge = client
        self.ui = WitnessTab(f"ws://127.0.0.1:{self.port(8082)}", self.delays)
        self.addCleanup(self.ui.close)
        try:
            await self.ui.connect(timeout=20)
        except TimeoutError:
            self.fail(f"the backend does not answer: {self.process.output[-3000:]}")
        client.start()
        self.addCleanup(client.stop)
        await self.ui.login("admin", "secret")
        await self.until(lambda: client.connection is not None)
        beat = LoopingCall(self.beat)
        self.addCleanup(beat.stop)
        await self.ui.request("subscribeEdges", {"edges": ["edge0"]})
        await self.ui.edge_rpc("edge0", "subscribeChannels", {"count": 0, "channels": ["_sum/EssSoc"]})
        beat.start(0.05)
        await self.until(lambda: self.delays)
        self.delays.clear()

    def beat(self) -> None:
        if self.edge.connection is not None:
            now = time.time_ns() // 1_000_000
            self.edge.connection.notify(Notification("timestampedData", raw({str(now): {"_sum/EssSoc": now}})))

    async def until(self, condition: Any, seconds: float = 30.0) -> None:
        for _ in range(int(seconds / 0.05)):
            if condition():
                return
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        self.fail("it did not happen")

    async def attack(self, name: str) -> Any:
        """Runs one of tests.faults.attacks; what it printed."""
        command = [sys.executable, "-m", "tests.faults.attacks", name, str(self.offset)]
        out, err, code = await getProcessOutputAndValue(command[0], command[1:], env={"PYTHONPATH": str(ROOT)})
        self.assertEqual((code, err), (0, b""))
        # What comes of it may come a little later.
        await deferLater(reactor, 1.5)  # type: ignore[arg-type]
        return json.loads(out)

    def assertUntouched(self, at_least: int = 20) -> None:
        """The witnesses saw values all the time, none of them old. Old is what a reactor makes that an attack holds up,
        not what a busy machine makes."""
        delays = sorted(self.delays)
        self.assertGreater(len(delays), at_least)
        self.assertLess(delays[int(len(delays) * 0.99) - 1], OLD, f"{len(delays)} values, worst {delays[-5:]}")
        self.assertTrue(self.ui.connected)
        self.assertIsNotNone(self.edge.connection)

    def stored_times(self, edge_id: str = "edge0") -> list[int]:
        """Epoch milliseconds of the values in the history file, in ascending order."""
        (path,) = Path(self.state).glob("**/*.sqlite")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as history:
            query = "SELECT time FROM number JOIN series ON id = series WHERE edge = ? ORDER BY time"
            return [time for (time,) in history.execute(query, (edge_id,))]

    def seen_by_process(self, path: str) -> Path:
        return Path(f"/proc/{self.transport.pid}/root{path}")

    async def health(self) -> tuple[int, dict[str, Any]]:
        response = await treq.get(f"http://127.0.0.1:{self.port(8079)}/", persistent=False)
        return response.code, await response.json()

    def rss(self) -> int:
        """Bytes."""
        pid = self.transport.pid
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
