"""A server in its own process: ``python -m bench.server bare|backend ...``.

Prints one JSON object with its ports when it listens; answers each line on stdin with its own figures; ends with
stdin. ``--profile FILE`` writes what cProfile saw between the first and the last line.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor as _reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.stdio import StandardIO  # noqa: E402
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogBeginner  # noqa: E402
from twisted.protocols.basic import LineReceiver  # noqa: E402
from zope.interface import implementer  # noqa: E402

from bench import inventory  # noqa: E402

reactor: Any = _reactor


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(
    folder: Path, edges: int, history: str, applications: int = 0, more: dict[str, Any] | None = None
) -> str:
    """TOML of a backend for ``edges`` edges, apikeys ``apikey0`` and so on; any login is taken. ``applications``: edge
    applications that the edges come through, processes of their own. ``more``: sections in place of the usual ones."""
    from openems.application import config

    metadata = {
        "edges": {
            f"edge{n}": {"comment": f"Edge {n}", "apikey": f"apikey{n}", "setuppassword": f"setup{n}"}
            for n in range(edges)
        }
    }
    path = folder / "metadata.json"
    path.write_text(json.dumps(metadata))
    path.chmod(0o600)
    sections: dict[str, Any] = {
        "backend": {"stateDir": str(folder), "interface": "127.0.0.1"},
        "health": {"enabled": False},
        "edge": {"port": free_port(), "processes": applications},
        "ui.websocket": {"port": free_port()},
        "metadata.file": {"path": str(path), "singleUser": True},
    }
    if history == "sqlite":
        sections["timedata.sqlite"] = [{"id": "timedata0", "path": str(folder / "history.sqlite")}]
    return config.to_toml({**sections, **(more or {})})


class Control(LineReceiver):
    delimiter = b"\n"

    def __init__(self, figures: Any, profile: str | None) -> None:
        self._figures = figures
        self._profile = cProfile.Profile() if profile else None
        self._profile_path = profile
        self._asked = False

    def lineReceived(self, line: bytes) -> None:
        if self._profile is not None:
            # So the file has what was between the first line and the last, not the end of the program.
            self._profile.disable()
            if self._asked and self._profile_path:
                self._profile.dump_stats(self._profile_path)
            self._profile.enable()
        self._asked = True
        # Whoever asked waits for a line.
        Deferred.fromCoroutine(self._answer(line)).addErrback(lambda failure: self.say({"error": str(failure)}))

    async def _answer(self, line: bytes) -> None:
        self.say(await self._figures(line.decode()))

    def say(self, value: Any) -> None:
        self.sendLine(json.dumps(value).encode())  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any = None) -> None:
        if self._profile is not None and self._profile_path:
            self._profile.disable()
        if reactor.running:
            reactor.stop()


async def serve(options: argparse.Namespace) -> None:
    backend: Any = None
    if options.kind == "bare":
        from bench import bareserver

        ports = {"edge": await bareserver.start(reactor)}
    else:
        from openems.application import config
        from openems.application.backend import Backend
        from openems.application.descriptors import raise_limit
        from openems.application.service import settle_memory

        raise_limit()
        more = json.loads(Path(options.sections).read_text()) if options.sections else {}
        text = configuration(Path(options.folder), options.edges, options.history, options.applications, more)
        parsed = config.parse(text, "the benchmark")
        backend = Backend(
            parsed[0] if isinstance(parsed, tuple) else parsed,
            reactor=reactor,
            now=lambda: time.time_ns() // 1_000_000,
        )
        await backend.start()
        await backend.listening()
        settle_memory()
        ports = backend.ports
        reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(backend.stop()))

    async def figures(question: str) -> dict[str, Any]:
        if question == "flush":
            for provider in backend.timedata if backend is not None else ():
                await provider.flush()
        answer: dict[str, Any] = {}
        if question in ("tables", "inventory"):
            gc.unfreeze()
            gc.collect()
            answer["tables"] = inventory.tables()
            answer["objects"] = len(gc.get_objects())
            answer["sqlite_bytes"] = inventory.sqlite_bytes()
        if question == "inventory":
            kinds = inventory.types()
            answer["types"] = {name: count for name, (count, _) in kinds.items()}
            answer["type_bytes"] = {name: size for name, (_, size) in kinds.items()}
            del kinds
        answer |= {
            "cpu_seconds": time.process_time(),
            "rss_bytes": rss(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "timers": len(reactor.getDelayedCalls()),
        }
        if backend is not None:
            answer["metrics"] = {**backend.edge_manager.debug_metrics(), **backend.ui.debug_metrics()}
            answer["waiting_bytes"] = backend.ui.websocket.load()[2]
            for provider in backend.timedata:
                answer["metrics"].update(provider.debug_metrics())
                if hasattr(provider, "_spool"):
                    answer["metrics"][f"{provider.id}/Unsafe"] = provider._spool.unsafe
            if backend.edge_processes is not None:
                answer["metrics"].update(backend.edge_processes.debug_metrics())
                children = [usage(child.transport.pid) for child in backend.edge_processes.children]
                answer["applications_cpu_seconds"] = [cpu for cpu, _ in children]
                answer["applications_rss_bytes"] = [size for _, size in children]
                answer["cpu_seconds"] += sum(answer["applications_cpu_seconds"])
                answer["rss_bytes"] += sum(answer["applications_rss_bytes"])
        return answer

    control = Control(figures, options.profile)
    StandardIO(control)
    control.say(ports)


def usage(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of another process."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), rss(pid)


def rss(pid: int | str = "self") -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.server")
    parser.add_argument("kind", choices=("bare", "backend"))
    parser.add_argument("--edges", type=int, default=100)
    parser.add_argument("--history", choices=("off", "sqlite"), default="off")
    parser.add_argument("--applications", type=int, default=0)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--profile")
    parser.add_argument("--sections", help="file: JSON of sections of the configuration")
    options = parser.parse_args()

    def failed(failure: Any) -> None:
        failure.printTraceback(sys.stderr)
        reactor.stop()

    @implementer(ILogObserver)
    def log(event: Any) -> None:
        if event.get("log_level") is LogLevel.critical:
            print(formatEvent(event), file=sys.stderr)
            if "log_failure" in event:
                print(event["log_failure"].getTraceback(), file=sys.stderr)

    # Else Twisted keeps 65,536 events until it knows where to put them: what looks like a leak is none of ours.
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False, discardBuffer=True)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(serve(options)).addErrback(failed))
    reactor.run()


if __name__ == "__main__":
    main()
