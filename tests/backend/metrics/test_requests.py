"""Requests by method, path and result; nothing that peers invent becomes a label (metrics.md 6.2, 15.4, 23.4)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.requests import MAX_CHILDREN, OTHER, Requests
from openems.backend.ui.labels import label
from openems.common import errors
from openems.common.errors import OpenemsError, generic, outcome
from openems.common.jsonrpc import Request, new_id, raw


def request(*methods: str) -> Request:
    """The methods nested as payloads: ``edgeRpc``, ``getEdgeConfig``."""
    params: dict[str, Any] = {}
    for method in reversed(methods[1:]):
        params = {"edgeId": "edge0", "payload": {"jsonrpc": "2.0", "id": new_id(), "method": method, "params": params}}
    return Request(methods[0], raw(params), new_id())


def collected(requests: Requests) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in requests.collect()
        for sample in family.samples
    }


class TestMethods(SynchronousTestCase):
    def test_23_4_known_names_only(self) -> None:
        self.assertEqual(label(request("foo")), "other")
        self.assertEqual(label(request("edgeRpc", "getEdgeConfig")), "edgeRpc/getEdgeConfig")
        self.assertEqual(label(request("edgeRpc", "foo")), "edgeRpc/other")
        self.assertEqual(label(request("edgeRpc", "edgeRpc", "foo")), "edgeRpc/other")

    def test_22_1_strangers_make_no_series(self) -> None:
        requests = Requests()
        for n in range(1000):
            requests.of_edges(f"evil{n}", 0.1)
            requests.of_edges(f"edgeRpc/evil{n}", 0.1)
            requests.of_edges(f"edgeRpc/appCenter/evil{n}", 0.1)
        self.assertEqual(set(requests.seconds), {("Backend.Edge.Server", OTHER), ("Edge.Manager", f"edgeRpc/{OTHER}")})
        self.assertEqual(requests.seconds[("Backend.Edge.Server", OTHER)].count, 1000)

    def test_what_edges_may_ask(self) -> None:
        requests = Requests()
        requests.of_edges("edgeRpc/checkSetupPassword", 0.1)
        requests.of_edges("appCenter/getPossibleApps", 0.1)
        self.assertEqual(
            set(requests.seconds),
            {("Edge.Manager", "edgeRpc/checkSetupPassword"), ("Backend.Edge.Server", "appCenter/getPossibleApps")},
        )

    def test_bound_where_names_come_from_code(self) -> None:
        requests = Requests()
        observe, results = requests.observer("x"), requests.result_observer("x")
        http = requests.http("y")
        for n in range(MAX_CHILDREN * 10):
            observe(f"m{n}", 0.1)
            results(f"m{n}", "ok")
            http(f"/p{n}", "200", 0.1)
        self.assertLessEqual(len(requests.seconds), MAX_CHILDREN + 1)
        self.assertLessEqual(len(requests.http_results), MAX_CHILDREN + 1)
        self.assertLessEqual(len(requests.results), MAX_CHILDREN * 7)
        self.assertEqual(sum(h.count for h in requests.seconds.values()), MAX_CHILDREN * 10)
        self.assertEqual(sum(requests.results.values()), MAX_CHILDREN * 10)


class TestResults(SynchronousTestCase):
    def test_outcomes(self) -> None:
        for error, expected in (
            (OpenemsError(errors.COMMON_AUTHENTICATION_FAILED), "denied"),
            (OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, "x", "GUEST"), "denied"),
            (OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS), "limited"),
            (generic("No answer within 60 seconds"), "timeout"),
            (generic("No answer to [x] within 60 seconds"), "timeout"),
            (generic("nope"), "error"),
        ):
            self.assertEqual(outcome(error), expected)

    def test_zero_from_the_start(self) -> None:
        requests = Requests()
        requests.result_observer("ui")
        got = collected(requests)
        self.assertEqual(got[("openems_backend_jsonrpc_requests_total", "ui", "other", "error")], 0)
        self.assertEqual(got[("openems_backend_auth_attempts_total", "password", "denied")], 0)

    def test_logins(self) -> None:
        requests = Requests()
        observe = requests.result_observer("ui")
        observe("authenticateWithPassword", "denied")
        observe("authenticateWithOAuth/getTokenByCode", "ok")
        got = collected(requests)
        self.assertEqual(got[("openems_backend_auth_attempts_total", "password", "denied")], 1)
        self.assertEqual(got[("openems_backend_auth_attempts_total", "oauth", "ok")], 1)

    def test_6_3_http(self) -> None:
        requests = Requests()
        observe = requests.http("metadata0")
        observe("/web/session/authenticate", "200", 0.012)
        observe("/web/session/authenticate", "-1", 5.0)
        observe("/web/session/authenticate", "evil", 5.0)
        got = collected(requests)
        path = "/web/session/authenticate"
        self.assertEqual(got[("http_request_result", "metadata0", path, "200")], 1)
        self.assertEqual(got[("http_request_result", "metadata0", path, "-1")], 1)
        self.assertEqual(got[("http_request_result", "metadata0", path, "other")], 1)
        self.assertEqual(got[("http_requests_bucket", "metadata0", "0.025", path)], 1)
        self.assertEqual(got[("http_requests_count", "metadata0", path)], 3)

    def test_17_http_under_names_that_say_what_they_are(self) -> None:
        requests = Requests()
        requests.http("metadata0")("/web/session/authenticate", "200", 0.012)
        requests.http("auth0")("/token", "-1", 5.0)
        got = collected(requests)
        name = "openems_backend_http_client_request"
        self.assertEqual(got[(f"{name}s_total", "/web/session/authenticate", "200", "odoo")], 1)
        self.assertEqual(got[(f"{name}s_total", "/token", "-1", "keycloak")], 1)
        self.assertEqual(got[(f"{name}_duration_seconds_bucket", "0.025", "/web/session/authenticate", "odoo")], 1)

    def test_waits(self) -> None:
        requests = Requests()
        requests.of_pool("core")("handleQueryHistoricDataRequest", 0.3, 2.0)
        got = collected(requests)
        self.assertEqual(got[("openems_backend_jsonrpc_queue_wait_seconds_bucket", "core", "0.25")], 0)
        self.assertEqual(got[("openems_backend_jsonrpc_queue_wait_seconds_bucket", "core", "0.5")], 1)
        self.assertEqual(requests.seconds[("core", "handleQueryHistoricDataRequest")].sum, 2.0)
