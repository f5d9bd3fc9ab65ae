"""The real Prometheus scrapes a running backend with simulated edges; rules and dashboard ask it (metrics.md 19).

Without Odoo and Keycloak nothing asks them: their two metrics are fed by hand, everything else is what the parts tell.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import treq
import yaml
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from openems.application import config
from openems.application.backend import Backend
from openems.backend.metadata.file.demo import create_demo_file
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, raw
from openems.simulator.fleet import Fleet
from openems.testing.uiclient import UiClient
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection
from services.prometheus import promtool
from tests.backend.metrics import queries
from tests.real import fresh, real

reactor: Any = _reactor
TOKEN = "a token of the test"
EDGES = 10
#: promtool would have other names for these; they are Java's (metrics.md 15).
JAVAS_OWN = ("thread_pool_active_count",)


def now() -> int:
    return time.time_ns() // 1_000_000


def ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Silent:
    """An edge application that tells its numbers."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def opened(self) -> None:
        told = {"edgeIds": [], "metrics": {"Connections": 118, "Pending": 0, "Active": 1, "Bar": 5}}
        self.connection.notify(Notification("connectedEdges", raw(told)))

    def received(self, text: bytes) -> bool:
        return True

    def notification(self, notification: Notification) -> None:
        pass

    async def request(self, request: Any) -> Any:
        return {}

    def closed(self) -> None:
        pass


class TestFiles(SynchronousTestCase):
    """promtool's own opinion of the files in deploy/."""

    def setUp(self) -> None:
        real("prometheus")

    def promtool(self, *arguments: str | Path, text: str | None = None) -> str:
        done = subprocess.run(
            [promtool(), *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_check_rules(self) -> None:
        self.assertIn(f"{len(list(queries.rules()))} rules found", self.promtool("check", "rules", queries.RULES))

    def test_test_rules(self) -> None:
        self.assertIn("SUCCESS", self.promtool("test", "rules", queries.RULES.with_name("rules_test.yml")))

    def test_every_rule_has_a_test_in_which_it_fires(self) -> None:
        tests = yaml.safe_load(queries.RULES.with_name("rules_test.yml").read_text())["tests"]
        fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each["exp_alerts"]}
        self.assertEqual({name for name, _ in queries.rules()} - fired, set())

    def test_check_config(self) -> None:
        self.promtool("check", "config", queries.RULES.with_name("prometheus.yml"))

    def test_dashboard(self) -> None:
        panels = queries.panels()
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            self.assertTrue(panel["type"] == "row" or panel["targets"], panel["title"])


class TestPrometheus(TestCase):
    timeout = 120

    async def setUp(self) -> None:
        self.prometheus = fresh("prometheus")
        self.addCleanup(self.prometheus.stop)
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.agent = Agent(reactor, pool=self.pool)
        self.state = os.path.abspath(self.mktemp())
        await self.start_backend()
        await self.start_peers()

    async def start_backend(self) -> None:
        keys = {f"edge{n}": f"key-of-edge-{n}-0123456789" for n in range(EDGES)}
        create_demo_file(os.path.join(self.state, "metadata.json"), "pass word", keys.items())
        edge, manager, ui, metrics, rest, websocket = ports(6)
        text = config.to_toml(
            {
                "backend": {"stateDir": self.state, "interface": "127.0.0.1"},
                "health": {"enabled": False},
                "edge": {"port": edge},
                "edge.manager": {"port": manager},
                "ui.websocket": {"port": ui},
                "backend2backend.rest": {"port": rest},
                "backend2backend.websocket": [{"port": websocket}],
                "metadata.file": {"path": os.path.join(self.state, "metadata.json")},
                "timedata.sqlite": [{"id": "timedata0", "path": os.path.join(self.state, "history.sqlite")}],
                "alerting": {},
                "mail.smtp": {"host": "127.0.0.1", "fromAddress": "backend@example.org"},
                "metrics.prometheus": {"port": metrics, "bearerToken": TOKEN},
            }
        )
        self.backend = Backend(config.parse(text, "test"), reactor=reactor, now=now)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.backend.stop()))
        await self.backend.start()
        await self.backend.listening()
        self.urls = {"edge": edge, "manager": manager, "ui": ui, "metrics": metrics}
        assert self.backend.requests is not None
        self.backend.requests.http("metadata0")("/openems_backend/get_edges", "200", 0.1)
        self.keys = keys

    async def start_peers(self) -> None:
        fleet = Fleet(f"ws://127.0.0.1:{self.urls['edge']}", self.keys, reactor=reactor, now=now, cycle=0.5)
        await fleet.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(fleet.stop()))
        application = ReconnectingClient(
            f"ws://127.0.0.1:{self.urls['manager']}",
            {"id": "edges7"},
            Silent,
            reactor=reactor,
            min_wait=1,
            max_wait=1,
            name="Application",
        )
        application.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(application.stop()))
        self.ui = UiClient(f"ws://127.0.0.1:{self.urls['ui']}", reactor)
        await self.ui.connect()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ui.close()))
        await self.ui.login("admin", "pass word")

    async def use(self) -> None:
        """What a user does."""
        await self.ui.request("getEdges", {"page": 0, "limit": 20, "query": "", "searchParams": {}})
        await self.ui.request("subscribeEdges", {"edges": ["edge0"]})
        today = time.strftime("%Y-%m-%d")
        query = {"timezone": "UTC", "fromDate": today, "toDate": today, "channels": ["_sum/EssSoc"]}
        try:
            await self.ui.edge_rpc("edge0", "queryHistoricTimeseriesData", query)
        except OpenemsError as e:
            self.assertIn("Result is null", e.message)  # nothing is written yet
        for method in ("madeUpByAStranger", "getEdge"):
            try:
                await self.ui.request(method, {"edgeId": "nope"})
            except OpenemsError:
                pass

    async def fetch(self, path: str, token: str) -> tuple[int, bytes]:
        headers = Headers({"Authorization": [f"Bearer {token}"]})
        url = f"http://127.0.0.1:{self.urls['metrics']}{path}".encode()
        response = await self.agent.request(b"GET", url, headers)
        return response.code, await treq.content(response)

    async def ask(self, path: str, **parameters: str) -> Any:
        """Prometheus's own API."""
        query = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
        url = f"{self.prometheus.info['url']}/api/v1/{path}?{query}".encode()
        response = await self.agent.request(b"GET", url)
        answer = json.loads(await treq.content(response))
        self.assertEqual(answer["status"], "success", (parameters, answer))
        return answer["data"]

    async def value(self, query: str) -> float:
        result = (await self.ask("query", query=query))["result"]
        return float(result[0]["value"][1]) if result else float("nan")

    async def until(self, query: str, good: Callable[[float], bool]) -> float:
        for _ in range(120):
            found = await self.value(query)
            if good(found):
                return found
            await deferLater(reactor, 0.25)
        self.fail(f"{query} is {found}")

    async def scrape(self) -> None:
        target = f"127.0.0.1:{self.urls['metrics']}"
        jobs = [
            {
                "job_name": job,
                "authorization": {"type": "Bearer", "credentials": token},
                "static_configs": [{"targets": [target]}],
            }
            for job, token in (("openems-backend", TOKEN), ("stranger", "wrong"))
        ]
        document = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(queries.RULES)],
            "scrape_configs": jobs,
        }
        self.prometheus.info["configuration"].write_text(yaml.safe_dump(document))
        response = await self.agent.request(b"POST", f"{self.prometheus.info['url']}/-/reload".encode())
        self.assertEqual(response.code, 200, await treq.content(response))

    async def test_all(self) -> None:
        code, body = await self.fetch("/metrics", "wrong")
        self.assertEqual((code, body), (401, b""))
        await self.use()
        await self.scrape()
        await self.until('up{job="openems-backend"}', lambda up: up == 1)
        await self.use()
        await self.until("openems_backend_metric_scrapes_total", lambda scrapes: scrapes >= 5)
        await self.use()
        await self.values_are_right()
        await self.no_query_is_about_nothing()
        await self.strangers_make_nothing()
        await self.promtool_is_content()

    async def values_are_right(self) -> None:
        self.assertEqual(await self.value('openems_backend_edges{state="online"}'), EDGES)
        self.assertEqual(await self.value('websocket_connections{component="edges0"}'), EDGES)
        self.assertEqual(await self.value('websocket_connections{component="edges7"}'), 118)
        self.assertEqual(await self.value('websocket_connections{component="edgewebsocket0"}'), 1)
        self.assertEqual(await self.value('websocket_connections{component="uiwebsocket0"}'), 1)
        self.assertEqual(await self.value('thread_pool_queue{component="b2bwebsocket0"}'), 0)
        self.assertEqual(await self.value('thread_pool_max_size{component="coreJsonRpcRequestHandler0"}'), 20)
        rate = 'rate(websocket_requests_count{component="Backend.Edge.Server",method="timestampedData"}[5s])'
        self.assertGreater(await self.value(rate), EDGES / 2)
        task = (
            'websocket_requests_count{component="coreJsonRpcRequestHandler0",method="handleQueryHistoricDataRequest"}'
        )
        self.assertGreaterEqual(await self.value(task), 1)
        self.assertGreaterEqual(await self.value("openems_backend_timedata_write_points_total"), 1)
        query = "openems_backend_timedata_query_duration_seconds_count"
        self.assertGreaterEqual(await self.value(f'{query}{{provider="timedata0",query="data"}}'), 1)
        self.assertEqual(await self.value("sum(openems_backend_metric_collector_errors_total)"), 0)

    async def no_query_is_about_nothing(self) -> None:
        asked = [*queries.rules(), *queries.dashboard()]
        self.assertGreater(len(asked), 60)
        missing = []
        for selector in sorted(set().union(*(queries.selectors(query) for _, query in asked))):
            if not (await self.ask("query", query=selector))["result"]:
                missing.append(selector)
        self.assertEqual(missing, [])
        for _, query in asked:
            await self.ask("query", query=query)
        groups = (await self.ask("rules"))["groups"]
        health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        self.assertEqual(set(health.values()), {"ok"}, health)
        # Nothing is wrong with this backend, so nothing may be said.
        alerts = (await self.ask("alerts"))["alerts"]
        self.assertEqual([a["labels"]["alertname"] for a in alerts if a["state"] == "firing"], [])

    async def strangers_make_nothing(self) -> None:
        targets = (await self.ask("targets"))["activeTargets"]
        state = {target["labels"]["job"]: (target["health"], target["lastError"]) for target in targets}
        self.assertEqual(state["openems-backend"], ("up", ""))
        self.assertEqual(state["stranger"][0], "down")
        self.assertIn("401", state["stranger"][1])
        methods = await self.ask("label/method/values")
        self.assertNotIn("madeUpByAStranger", methods)
        self.assertIn("other", methods)
        series = (await self.ask("query", query='count({job="openems-backend"})'))["result"][0]["value"][1]
        self.assertLess(int(series), 2000)

    async def promtool_is_content(self) -> None:
        code, body = await self.fetch("/metrics", TOKEN)
        self.assertEqual(code, 200)
        checked = subprocess.run(
            [promtool(), "check", "metrics"], input=body, capture_output=True, timeout=60, check=False
        )
        complaints = [line for line in (checked.stdout + checked.stderr).decode().splitlines() if line.strip()]
        self.assertEqual([line for line in complaints if not line.startswith(JAVAS_OWN)], [])
