"""All sections of a backend."""

from __future__ import annotations

import msgspec

from openems.application.config.alerting import Alerting, MailSmtp, SimulatorMailer
from openems.application.config.b2b import (
    Backend2BackendRest,
    Backend2BackendWebsocket,
    b2b_websocket,
)
from openems.application.config.history import (
    TimedataAggregatedInfluxdb,
    TimedataDummy,
    TimedataInfluxdb,
    TimedataSqlite,
    TimedataTimescaledb,
)
from openems.application.config.listeners import EdgeManager, EdgeWebsocket, UiWebsocket
from openems.application.config.logins import (
    Authentication,
    AuthenticationOAuth,
    AuthenticationOAuthClient,
    OAuthRegistryClient,
)
from openems.application.config.metadata import (
    MetadataDummy,
    MetadataFile,
    MetadataOdoo,
)
from openems.application.config.metrics import MetricsPrometheus
from openems.application.config.process import (
    Backend,
    CoreJsonRpcRequestHandler,
    CoreTimedataManager,
    Health,
)


class Configuration(msgspec.Struct, kw_only=True, frozen=True):
    """All sections. One that is absent is a component that does not run, except those with a default here."""

    backend: Backend = Backend()
    health: Health = Health()
    edge: EdgeWebsocket | None = None
    edge_manager: EdgeManager | None = None
    ui_websocket: UiWebsocket | None = None
    backend2backend_rest: Backend2BackendRest | None = None
    backend2backend_websocket: list[Backend2BackendWebsocket] = []
    authentication: Authentication = Authentication()
    authentication_oauth: AuthenticationOAuth | None = None
    authentication_oauth_clientconfig: list[AuthenticationOAuthClient] = []
    oauthregistry_client: list[OAuthRegistryClient] = []
    metadata_file: MetadataFile | None = None
    metadata_dummy: MetadataDummy | None = None
    metadata_odoo: MetadataOdoo | None = None
    timedata_sqlite: list[TimedataSqlite] = []
    timedata_timescaledb: list[TimedataTimescaledb] = []
    timedata_influxdb: list[TimedataInfluxdb] = []
    timedata_aggregatedinfluxdb: TimedataAggregatedInfluxdb | None = None
    timedata_dummy: list[TimedataDummy] = []
    alerting: Alerting | None = None
    simulator_mailer: SimulatorMailer | None = None
    mail_smtp: MailSmtp | None = None
    metrics_prometheus: MetricsPrometheus | None = None
    core_jsonrpcrequesthandler: CoreJsonRpcRequestHandler = CoreJsonRpcRequestHandler()
    core_timedatamanager: CoreTimedataManager = CoreTimedataManager()

    def port(self, port: int) -> int:
        """The port to bind, the offset added."""
        return port + self.backend.offset

    def interface(self, own: str | None) -> str:
        return self.backend.interface if own is None else own


def listeners(configuration: Configuration) -> dict[str, int]:
    """Section name -> port without offset, of everything that listens."""
    ports: dict[str, int] = {}
    if configuration.health.enabled:
        ports["health"] = configuration.health.port
    if configuration.edge is not None:
        ports["edge"] = configuration.edge.port
    if configuration.edge_manager is not None:
        ports["edge.manager"] = configuration.edge_manager.port
    if configuration.ui_websocket is not None:
        ports["ui.websocket"] = configuration.ui_websocket.port
    if configuration.backend2backend_rest is not None:
        ports["backend2backend.rest"] = configuration.backend2backend_rest.port
    for number, section in enumerate(configuration.backend2backend_websocket):
        ports[b2b_websocket(number)] = section.port
    if configuration.metrics_prometheus is not None:
        ports["metrics.prometheus"] = configuration.metrics_prometheus.port
    return ports
