"""``openems-backend demo``: a backend and a simulated fleet as two child processes, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol
from twisted.python.failure import Failure

import openems
from openems.application import config, logfile, simulator
from openems.application.service import embedded

BACKFILL_DAYS = 30
DEFAULT_EDGES = 3
#: Seconds until a start counts as failed; a history to repair may take a while.
START_TIMEOUT = 120.0
#: Seconds a child has after SIGTERM.
STOP_TIMEOUT = 12.0
#: twistd's own script, for the interpreter that runs now. The end of stdin is the end of the demo: a child that
#: outlives it, after a kill -9, would keep the ports and the state of the next start.
TWISTD = """
import os, signal, sys, threading

def end_with_the_demo():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=end_with_the_demo, daemon=True).start()
sys.argv[0] = "twistd"
from twisted.scripts.twistd import run
run()
"""


class Unusable(Exception):
    """What is in the state directory is nothing to start with; the text names file and reason."""


class Prepared:
    """What a start found or made: ``password`` is None where the one of an earlier start goes on; ``fresh``: there
    was no earlier start."""

    def __init__(self, password: str | None, edges: dict[str, str], *, fresh: bool = False) -> None:
        self.password = password
        self.edges = edges
        self.fresh = fresh


def prepare(
    state_dir: Path, *, admin_password: str | None, edges: int | None, new_secret: Callable[[], str]
) -> Prepared:
    """Make ``metadata.json`` in ``state_dir``, or add to it what is asked for; ``edges`` of the result is
    edge id -> apikey, for the simulator.

    An existing password and existing apikeys stay, unless another password is given. Raises :class:`Unusable`, OSError.
    """
    from openems.backend.metadata.file.check import BadFile, read_model
    from openems.backend.metadata.file.demo import create_demo_file
    from openems.backend.metadata.password import hash_password, verify_password
    from openems.common.atomicfile import write_atomically

    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / "metadata.json"
    if not path.exists():
        password = admin_password or new_secret()
        made = {f"edge{number}": new_secret() for number in range(edges or DEFAULT_EDGES)}
        create_demo_file(str(path), password, made.items())
        return Prepared(password, made, fresh=True)
    try:
        read_model(str(path))
    except BadFile as e:
        raise Unusable("\n".join(f"{path}: {problem}" for problem in e.problems)) from None
    body = json.loads(path.read_text(encoding="utf-8-sig"))
    if "admin" not in (body.get("users") or {}):
        raise Unusable(f"{path} has no user admin, so the demo did not make it; choose another --state")
    known: dict[str, Any] = body["edges"]
    changed = False
    names = [f"edge{number}" for number in range(edges)] if edges else list(known)
    for name in names:
        if name not in known:
            known[name] = {"comment": f"Demo {name}", "apikey": new_secret()}
            changed = True
    admin = body["users"]["admin"]
    # The same password again is no new one: its sessions go on.
    if admin_password is not None and not verify_password(admin.get("passwordHash", ""), admin_password):
        admin["passwordHash"] = hash_password(admin_password)
        changed = True
    if changed:
        write_atomically(str(path), json.dumps(body, indent=2, ensure_ascii=False).encode() + b"\n")
    simulated = {name: known[name]["apikey"] for name in names if known[name].get("apikey")}
    if not simulated:
        raise Unusable(f"{path} has no edge with an apikey; choose another --state")
    return Prepared(admin_password, simulated)


class Child(ProcessProtocol):
    """One child; ``ended`` fires with its exit status (negative: the signal)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended: Deferred[int] = Deferred()
        self.running = True
        self.output = b""

    def outReceived(self, data: bytes) -> None:
        # The log goes to a file; what comes here is the reason of a failed start.
        self.output = (self.output + data)[-4000:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.running = False
        value: Any = reason.value
        status = 0 if isinstance(value, ProcessDone) else (value.exitCode or -(value.signal or 1))
        self.ended.callback(status)

    def terminate(self, reactor: Any) -> Deferred[Any]:
        """SIGTERM, and SIGKILL where that does not help."""
        if not self.running or self.transport is None:
            return Deferred.fromCoroutine(_nothing())
        self.transport.signalProcess("TERM")
        kill = reactor.callLater(STOP_TIMEOUT, self._kill)
        done: Deferred[None] = Deferred()

        def ended(status: int) -> int:
            if kill.active():
                kill.cancel()
            done.callback(None)
            return status

        self.ended.addBoth(ended)
        return done

    def _kill(self) -> None:
        if self.running and self.transport is not None:
            self.transport.signalProcess("KILL")


async def _nothing() -> None:
    pass


class Notified(DatagramProtocol):
    """The other end of systemd's protocol: how a child says that it listens."""

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready = ready

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if b"READY=1" in datagram.split(b"\n"):
            self._ready()


class Demo:
    """``stopped`` has entries where a signal to end came before the reactor ran."""

    def __init__(
        self,
        *,
        reactor: Any,
        offset: int,
        state_dir: Path,
        prepared: Prepared,
        say: Callable[[str], None],
        stopped: Sequence[int] = (),
    ) -> None:
        self.status = 0
        self._stopped = stopped
        self._reactor = reactor
        self._offset = offset
        self._state_dir = state_dir
        self._prepared = prepared
        self._say = say
        self._children: list[Child] = []
        self._sockets = tempfile.mkdtemp(prefix="openems-")
        self._timeout: Any = None
        self._stopping = False
        self._ending = False
        self._welcomed = False

    def start(self) -> None:
        """Raises OSError where the state directory cannot be written to."""
        reactor = self._reactor
        toml = self._state_dir / "backend.toml"
        toml.write_text(embedded(str(self._state_dir), self._offset))
        _write_private(self._state_dir / "fleet.json", json.dumps(self._prepared.edges, indent=2) + "\n")
        reactor.callWhenRunning(self._take_signals)
        reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._notified("backend", self._backend_ready)
        self._timeout = reactor.callLater(START_TIMEOUT, self._fail, "the backend is not ready after two minutes")
        self._spawn("backend", ["openems-backend", "--config", str(toml)])

    def _notified(self, name: str, ready: Callable[[], None]) -> None:
        self._reactor.listenUNIXDatagram(os.path.join(self._sockets, name), Notified(ready), mode=0o600)

    def _spawn(self, name: str, arguments: list[str]) -> None:
        child = Child(name)
        self._children.append(child)
        child.ended.addCallback(self._ended, child)
        environ = dict(os.environ)
        environ.pop("WATCHDOG_USEC", None)
        environ.pop("NOTIFY_SOCKET", None)
        if name == "backend":
            environ["NOTIFY_SOCKET"] = os.path.join(self._sockets, name)
        # A checkout is not on the path of a child by itself.
        root = str(Path(next(iter(openems.__path__))).resolve().parent)
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH")]))
        environ[logfile.VARIABLE] = str(self._state_dir / f"{name}.log")
        self._reactor.spawnProcess(
            child,
            sys.executable,
            [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", f"--logger={logfile.FACTORY}", *arguments],
            env=environ,
            path=None,
        )

    def _backend_ready(self) -> None:
        if self._stopping or self._timeout is None or not self._timeout.active():
            return
        self._timeout.cancel()
        if simulator.available():
            url = f"ws://127.0.0.1:{8081 + self._offset}"
            # The first start sends a month of history, so that charts have something to show; one that was stopped
            # before it was through leaves it to the next.
            fleet, mark = str(self._state_dir / "fleet.json"), str(self._state_dir / "backfilled")
            arguments = ["--url", url, "--fleet", fleet]
            arguments += ["--backfill-days", str(BACKFILL_DAYS), "--backfill-mark", mark]
            self._spawn("simulator", ["openems-simulator", *arguments])
        self._welcomed = True
        self._say(self.welcome())
        self._say("ready")

    def welcome(self) -> str:
        ports = {
            name: port + self._offset
            for name, port in config.listeners(config.parse(embedded("x", self._offset), "")).items()
        }
        password = self._prepared.password
        edges = self._prepared.edges
        return "\n".join(
            [
                "OpenEMS Backend with a simulated fleet",
                f"  edges          ws://127.0.0.1:{ports['edge']} (header apikey)",
                f"  UI             ws://127.0.0.1:{ports['ui.websocket']}",
                f"  Edge.Manager   ws://127.0.0.1:{ports['edge.manager']}",
                f"  health         http://127.0.0.1:{ports['health']}",
                f"  login          admin, password {password or 'as before'}",
                f"  fleet          {' to '.join(dict.fromkeys((next(iter(edges)), list(edges)[-1])))}"
                + ("" if simulator.available() else " (known, but not simulated by this installation)"),
                f"  state and logs {self._state_dir.resolve()}",
                "  stop           Ctrl-C",
            ]
        )

    def _ended(self, status: int, child: Child) -> int:
        if not self._stopping:
            output = child.output.decode(errors="replace").strip() or _last_lines(self._state_dir / f"{child.name}.log")
            self._fail(f"the {child.name} ended with status {status}\n{output}")
        return status

    def _fail(self, reason: str) -> None:
        self._say(f"openems-backend demo: {reason}")
        self.status = 1
        # Not in this call: the reactor may still be starting.
        self._reactor.callLater(0, self._end)

    def _take_signals(self) -> None:
        # After the reactor's own, which know no second Ctrl-C. And a shell starts what runs in its background with
        # SIGINT ignored; here it is one of the two ways to stop.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self._reactor.callFromThread(self._end))
        if self._stopped:
            self._end()

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self._reactor.stop()

    def _stop(self) -> Deferred[Any]:
        self._stopping = True
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        # The fleet first: so its edges end as edges do, and the last data is history.
        done = DeferredList([child.terminate(self._reactor) for child in reversed(self._children)])
        return done.addCallback(lambda _: self._clear())

    def _clear(self) -> None:
        _remove(self._sockets)
        if self._prepared.fresh and not self._welcomed:
            # Nobody has seen the password: the next start is the first one again.
            (self._state_dir / "metadata.json").unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _last_lines(path: Path) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-10:])
    except OSError:
        return ""


def _remove(directory: str) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def run(*, offset: int, admin_password: str | None, state_dir: str, edges: int | None) -> int:
    """Runs until SIGINT or SIGTERM; 0 then, 1 where something did not start or broke off."""
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stopped.append(number))
    from twisted.internet import reactor

    def say(text: str) -> None:
        print(text, flush=True)

    state = Path(state_dir)
    try:
        prepared = prepare(
            state, admin_password=admin_password, edges=edges, new_secret=lambda: secrets.token_urlsafe(18)
        )
        demo = Demo(reactor=reactor, offset=offset, state_dir=state, prepared=prepared, say=say, stopped=stopped)
        demo.start()
    except Unusable as e:
        say(f"openems-backend demo: {e}")
        return 1
    except OSError as e:
        say(f"openems-backend demo: --state {state} cannot be written to: {e.strerror}: {e.filename}")
        return 1
    # At once: a second Ctrl-C while Python clears up would end it with the signal.
    reactor.addSystemEventTrigger("after", "shutdown", lambda: os._exit(demo.status))  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    return demo.status
