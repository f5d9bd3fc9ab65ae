"""Requests, by method and result: what servers and pools call when one has ended (metrics.md 5, 6, 7.3).

Names that a peer chose never get here as they are: each observer knows the names it may use, everything else is
``other``. Where names come from code or configuration, :data:`MAX_CHILDREN` bounds them all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from openems.backend.metrics.families import PREFIX, Labels, counter, gauge, histogram
from openems.common.errors import OUTCOMES
from openems.common.histogram import JAVA_BOUNDS, Histogram

#: Methods, or paths, of one component.
MAX_CHILDREN = 200
OTHER = "other"

_OAUTH = ("getInitMetadata", "getTokenByCode", "getTokenByRefreshToken")
_APP_CENTER = (
    "addDeinstallAppInstanceHistory", "addInstallAppInstanceHistory", "getInstalledApps", "getPossibleApps",
    "getRegisteredKeys", "isAppFree", "isKeyApplicable",
)  # fmt: skip
#: What an edge asks and tells, apart from its data.
_OF_EDGES = frozenset(
    {
        "checkSetupPassword", "edgeConfig", "systemLog", "logMessage",
        *(f"oauthRegistry/{method}" for method in _OAUTH),
        *(f"appCenter/{method}" for method in _APP_CENTER),
    }
)  # fmt: skip

#: Component that asks -> whom it asks.
_TARGETS = {"auth0": "keycloak", "metadata0": "odoo"}

#: Which requests are attempts to log in, and by what.
_ATTEMPTS = {
    "authenticateWithPassword": "password",
    "authenticateWithToken": "token",
    "authenticateWithOAuth/getTokenByCode": "oauth",
    "authenticateWithOAuth/getTokenByRefreshToken": "refresh",
}


class Requests:
    def __init__(self) -> None:
        #: (component, method) -> seconds.
        self.seconds: dict[tuple[str, str], Histogram] = {}
        self.results: Counter[tuple[str, str, str]] = Counter()
        self.queue_wait: dict[str, Histogram] = {}
        self.http_seconds: dict[tuple[str, str], Histogram] = {}
        self.http_results: Counter[tuple[str, str, str]] = Counter()
        self._children: Counter[str] = Counter()

    # --- observers

    def observer(self, component: str) -> Callable[[str, float], None]:
        """``observe(method, seconds)`` for a server whose method names are bounded already."""
        return lambda method, seconds: self._child(self.seconds, component, method).observe(seconds)

    def result_observer(self, interface: str) -> Callable[[str, str], None]:
        """``observe(method, result)``; ``result`` is one of OUTCOMES. Zero from the start, so that rates work."""
        for result in OUTCOMES:
            self.results[(interface, OTHER, result)] += 0

        def observe(method: str, result: str) -> None:
            key = (interface, method, result)
            if key not in self.results and len(self.results) >= MAX_CHILDREN * len(OUTCOMES):
                key = (interface, OTHER, result)
            self.results[key] += 1

        return observe

    def of_edges(self, method: str, seconds: float) -> None:
        """Edge applications wrap everything in ``edgeRpc``, edges connected here do not; that tells them apart."""
        inner = method.removeprefix("edgeRpc/")
        if method == "connectedEdges":
            self._child(self.seconds, "Edge.Manager", method).observe(seconds)
        elif inner == method:
            known = method if method in _OF_EDGES else OTHER
            self._child(self.seconds, "Backend.Edge.Server", known).observe(seconds)
        else:
            known = f"edgeRpc/{inner if inner in _OF_EDGES else OTHER}"
            self._child(self.seconds, "Edge.Manager", known).observe(seconds)

    def of_pool(self, component: str) -> Callable[[str, float, float], None]:
        """``observe(name, waited, ran)`` for a pool of named tasks."""
        self.queue_wait.setdefault(component, Histogram(JAVA_BOUNDS))

        def observe(name: str, waited: float, ran: float) -> None:
            self._child(self.seconds, component, name).observe(ran)
            self.queue_wait[component].observe(waited)

        return observe

    def http(self, component: str) -> Callable[[str, str, float], None]:
        """``observe(path, status, seconds)`` for an HTTP client; ``path`` is a template, ``status`` the code as text or
        ``-1``."""

        def observe(path: str, status: str, seconds: float) -> None:
            self._child(self.http_seconds, component, path).observe(seconds)
            known = path if (component, path) in self.http_seconds else OTHER
            text = status if status == "-1" or (len(status) == 3 and status.isdecimal()) else OTHER
            self.http_results[(component, known, text)] += 1

        return observe

    def _child(self, children: dict[tuple[str, str], Histogram], component: str, name: str) -> Histogram:
        child = children.get((component, name))
        if child is None:
            if self._children[component] >= MAX_CHILDREN:
                name = OTHER
            child = children.get((component, name))
            if child is None:
                self._children[component] += 1
                child = children[(component, name)] = Histogram(JAVA_BOUNDS)
        return child

    # --- to Prometheus

    def collect(self) -> Iterator[Metric]:
        """All but ``websocket_requests``, whose other part is with the fleet."""
        labels = ("component", "path")
        yield histogram(
            "http_requests", "Duration of outgoing HTTP requests in seconds.", self.http_seconds.items(), labels
        )
        results = dict(self.http_results)
        yield gauge("http_request_result", "Finished outgoing HTTP requests; only rises.", results, (*labels, "status"))
        yield from self._http_client()
        yield counter(
            f"{PREFIX}jsonrpc_requests",
            "Requests of peers, by method and how they ended.",
            dict(self.results),
            ("interface", "method", "result"),
        )
        yield histogram(
            f"{PREFIX}jsonrpc_queue_wait_seconds",
            "How long requests waited before work on them began.",
            (((name,), child) for name, child in self.queue_wait.items()),
            ("interface",),
        )
        yield from self._attempts()

    def _http_client(self) -> Iterator[Metric]:
        """The same under names that say what they are: Java's result is a gauge that only rises."""
        labels = ("target", "path")
        yield histogram(
            f"{PREFIX}http_client_request_duration_seconds",
            "How long servers that others run took to answer.",
            (((_TARGETS.get(who, who), path), seconds) for (who, path), seconds in self.http_seconds.items()),
            labels,
        )
        yield counter(
            f"{PREFIX}http_client_requests",
            "Requests to servers that others run, by status; -1: no answer.",
            {(_TARGETS.get(who, who), path, status): n for (who, path, status), n in self.http_results.items()},
            (*labels, "status"),
        )

    def _attempts(self) -> Iterator[Metric]:
        attempts: Counter[Labels] = Counter(
            {(way, result): 0 for way in _ATTEMPTS.values() for result in ("ok", "denied")}
        )
        for (interface, method, result), count in self.results.items():
            if interface == "ui" and method in _ATTEMPTS:
                attempts[(_ATTEMPTS[method], result)] += count
        yield counter(f"{PREFIX}auth_attempts", "Attempts of users to log in.", dict(attempts), ("method", "result"))
