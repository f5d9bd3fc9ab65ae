"""``[edge] processes``: real processes behind one port, started and watched by the backend."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.application import config, edgeprocess
from openems.application.backend import Backend
from openems.application.service import now_milliseconds
from openems.backend.edgeapplication.counters import Status
from openems.backend.edgeapplication.processes import (
    BACK_OFF,
    END_PATIENCE,
    LOG_LINES,
    LONG_LIFE,
    SILENCE,
    START_PATIENCE,
    Child,
    Settings,
)
from openems.backend.metadata.file.demo import create_demo_file
from openems.common.jsonrpc import Notification, raw
from openems.websocket import sharedport
from openems.websocket.client import ReconnectingClient
from tests.backend.edgeapplication.test_live import LiveCase, Peer

EDGES = 40
KEYS = {f"edge{n}": f"key-of-edge-{n}-0123456789" for n in range(EDGES)}


class Command(SynchronousTestCase):
    def test_environment(self) -> None:
        given = {
            "PATH": "/bin", "LC_ALL": "C", "TZ": "UTC", "LD_PRELOAD": "libjemalloc.so.2", "PYTHONPATH": "/here",
            "OPENEMS_CLIENT_SECRET": "s", "AWS_SECRET_ACCESS_KEY": "s", "PYTHONSTARTUP": "s", "WATCHDOG_USEC": "5",
        }  # fmt: skip
        arguments, environ = edgeprocess.command(given)
        self.assertEqual(arguments[1:], ("-m", "openems.application.edgeprocess"))
        self.assertTrue(environ.pop("PYTHONPATH").endswith(":/here"))
        self.assertEqual(environ, {name: given[name] for name in ("PATH", "LC_ALL", "TZ", "LD_PRELOAD")})


class SharedPort(TestCase):
    def test_the_first_of_a_family_finds_another_one(self) -> None:
        with sharedport.reserve(0, "127.0.0.1") as first:
            port = first.getsockname()[1]
            sharedport.share(port, "127.0.0.1").close()
            first.listen()
            self.assertRaises(CannotListenError, sharedport.reserve, port, "127.0.0.1")

    def test_a_reserved_port_takes_no_connection(self) -> None:
        with sharedport.reserve(0, "127.0.0.1") as first, socket.socket() as client:
            self.assertRaises(ConnectionRefusedError, client.connect, first.getsockname())


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.signals: list[str] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def closeStdin(self) -> None:
        self.closed = True


class Watching(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.spawned: list[Transport] = []
        settings = Settings("edgeapplication0", "ws://127.0.0.1:1", 8081, "", 1 << 20, {"secret": "s"})
        self.child = Child(settings, self.spawn, reactor=self.clock)
        self.child.start()

    def spawn(self, child: Child) -> Transport:
        transport = Transport()
        child.transport = transport  # type: ignore[assignment]
        self.spawned.append(transport)
        return transport

    def dies(self) -> None:
        self.child.processEnded(Failure(ProcessTerminated(1)))

    def says(self, **status: Any) -> None:
        self.child.outReceived(json.dumps(status).encode() + b"\n")

    def test_what_it_is_told(self) -> None:
        told = json.loads(self.spawned[0].written)
        self.assertEqual((told["id"], told["headers"]), ("edgeapplication0", {"secret": "s"}))

    def test_status_in_pieces_and_nonsense(self) -> None:
        self.child.outReceived(b'{"id":"a","conn')
        self.child.outReceived(b'ected":true,"informed":true}\nnonsense\n')
        self.assertEqual(self.child.status, Status(id="a", connected=True, informed=True))
        self.assertTrue(self.child.at_work)
        self.child.outReceived(b"x" * 1_000_000)
        self.assertLess(len(self.child._out), 100_000)

    def test_started_again_with_back_off(self) -> None:
        wait = BACK_OFF[0]
        for number in range(1, 10):
            self.dies()
            self.clock.advance(wait - 0.01)
            self.assertEqual(len(self.spawned), number)
            self.clock.advance(0.02)
            self.assertEqual(len(self.spawned), number + 1)
            wait = min(wait * 2, BACK_OFF[1])
        self.assertEqual(self.child.restarts, 9)
        self.clock.advance(LONG_LIFE + 1)
        self.dies()
        self.clock.advance(BACK_OFF[0])
        self.assertEqual(len(self.spawned), 11)

    def test_a_silent_one_is_killed(self) -> None:
        self.clock.advance(START_PATIENCE)
        self.child.look()
        self.assertEqual(self.spawned[0].signals, [])
        self.says(connected=True)
        self.clock.advance(SILENCE + 1)
        self.child.look()
        self.assertEqual(self.spawned[0].signals, ["KILL"])
        self.dies()
        self.assertFalse(self.child.at_work)

    def test_one_that_never_speaks_is_killed(self) -> None:
        self.clock.advance(START_PATIENCE + 1)
        self.child.look()
        self.assertEqual(self.spawned[0].signals, ["KILL"])

    def test_the_end(self) -> None:
        ended = Deferred.fromCoroutine(self.child.stop())
        self.assertTrue(self.spawned[0].closed)
        self.clock.advance(END_PATIENCE - 0.1)
        self.assertEqual(self.spawned[0].signals, [])
        self.clock.advance(0.2)
        self.assertEqual(self.spawned[0].signals, ["KILL"])
        self.assertNoResult(ended)
        self.dies()
        self.successResultOf(ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end_while_it_waits(self) -> None:
        self.dies()
        self.successResultOf(Deferred.fromCoroutine(self.child.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lines_are_limited(self) -> None:
        lines: list[Any] = []
        self.patch(
            Child, "_log", type("Log", (), {"emit": lambda _, level, template, **more: lines.append((level, more))})()
        )
        self.child.errReceived(b"error that went wrong\nTraceback of the interpreter\n")
        self.assertEqual(
            [(level.name, more["text"]) for level, more in lines],
            [("error", "that went wrong"), ("warn", "Traceback of the interpreter")],
        )
        self.child.errReceived(b"info line\n" * 1000)
        self.assertEqual(len(lines), LOG_LINES)


class Processes(LiveCase):
    timeout = 200

    async def processes(self, **sections: Any) -> Backend:
        create_demo_file(os.path.join(self.state, "metadata.json"), "pass word", list(KEYS.items()))
        document = {
            "backend": {"stateDir": self.state, "offset": self.offset, "interface": "127.0.0.1"},
            "health": {"enabled": False},
            "edge": {"processes": 2},
            "ui.websocket": {},
            "metadata.file": {"path": os.path.join(self.state, "metadata.json")},
            **sections,
        }
        backend = Backend(config.parse(config.to_toml(document), "test"), reactor=reactor, now=now_milliseconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        await backend.start()
        await backend.listening()
        return backend

    async def edges(self, backend: Backend, count: int = EDGES) -> list[Peer]:
        peers = []
        for edge_id in list(KEYS)[:count]:
            peer = Peer()
            client = ReconnectingClient(
                f"ws://127.0.0.1:{backend.ports['edge']}",
                {"apikey": KEYS[edge_id]},
                peer,
                reactor=reactor,
                min_wait=0.3,
                max_wait=0.6,
                name="Edge",
            )
            self.addCleanup(lambda client=client: Deferred.fromCoroutine(client.stop()))
            client.start()
            peers.append(peer)
        await self.until(lambda: all(peer.connection for peer in peers))
        return peers

    async def test_two_behind_one_port(self) -> None:
        backend = await self.processes()
        await self.until(lambda: backend.health()["edge"].ok)
        told = backend.edge_processes.children[0].settings
        self.assertEqual(told.trusted_proxies, backend.configuration.backend.trusted_proxies)
        self.assertEqual(backend.ports["edge"], 8081 + self.offset)
        peers = await self.edges(backend)
        manager = backend.edge_manager
        await self.until(lambda: all(manager.is_connected(edge_id) for edge_id in KEYS))
        children = backend.edge_processes.children
        await self.until(lambda: backend.edge_processes.total("edges") == EDGES)
        shares = [child.status.edges for child in children]
        self.assertGreaterEqual(min(shares), EDGES // 5, shares)

        for number, peer in enumerate(peers):
            peer.connection.notify(Notification("timestampedData", raw({str(now_milliseconds()): {"c/a": number}})))
        await self.until(lambda: manager.get_channel_values(f"edge{EDGES - 1}", ["c/a"]) == {"c/a": EDGES - 1})

        # One dies: its edges come back through the other, and it is started again.
        victim = children[0]
        os.kill(victim.transport.pid, signal.SIGKILL)
        await self.until(lambda: victim.restarts == 1)
        self.assertFalse(backend.health()["edge"].ok)
        await self.until(lambda: all(peer.connection for peer in peers))
        await self.until(lambda: victim.at_work)
        await self.until(lambda: all(manager.is_connected(edge_id) for edge_id in KEYS))
        await self.until(lambda: backend.health()["edge"].ok)
        self.assertIn("started again 1 times", backend.health()["edge"].state)

        # The end takes them all along.
        pids = [child.transport.pid for child in children]
        await backend.stop()
        for pid in pids:
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    async def test_the_internal_listener_is_for_its_own_children(self) -> None:
        backend = await self.processes(edge={"processes": 1})
        port = int(backend.edge_processes.children[0].settings.uri.rpartition(":")[2])
        stranger = Peer()
        client = ReconnectingClient(
            f"ws://127.0.0.1:{port}", {"id": "edges0"}, stranger, reactor=reactor, min_wait=60, max_wait=60, name="x"
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(client.stop()))
        client.start()
        await self.until(lambda: stranger.closes)
        self.assertEqual(stranger.texts, [])

    async def test_secrets_of_the_backend_do_not_reach_its_children(self) -> None:
        """Neither by the environment, where a configuration may have them, nor by the command line."""
        names = ("OPENEMS_CLIENT_SECRET", "PGPASSWORD", "NOTIFY_SOCKET", "PYTHONSECRET")
        for name in names:
            os.environ[name] = "m4rk3r"
            self.addCleanup(os.environ.pop, name, None)
        backend = await self.processes(edge={"processes": 1})
        pid = backend.edge_processes.children[0].transport.pid
        for file in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{file}", "rb") as told:
                text = told.read()
            self.assertTrue(text)
            self.assertNotIn(b"m4rk3r", text)
        await self.edges(backend, 1)
        await self.until(lambda: backend.edge_manager.is_connected("edge0"))

    async def test_beside_real_applications(self) -> None:
        backend = await self.processes(**{"edge": {"processes": 1}, "edge.manager": {}})
        self.assertEqual(backend.edge_processes.children[0].settings.uri, f"ws://127.0.0.1:{8083 + self.offset}")
        await self.edges(backend, 1)
        await self.until(lambda: backend.edge_manager.is_connected("edge0"))

    async def test_stopped_while_it_starts(self) -> None:
        create_demo_file(os.path.join(self.state, "metadata.json"), "pass word", list(KEYS.items()))
        document = {
            "backend": {"stateDir": self.state, "offset": self.offset, "interface": "127.0.0.1"},
            "health": {"enabled": False},
            "edge": {"processes": 1},
            "ui.websocket": {},
            "metadata.file": {"path": os.path.join(self.state, "metadata.json")},
        }
        backend = Backend(config.parse(config.to_toml(document), "test"), reactor=reactor, now=now_milliseconds)
        await backend.start()
        await self.until(lambda: backend.edge_processes.children)
        pid = backend.edge_processes.children[0].transport.pid
        await backend.stop()
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        await backend.listening()

    async def test_a_port_in_use(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 8081 + self.offset))
            other.listen()
            with self.assertRaises(CannotListenError):
                await self.processes()

    async def test_a_child_ends_with_its_parent(self) -> None:
        """The parent is killed: the child sees the end of its stdin."""
        code = (
            "import subprocess, sys, time\n"
            "p = subprocess.Popen([sys.executable, '-m', 'openems.application.edgeprocess'], stdin=subprocess.PIPE,"
            " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
            'p.stdin.write(b\'{"id":"a","uri":"ws://127.0.0.1:1","port":1,"interface":"",'
            '"max_message_size":99999}\\n\'); p.stdin.flush()\n'
            "print(p.pid, flush=True); time.sleep(60)"
        )
        from twisted.internet.protocol import ProcessProtocol

        class Parent(ProcessProtocol):
            pid = 0
            said = b""
            ended: Deferred[None] = Deferred()

            def outReceived(self, data: bytes) -> None:
                Parent.said += data
                if b"\n" in Parent.said:
                    Parent.pid = int(Parent.said)

            def processEnded(self, reason: Failure) -> None:
                Parent.ended.callback(None)

        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
        environ = {**os.environ, "PYTHONPATH": root}
        parent = reactor.spawnProcess(Parent(), sys.executable, [sys.executable, "-c", code], env=environ)
        await self.until(lambda: Parent.pid)
        parent.signalProcess("KILL")
        await Parent.ended

        def gone() -> bool:
            try:
                with open(f"/proc/{Parent.pid}/stat") as stat:
                    return stat.read().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                return True

        await self.until(gone)
