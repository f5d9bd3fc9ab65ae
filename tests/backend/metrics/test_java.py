"""Every metric that the Java backend was seen to have is here under its name, type and labels (metrics.md 5, 6).

``java-backend.txt`` is what a Java backend answered after a scripted session of UI, edges and other backends. The same
is done here, request by request; what differs is in the tables below and in docs/compatibility.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.ui.labels import label
from openems.common.histogram import JAVA_BOUNDS
from tests.backend.edge.world import START
from tests.backend.metrics.test_components import Part
from tests.backend.metrics.test_fleet import data, wrapped
from tests.backend.metrics.test_requests import request
from tests.backend.metrics.world import MetricsWorld

#: Names of methods that are nobody's, which Java takes from the peer: here they are ``other`` (metrics.md 22, 1).
INVENTED = {
    "unknownMethod": "other",
    "edgeRpc/noSuchEdgeMethod": "edgeRpc/other",
    "edgeRpc/componentJsonApi/x": "edgeRpc/componentJsonApi/other",
}
#: What a Java machine has and Python has not (metrics.md 8).
NOT_HERE = ("jvm_",)
#: In the list of metrics.md 5, though nothing happened that would have moved them.
ALSO = {
    "http_requests": ("histogram", {"component", "path", "le"}),
    "http_request_result": ("gauge", {"component", "path", "status"}),
    "alerting_messages_sent": ("gauge", {"component"}),
    "alerting_messages_queue": ("gauge", {"component"}),
}


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def recorded() -> dict[str, Metric]:
    answer = (Path(__file__).parent / "java-backend.txt").read_text()
    return families(answer.replace("\r\n", "\n").partition("\n\n")[2])


def label_names(family: Metric) -> set[str]:
    return {name for sample in family.samples for name in sample.labels}


def children(family: Metric, *names: str) -> set[tuple[str, ...]]:
    return {tuple(sample.labels[name] for name in names) for sample in family.samples}


class TestJava(SynchronousTestCase):
    def setUp(self) -> None:
        self.java = {name: family for name, family in recorded().items() if not name.startswith(NOT_HERE)}
        numbers = {
            f"{component}/{name}": 1
            for component in ("uiwebsocket0", "b2bwebsocket0", "coreJsonRpcRequestHandler0")
            for name in ("PoolSize", "MaxPoolSize", "Active", "Pending", "Completed")
        }
        numbers |= {"uiwebsocket0/Connections": 1, "b2bwebsocket0/Connections": 1}
        numbers |= {"alerting_offline/AlertingMessagesSent": 1, "alerting_offline/AlertingMessagesQueue": 1}
        self.world = MetricsWorld()
        self.world.metrics.components.parts.append(Part(numbers))
        self.world.requests.http("metadata0")("/openems_backend/info", "200", 0.1)
        self.replay()
        self.ours = families(self.world.text())

    def replay(self) -> None:
        """Every method of the recording, asked here."""
        requests = self.world.requests
        application = self.world.application("edges0")
        ui = requests.observer("uiwebsocket0")
        pool = requests.of_pool("coreJsonRpcRequestHandler0")
        for component, method in children(self.java["websocket_requests"], "component", "method"):
            if component == "uiwebsocket0":
                ui(label(request(*method.split("/"))), 0.01)
            elif component == "coreJsonRpcRequestHandler0":
                pool(method, 0.0, 0.01)
            elif method == "connectedEdges":
                told: dict[str, Any] = {"edgeIds": ["edge0"], "metrics": {"Connections": 1}}
                application.receive({"jsonrpc": "2.0", "method": method, "params": told})
            else:
                inner = data(method.removeprefix("edgeRpc/"), START, EssSoc=1)
                application.receive(wrapped("edge0", inner))

    def test_the_recording_is_one(self) -> None:
        self.assertGreater(len(self.java), 10)
        self.assertGreater(len(children(self.java["websocket_requests"], "component", "method")), 40)

    def test_names_types_and_labels(self) -> None:
        expected = {name: (family.type, label_names(family)) for name, family in self.java.items()} | ALSO
        for name, (kind, labels) in expected.items():
            self.assertIn(name, self.ours)
            self.assertEqual(self.ours[name].type, kind, name)
            self.assertEqual(label_names(self.ours[name]), labels, name)

    def test_sample_names(self) -> None:
        for name, family in self.java.items():
            theirs = {sample.name for sample in family.samples}
            self.assertEqual({sample.name for sample in self.ours[name].samples}, theirs, name)

    def test_components(self) -> None:
        for name, family in self.java.items():
            if "component" in label_names(family) and name != "websocket_requests":
                missing = children(family, "component") - children(self.ours[name], "component")
                # An application tells its pool itself; this one told its connections only.
                self.assertEqual(missing - {("edges0",)}, set(), name)
        self.assertIn(("edges0",), children(self.ours["websocket_connections"], "component"))

    def test_methods(self) -> None:
        theirs = {
            (component, INVENTED.get(method, method))
            for component, method in children(self.java["websocket_requests"], "component", "method")
        }
        self.assertEqual(theirs - children(self.ours["websocket_requests"], "component", "method"), set())

    def test_buckets(self) -> None:
        bounds = {sample.labels["le"] for sample in self.java["websocket_requests"].samples if "le" in sample.labels}
        self.assertEqual(bounds, {*(repr(bound) for bound in JAVA_BOUNDS), "+Inf"})
        for name in ("websocket_requests", "http_requests"):
            ours = {sample.labels["le"] for sample in self.ours[name].samples if "le" in sample.labels}
            self.assertEqual(ours, bounds, name)
