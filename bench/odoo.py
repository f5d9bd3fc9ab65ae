"""Metadata in a real Odoo 14: how long the start takes, a login, a write of everybody's status; and an outage.

Everything runs on one machine: Odoo, its PostgreSQL, the backend and the load share its processors.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet import reactor as _reactor
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from bench.generator import Generator
from openems.application import config
from openems.application.backend import Backend
from openems.application.running import in_reactor
from openems.backend.events import EventBus
from openems.backend.metadata.odoo.provider import OdooMetadata
from openems.backend.metadata.odoo.settings import OdooSettings
from openems.common.errors import OpenemsError
from openems.common.role import Level
from openems.common.semver import SemanticVersion
from openems.testing.uiclient import UiClient
from services.framework import Running, free_port
from services.odoo import SERVICE

reactor: Any = _reactor
LOGIN, PASSWORD = "bench@example.com", "secret"
EDGES = (
    "INSERT INTO openems_device (name, name_number, apikey, setup_password, comment, active) SELECT 'edge' || n, n,"
    " 'apikey' || n, 'setup' || n, 'Edge ' || n, TRUE FROM generate_series(0, %s - 1) n"
)


def now() -> int:
    return int(time.time() * 1000)


@contextmanager
def odoo(edges: int) -> Iterator[Running]:
    """With so many edges and one user, who owns ten of them."""
    directory = Path(tempfile.mkdtemp(prefix="openems-bench-odoo-"))
    directory.chmod(0o755)
    running = SERVICE.start(directory)
    try:
        sql(running, EDGES, edges)
        fill(running)
        yield running
    finally:
        running.stop()
        shutil.rmtree(directory, ignore_errors=True)


def fill(running: Running) -> None:
    import xmlrpc.client

    info = running.info
    proxy: Any = xmlrpc.client.ServerProxy(f"{info['url']}/xmlrpc/2/object", allow_none=True)

    def call(model: str, method: str, *arguments: Any) -> Any:
        return proxy.execute_kw(info["database"], info["uid"], info["password"], model, method, arguments)

    user = call("res.users", "create", {"login": LOGIN, "name": "Bench", "password": PASSWORD, "groups_id": []})
    for device in call("openems.device", "search", [["name_number", "<", 10]]):
        call("openems.device_user_role", "create", {"user_id": user, "device_id": device, "role": "owner"})


def sql(running: Running, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(running.info["dsn"])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def settings(running: Running) -> OdooSettings:
    info = running.info
    return OdooSettings(
        url=info["url"],
        password=info["password"],
        uid=info["uid"],
        pg_host="127.0.0.1",
        pg_port=info["pg_port"],
        pg_user=info["pg_user"],
        pg_password=info["pg_password"],
        database=info["database"],
        write_interval=3600,
        poll_interval=3600,
    )


def bare_login(running: Running) -> float:
    """Seconds of one login without anything of ours."""
    params = {"db": running.info["database"], "login": LOGIN, "password": PASSWORD}
    url = f"{running.info['url']}/web/session/authenticate"
    request = urllib.request.Request(url, json.dumps({"params": params}).encode(), {"Content-Type": "application/json"})
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as reply:
        reply.read()
    return time.perf_counter() - began


def measure(*, edges: int, rounds: int) -> dict[str, Any]:
    """``login_ratio``: a login with user and roles, as the UI waits for it, to a bare login of Odoo."""
    with odoo(edges) as running:
        return in_reactor(lambda _: _measure(running, edges, rounds))


async def _measure(running: Running, edges: int, rounds: int) -> dict[str, Any]:
    began = time.perf_counter()
    metadata = OdooMetadata(settings(running), EventBus(), reactor=reactor, now=now)
    await metadata.start()
    initialised = time.perf_counter() - began
    if not metadata.initialized or len(metadata.edges()) != edges:
        raise RuntimeError(f"not initialised: {metadata.health()}")
    try:
        return {
            "edges": edges,
            "initialised_seconds": round(initialised, 3),
            **await _logins(running, metadata, rounds),
            **await _status(running, metadata, edges),
        }
    finally:
        await metadata.stop()


async def _logins(running: Running, metadata: OdooMetadata, rounds: int) -> dict[str, Any]:
    ours, bare = [], []
    logins = metadata.logins
    if logins is None:
        raise RuntimeError("no password logins")
    await logins.authenticate_with_password(LOGIN, PASSWORD, "192.0.2.1:1")
    requests = metadata.rpc.exchange.concurrency.completed
    for _ in range(rounds):
        bare.append(await deferToThread(bare_login, running))
        logins._remembered.clear()
        metadata.users.forget(LOGIN)
        began = time.perf_counter()
        done = await logins.authenticate_with_password(LOGIN, PASSWORD, "192.0.2.1:1")
        await metadata.get_user_by_external_id(done.user_id)
        ours.append(time.perf_counter() - began)
    return {
        "login_ratio": round(statistics.median(ours) / statistics.median(bare), 3),
        "login_seconds": round(statistics.median(ours), 4),
        "bare_login_seconds": round(statistics.median(bare), 4),
        "requests_per_login": (metadata.rpc.exchange.concurrency.completed - requests) / rounds,
    }


async def _status(running: Running, metadata: OdooMetadata, edges: int) -> dict[str, Any]:
    version = SemanticVersion.parse("2026.4.0")
    for edge in metadata.edges():
        edge.set_online(True)
        edge.set_lastmessage(now())
        edge.set_sum_state(Level.WARNING)
        edge.set_version(version)
    began = time.perf_counter()
    await metadata.writer.flush()
    seconds = time.perf_counter() - began
    text = (
        "SELECT count(*) FROM openems_device WHERE openems_is_connected AND openems_sum_state_level = 'warning'"
        " AND openems_version = '2026.4.0'"
    )
    if sql(running, text)[0][0] != edges:
        raise RuntimeError("not everything was written")
    return {"status_seconds": round(seconds, 3), "status_edges_per_second": round(edges / seconds)}


def outage(*, edges: int, seconds: float) -> dict[str, Any]:
    """Odoo and its PostgreSQL away for ``seconds`` while edges report each second."""
    with odoo(edges) as running, tempfile.TemporaryDirectory() as folder:
        return in_reactor(lambda _: _outage(running, folder, edges, seconds))


async def _outage(running: Running, folder: str, edges: int, seconds: float) -> dict[str, Any]:
    info = running.info
    sections: dict[str, Any] = {
        "backend": {"stateDir": folder, "interface": "127.0.0.1"},
        "health": {"enabled": False},
        "edge": {"port": free_port()},
        "ui.websocket": {"port": free_port()},
        "metadata.odoo": {
            "odooHost": "127.0.0.1",
            "odooPort": running.port,
            "odooPassword": info["password"],
            "odooUid": info["uid"],
            "pgHost": "127.0.0.1",
            "pgPort": info["pg_port"],
            "pgUser": info["pg_user"],
            "pgPassword": info["pg_password"],
            "database": info["database"],
            "writeInterval": 2.0,
        },
        "timedata.dummy": [{}],
    }
    backend = Backend(config.parse(config.to_toml(sections), "bench"), reactor=reactor, now=now)
    await backend.start()
    await backend.listening()
    metadata: OdooMetadata = backend.metadata
    generator = Generator("hold", port=backend.ports["edge"], edges=edges, values=25, seconds=seconds + 30)
    ui = UiClient(f"ws://127.0.0.1:{backend.ports['ui.websocket']}", reactor)
    stalls: list[float] = []
    last = [time.perf_counter()]

    def beat() -> None:
        stalls.append(time.perf_counter() - last[0] - 0.05)
        last[0] = time.perf_counter()

    heart = LoopingCall(beat)
    try:
        await deferToThread(generator.ready)
        await ui.connect()
        await ui.login(LOGIN, PASSWORD)
        last[0] = time.perf_counter()
        heart.start(0.05)
        generator.go()
        await deferLater(reactor, 5)
        await deferToThread(SERVICE.stop_odoo, running)
        await deferToThread(SERVICE.stop_postgres, running)
        end, answers, slowest = time.perf_counter() + seconds, 0, 0.0
        while time.perf_counter() < end:
            began = time.perf_counter()
            found = (await ui.request("getEdges", {"page": 0, "limit": 10}))["edges"]
            if len(found) != 10 or not all(edge["isOnline"] for edge in found):
                raise RuntimeError(f"the list of edges is not right: {found}")
            try:
                await ui.request("getUserInformation")
                raise RuntimeError("Odoo is not away")
            except OpenemsError:
                pass
            slowest = max(slowest, time.perf_counter() - began)
            answers += 1
            await deferLater(reactor, 0.5)
        waiting = metadata.writer.waiting
        await deferToThread(SERVICE.resume_postgres, running)
        await deferToThread(SERVICE.resume_odoo, running)
        back = time.perf_counter()
        while metadata.writer.waiting and time.perf_counter() - back < 60:
            await deferLater(reactor, 0.1)
        caught_up = time.perf_counter() - back
        heart.stop()
        figures = await deferToThread(generator.figures)
        online = sql(running, "SELECT count(*) FROM openems_device WHERE openems_is_connected")[0][0]
    finally:
        if heart.running:
            heart.stop()
        generator.end()
        await ui.close()
        metrics = backend.edge_manager.debug_metrics()
        await backend.stop()
    return {
        "edges": edges,
        "away_seconds": seconds,
        "messages": figures["messages"],
        "lost_messages": figures["messages"] - metrics["edgewebsocket0/Messages"],
        "edges_with_waiting_status": waiting,
        "caught_up_seconds": round(caught_up, 2),
        "online_in_odoo_afterwards": online,
        "dropped": metadata.writer.dropped + metadata.configs.dropped + metadata.system_log.dropped,
        "answers_of_users": answers,
        "slowest_answer_seconds": round(slowest, 3),
        "longest_stall_seconds": round(max(stalls), 3),
    }
