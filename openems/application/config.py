"""The configuration: one TOML file, every section and key of it (core.md 9).

Section names are OpenEMS's component names in lower case, keys are its property names. The fields of
:class:`Configuration` are the sections, its docstrings and descriptions are docs/configuration.md: what is read and
what is documented cannot differ. Everything wrong is found at once and named with file, section, key, reason and, where
a name is misspelt, the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from openems.backend.authentication.keycloak.keyset import ALGORITHMS
from openems.backend.authentication.keycloak.settings import Oem, Realm, problems_of
from openems.backend.authentication.redact import HIDDEN, is_secret
from openems.backend.mail.message import BadAddress, address
from openems.backend.timedata.aggregatedinflux.allowed import AllowedChannels
from openems.backend.timedata.aggregatedinflux.zones import zones_of
from openems.backend.timedata.influx.period import Period
from openems.websocket.proxies import LOOPBACK, TrustedProxies

_HEADER = re.compile(r"^[ \t]*\[([^\[\]\n]+)\]", re.MULTILINE)

Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(min_length=1)]

#: Sections that OpenEMS knows and this version does not have yet: a better answer than "unknown".
LATER: tuple[str, ...] = ()
#: Keys of OpenEMS without a meaning here: there are no message threads.
WITHOUT_EFFECT = (
    "poolSize",
    "clientPoolSize",
    "serverPoolSize",
    "eventPoolSize",
    "debugMode",
    "webconsole.configurationFactory.nameHint",
)


class Section(msgspec.Struct, rename="camel", kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A section of the file; the docstring of each is its documentation."""

    def __repr__(self) -> str:
        """Without secrets: for logs, and tracebacks that show variables."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, HIDDEN if is_secret(name) else getattr(self, name)) for name in self.__struct_fields__]


class Backend(Section, frozen=True):
    """The process as a whole."""

    state_dir: Annotated[
        Text, Meta(description="Directory of everything the backend stores, unless a path says otherwise.")
    ] = "var"
    offset: Annotated[
        int, Meta(ge=0, le=50000, description="Added to every port: several backends on one machine.")
    ] = 0
    interface: Annotated[
        str, Meta(description="Address that listeners bind to which name none of their own; empty: all addresses.")
    ] = ""
    max_message_size: Annotated[
        int,
        Meta(ge=65536, le=1 << 30, description="Bytes of one message; a longer one closes its connection with 1009."),
    ] = 16 * 1024 * 1024
    trusted_proxies: Annotated[
        list[str],
        Meta(
            description="Addresses or networks of reverse proxies: only from these a forwarding header"
            " (`X-Forwarded-For`, `Forwarded`, `X-Real-IP`) tells who the peer is, for limits and logs."
        ),
    ] = msgspec.field(default_factory=lambda: list(LOOPBACK))


class Health(Section, frozen=True):
    """A page for monitoring: 200 when everything works, else 503, with the state of each component as JSON. Always
    there, unless switched off."""

    enabled: bool = True
    port: Annotated[Port, Meta(description="HTTP port.")] = 8079
    interface: Annotated[str, Meta(description="Address to bind to.")] = "127.0.0.1"


class EdgeWebsocket(Section, frozen=True):
    """Listener for OpenEMS Edges themselves (`Controller.Api.Backend`, header `apikey`). Takes the place of the program
    Backend.Edge.App for one machine; both ways may be open at once."""

    port: Annotated[Port, Meta(description="WebSocket port for edges.")] = 8081
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    processes: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Edge applications that the backend starts and watches behind this port, each a process on a "
            "core of its own; 0: the backend takes the edges itself.",
        ),
    ] = 0


class EdgeManager(Section, frozen=True):
    """Listener for Backend.Edge.App programs (component `Edge.Manager`)."""

    port: Annotated[Port, Meta(description="WebSocket port for edge applications.")] = 8083
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None


class UiWebsocket(Section, frozen=True):
    """Listener for the OpenEMS UI (component `Ui.Websocket`)."""

    port: Annotated[Port, Meta(description="WebSocket port for the UI.")] = 8082
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    request_limit: Annotated[int, Meta(ge=1, le=100000, description="Requests a second and connection.")] = 20
    origins: Annotated[
        list[str],
        Meta(
            description="Origins of pages that may connect, e.g. `https://ui.example.com`; empty: any. What is no"
            " browser sends no origin and may always."
        ),
    ] = []
    revalidation: Annotated[
        int,
        Meta(
            ge=10, le=86400, description="Seconds after which it is checked again that a logged-in user still exists."
        ),
    ] = 900
    max_session_age: Annotated[
        int, Meta(ge=0, le=31536000, description="Seconds after which a session has to log in again; 0: never.")
    ] = 0


class Authentication(Section, frozen=True):
    """Logins of users, whichever way. Always there."""

    passwords: Annotated[
        list[Literal["metadata", "oauth"]],
        Meta(
            description="Who is asked for a password, in this order: the metadata in use, the identity provider of"
            " `[authentication.oauth]` (by its client with `serviceAccount`). Who is not there is left out."
        ),
    ] = msgspec.field(default_factory=lambda: ["metadata", "oauth"])
    attempts_of_user: Annotated[
        int, Meta(ge=1, le=1000, description="Wrong attempts of one user from one address before he has to wait.")
    ] = 5
    attempts_of_address: Annotated[
        int, Meta(ge=1, le=100000, description="Wrong attempts from one address before it has to wait.")
    ] = 30


class AuthenticationOAuth(Section, frozen=True):
    """Logins by Keycloak (component `Authentication.OAuth`). See [Keycloak](keycloak.md)."""

    realm: Annotated[Text, Meta(description="The realm, for its administration.")] = "openems"
    base_keycloak_url: Annotated[Text, Meta(description="Keycloak as the backend reaches it, for administration.")] = (
        "http://localhost:7900"
    )
    issuer_url: Annotated[Text, Meta(description="What tokens name as their issuer: Keycloak as browsers see it.")] = (
        "http://localhost:7900/realms/openems"
    )
    login_url: Annotated[Text, Meta(description="Where browsers are sent to log in.")] = (
        "http://localhost:7900/realms/openems/protocol/openid-connect/auth"
    )
    token_url: Annotated[Text, Meta(description="The token endpoint as the backend reaches it.")] = (
        "http://localhost:7900/realms/openems/protocol/openid-connect/token"  # noqa: S105 - an address
    )
    certs_url: Annotated[Text, Meta(description="The signing keys as the backend reaches them.")] = (
        "http://localhost:7900/realms/openems/protocol/openid-connect/certs"
    )
    max_concurrent_requests: Annotated[int, Meta(ge=1, le=10000, description="Requests to Keycloak at once.")] = 50
    max_waiting_requests: Annotated[
        int, Meta(ge=0, le=100000, description="Requests that may wait for that; further ones are refused at once.")
    ] = 200
    request_timeout: Annotated[
        int, Meta(ge=1, le=25, description="Seconds for one request with its reply, waiting included.")
    ] = 10
    keys_refresh: Annotated[int, Meta(ge=10, le=86400, description="Seconds after which keys are fetched anew.")] = 600
    keys_min_interval: Annotated[
        int, Meta(ge=1, le=3600, description="Seconds between fetches that tokens with unknown keys cause.")
    ] = 10
    algorithms: Annotated[list[str], Meta(description="Signature algorithms that are believed.")] = msgspec.field(
        default_factory=lambda: ["RS256"]
    )
    audience: Annotated[str, Meta(description="What must be in `aud` of access tokens; empty: not asked for.")] = ""
    allow_plain_http: Annotated[
        bool, Meta(description="Plain http to other machines; without it only to this machine.")
    ] = False
    password_session_days: Annotated[
        int,
        Meta(
            ge=0,
            le=365,
            description="Days for which a login by password may be taken up again without the password, counted from"
            " its last use; 0: as long as Keycloak's access token is good.",
        ),
    ] = 14
    registration: Annotated[bool, Meta(description="Users may register themselves.")] = True
    registration_roles: Annotated[
        list[Literal["INSTALLER", "OWNER", "GUEST"]], Meta(description="Roles they may choose.")
    ] = msgspec.field(default_factory=lambda: ["INSTALLER", "OWNER"])
    registration_conflict: Annotated[
        Literal["error", "neutral"],
        Meta(description="The reply for an address that is known already: `Http 409 Conflict`, or as for a new one."),
    ] = "error"
    debug_mode: Annotated[
        Literal["OFF", "SIMPLE", "DETAILED"], Meta(description="DETAILED logs each request and reply, without secrets.")
    ] = "OFF"


class AuthenticationOAuthClient(Section, frozen=True):
    """One OEM's client at Keycloak (component `Authentication.OAuth.ClientConfig`)."""

    client_secret: Annotated[Text, Meta(description="Its secret.")]
    oem: Annotated[Text, Meta(description="Name of the UI's theme in lower case.")] = "openems"
    client_id: Annotated[Text, Meta(description="The client's id at Keycloak.")] = "openems"
    redirect_uri: Annotated[Text, Meta(description="Where the UI is that names no address of its own.")] = (
        "http://localhost:4200/"
    )
    redirect_uris: Annotated[
        list[str],
        Meta(description="Addresses that a UI may name, exactly; empty: `redirectUri` and its `oauthcallback`."),
    ] = []
    service_account: Annotated[
        bool, Meta(description="Passwords, new users and the state of users go by this client; one of them can be it.")
    ] = False


class OAuthRegistryClient(Section, frozen=True):
    """A third-party service whose tokens edges may get (component `OAuthRegistry.Client`)."""

    identifier: Annotated[Text, Meta(description="What edges call it.")]
    authentication_url: Annotated[Text, Meta(description="Where users are sent to log in.")]
    token_url: Annotated[Text, Meta(description="Where codes and refresh tokens are exchanged.")]
    client_id: Annotated[Text, Meta(description="Client id at the service.")]
    client_secret: Annotated[Text, Meta(description="Secret of that client; no edge ever sees it.")]
    redirect_uri: Annotated[Text, Meta(description="Redirect that is registered at the service.")]
    issuer_url: Annotated[str, Meta(description="The service's issuer; for information.")] = ""
    edges: Annotated[list[str], Meta(description="Edges that may use it; empty: all.")] = []
    scopes: Annotated[list[str], Meta(description="Scopes that edges may ask for; empty: all.")] = []


class Backend2BackendRest(Section, frozen=True):
    """JSON-RPC over HTTP for other systems (component `Backend2Backend.Rest`), with names and passwords of users; see
    [b2b.md](b2b.md)."""

    port: Annotated[Port, Meta(description="HTTP port.")] = 8075
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    max_body: Annotated[
        int, Meta(ge=1024, le=64 * 1024 * 1024, description="Bytes of one request; a longer one is answered with 413.")
    ] = 1024 * 1024
    request_limit: Annotated[
        Annotated[int, Meta(ge=1, le=100000)] | None, Meta(description="Requests a second and user; absent: no limit.")
    ] = None


class Backend2BackendWebsocket(Section, frozen=True):
    """JSON-RPC and current values over WebSocket for other systems (component `Backend2Backend.Websocket`), with names
    and passwords of users; see [b2b.md](b2b.md)."""

    port: Annotated[Port, Meta(description="WebSocket port.")] = 8076
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    max_values: Annotated[
        int, Meta(ge=1, le=500000, description="Values, edges times channels, of one subscription.")
    ] = 50000
    max_connections: Annotated[
        int, Meta(ge=1, le=100000, description="Connections at the same time; further ones get Close 1013.")
    ] = 2000


class MetadataFile(Section, frozen=True):
    """Edges and users from a JSON file (component `Metadata.File`). It is never written; changes of users go to a state
    file. A changed file is read again by itself."""

    path: Annotated[Text, Meta(description="The JSON file.")]
    state: Annotated[
        Text | None, Meta(description="The state file; absent: beside the file, `<name without extension>-state.json`.")
    ] = None
    language: Annotated[
        Literal["EN", "DE", "CZ", "NL", "ES", "FR"], Meta(description="Language of users who chose none.")
    ] = "DE"
    allow_empty: Annotated[bool, Meta(description="A file without edges is meant.")] = False
    single_user: Annotated[
        bool,
        Meta(description="Development only: without users in the file any login is an administrator. Loopback only."),
    ] = False


class MetadataDummy(Section, frozen=True):
    """Edges made up as they come, for development (component `Metadata.Dummy`): any login is an administrator.
    Loopback only."""

    edge_id_template: Annotated[Text, Meta(description="Format of an edge's id, with one `%d`.")] = "edge%d"
    edge_id_max: Annotated[int, Meta(ge=0, le=100000, description="Highest number that exists from the start.")] = 10


class MetadataOdoo(Section, frozen=True):
    """Edges and users in Odoo (component `Metadata.Odoo`), by its web interface and its PostgreSQL; see
    [odoo.md](odoo.md). Needs the PostgreSQL driver, `openems-backend[postgres]`."""

    database: Annotated[Text, Meta(description="Odoo's database, for both.")]
    odoo_password: Annotated[Text, Meta(description="Password of `odooLogin`.")]
    odoo_protocol: Annotated[Literal["HTTP", "HTTPS"], Meta(description="Of Odoo's web interface.")] = "HTTP"
    odoo_host: Annotated[Text, Meta(description="Where it is.")] = "localhost"
    odoo_port: Annotated[Port, Meta(description="Its port.")] = 8069
    odoo_login: Annotated[Text, Meta(description="Login of a user in the group OpenEMS / Manager.")] = "admin"
    odoo_uid: Annotated[
        int, Meta(ge=1, le=2147483647, description="Its id; 1, which cannot log in, means: ask Odoo for it.")
    ] = 1
    pg_host: Annotated[Text, Meta(description="Where Odoo's PostgreSQL is.")] = "localhost"
    pg_port: Annotated[Port, Meta(description="Its port.")] = 5432
    pg_user: Annotated[Text, Meta(description="User there.")] = "odoo"
    pg_password: Annotated[str, Meta(description="His password.")] = ""
    pg_sslmode: Annotated[
        Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
        Meta(description="TLS as libpq knows it; empty: libpq's default, prefer."),
    ] = ""
    pg_connection_pool_size: Annotated[int, Meta(ge=2, le=500, description="Most sessions; opened as needed.")] = 40
    request_pool_size: Annotated[int, Meta(ge=1, le=1000, description="Requests to Odoo at the same time.")] = 30
    write_interval: Annotated[
        float, Meta(ge=0.1, le=600, description="Seconds between two writes of what edges report.")
    ] = 5.0
    poll_interval: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="Seconds between two looks for new edges, where no trigger tells of them."),
    ] = 10.0
    mark_offline_at_start: Annotated[
        bool, Meta(description="Whether all edges count as offline at the start; false where several share Odoo.")
    ] = True
    enable_password_authentication: Annotated[
        bool, Meta(description="Users may log in with passwords of Odoo, and register with one.")
    ] = True
    registration: Annotated[
        bool,
        Meta(
            description="Whether strangers may register in Odoo, where no identity provider is configured; installers"
            " register their customers in any case."
        ),
    ] = True
    auth_o_auth_provider_name: Annotated[
        Text | None, Meta(description="Name of the auth.oauth.provider of users who log in elsewhere.")
    ] = None
    category_module: Annotated[Text, Meta(description="Module of the external ids of partner categories.")] = "fems"
    customer_login_suffix: Annotated[
        str, Meta(description="An end of a customer's e-mail address that is no part of his login.")
    ] = "@fenecon.de"
    app_center_master_key: Annotated[Text, Meta(description="The key installers install apps with.")] = (
        "DUMMY_MASTER_KEY"
    )


class TimedataSqlite(Section, frozen=True):
    """History in an SQLite database of the backend's own: needs no service."""

    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
    path: Annotated[Text | None, Meta(description="The database; absent: `<id>.sqlite` in the state directory.")] = None
    retention_days_raw: Annotated[int, Meta(ge=1, le=36500, description="Days that values are kept as they came.")] = 31
    retention_days_rollup: Annotated[
        int, Meta(ge=1, le=36500, description="Days that 5-minute values are kept; at least `retentionDaysRaw`.")
    ] = 3660


class TimedataTimescaledb(Section, frozen=True):
    """History in PostgreSQL 15 or later, with TimescaleDB where the server has it (component `Timedata.TimescaleDB`).
    Needs `openems-backend[postgres]`. Tables are made by the backend. What the server does not take waits on disk."""

    user: Annotated[Text, Meta(description="Whoever may create tables in the schema; see isReadOnly.")]
    database: Annotated[Text, Meta(description="The database; it must exist.")]
    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
    host: Annotated[Text, Meta(description="The server, or the folder of its Unix socket.")] = "localhost"
    port: Annotated[Port, Meta(description="Its port.")] = 5432
    password: Annotated[str, Meta(description="Its password.")] = ""
    schema: Annotated[
        str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]{0,62}$", description="The schema of the tables; it must exist.")
    ] = "public"
    is_read_only: Annotated[
        bool, Meta(description="Only ask; another backend writes. The user needs no more than SELECT.")
    ] = False
    pool_size: Annotated[int, Meta(ge=1, le=100, description="Most sessions for questions.")] = 10
    write_pool_size: Annotated[
        int, Meta(ge=1, le=20, description="Batches written at once; two sessions more are for maintenance.")
    ] = 2
    flavour: Annotated[
        Literal["auto", "tsl", "apache", "plain"],
        Meta(description="Tables to begin with; auto: the best the server has. Later it is what it was made as."),
    ] = "auto"
    sslmode: Annotated[
        Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
        Meta(description="TLS as libpq knows it; empty: libpq's default, prefer."),
    ] = ""
    sslrootcert: Annotated[str, Meta(description="File of authorities to trust; empty: libpq's default.")] = ""
    statement_timeout: Annotated[float, Meta(ge=1, le=600, description="Seconds for a question, waiting included.")] = (
        30.0
    )
    batch_rows: Annotated[int, Meta(ge=100, le=50000, description="Values written at once.")] = 5000
    batch_delay: Annotated[float, Meta(ge=0, le=60, description="Seconds that a smaller batch waits for more.")] = 0.5
    max_buffered_rows: Annotated[int, Meta(ge=10000, le=50000000, description="Values that wait in memory.")] = (
        1_000_000
    )
    spool_dir: Annotated[
        Text | None,
        Meta(description="Folder of what waits for the server; absent: `spool-<id>` in the state directory."),
    ] = None
    spool_max_bytes: Annotated[int, Meta(ge=1 << 20, description="Most bytes there.")] = 1 << 30
    raw_retention_days: Annotated[
        int, Meta(ge=0, le=36500, description="Days that values are kept as they came; 0: for ever.")
    ] = 0
    rollup_retention_days: Annotated[
        int, Meta(ge=0, le=36500, description="Days that 5-minute values and texts are kept; 0: for ever.")
    ] = 0
    lookback_days: Annotated[int, Meta(ge=1, le=36500, description="Older values are refused.")] = 3660
    max_channels: Annotated[int, Meta(ge=1, le=1000000, description="Channels of one edge.")] = 10_000
    edges: Annotated[list[Text], Meta(description="Only these are written; empty: all.")] = []
    allowed_channels: Annotated[
        list[Text], Meta(description="Only channels like these are written, one `*` in each part; empty: all.")
    ] = []
    denied_channels: Annotated[list[Text], Meta(description="Channels like these are not written.")] = []


class _InfluxServer(Section, frozen=True):
    url: Annotated[str, Meta(pattern="^https?://[^/]+", description="The server, `http://host:8086`.")]
    bucket: Annotated[Text, Meta(description="Bucket; of InfluxDB 1 the database.")]
    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
    query_language: Annotated[
        Literal["INFLUX_QL", "FLUX"],
        Meta(description="How it is asked; the answers are the same. FLUX is for InfluxDB 2 only."),
    ] = "INFLUX_QL"
    org: Annotated[Text, Meta(description="Organisation; `-` for InfluxDB 1.")] = "-"
    api_key: Annotated[
        str, Meta(description="Token that may read and write the bucket; `user:password` for InfluxDB 1.")
    ] = ""
    tag: Annotated[Text, Meta(description="Tag with the number of the edge.")] = "edge"
    is_read_only: Annotated[bool, Meta(description="Only ask; another backend writes.")] = False
    pool_size: Annotated[
        int, Meta(ge=1, le=100, description="Exchanges at once: so many questions, and apart from them up to 4 writes.")
    ] = 10
    max_queue_size: Annotated[
        int, Meta(ge=1, le=250_000, description="What waits in memory, in units of 200 values; more waits on disk.")
    ] = 5000
    spool_dir: Annotated[
        Text | None,
        Meta(description="Folder of what waits for the server; absent: `spool-<id>` in the state directory."),
    ] = None
    spool_max_bytes: Annotated[int, Meta(ge=1 << 20, description="Most bytes there.")] = 1 << 30


class TimedataInfluxdb(_InfluxServer, frozen=True):
    """History in InfluxDB 1 or 2, in the layout of OpenEMS (component `Timedata.InfluxDB`): what is there is read and
    continued. What the server does not take waits on disk."""

    bucket: Annotated[Text, Meta(description="Bucket; of InfluxDB 1 `database` or `database/retentionPolicy`.")]
    measurement: Annotated[Text, Meta(description="Measurement that has the values.")] = "data"
    start_date: Annotated[
        str | None, Meta(description="First day, `YYYY-MM-DD` (UTC), that this provider has and takes.")
    ] = None
    end_date: Annotated[str | None, Meta(description="Last day that this provider has and takes.")] = None
    blacklisted_channels: Annotated[
        list[Text], Meta(description="Channels that are not written, one `*` in each part.")
    ] = []
    blacklisted_channel_ids: Annotated[
        list[Text], Meta(description="Channel ids that are not written, whatever their component.")
    ] = []
    allowed_channels: Annotated[
        list[Text], Meta(description="Only channels like these are written, one `*` in each part; empty: all.")
    ] = []
    max_channels: Annotated[int, Meta(ge=1, le=1000000, description="Channels of one edge.")] = 10_000


class TimedataAggregatedInfluxdb(_InfluxServer, frozen=True):
    """A small, fast history: averages of five minutes and a counter reading a day (component
    `Timedata.AggregatedInfluxDB`). Name it first in `core.timedatamanager` `ids`: the rest is asked of the next one."""

    bucket: Annotated[Text, Meta(description="Bucket without policy; there must be `<bucket>/<policy>` for both.")]
    retention_policy_avg: Annotated[Text, Meta(description="Retention policy of the averages.")] = "rp_avg"
    retention_policy_max: Annotated[Text, Meta(description="Retention policy of the readings.")] = "rp_max"
    measurement_avg: Annotated[Text, Meta(description="Measurement of the averages.")] = "avg"
    measurements_max: Annotated[
        list[Text], Meta(min_length=1, description="Measurements of the readings, `<time zone>=<measurement>`.")
    ] = msgspec.field(default_factory=lambda: ["Europe/Berlin=max"])
    allowed_channels_avg: Annotated[
        list[Text],
        Meta(
            description="Channels with averages, `meter{0..19}/ActivePower` for twenty; ending in `=double` kept with"
            " decimals. `default` stands for the list of OpenEMS, which an empty one means."
        ),
    ] = []
    allowed_channels_max: Annotated[list[Text], Meta(description="Channels with a reading a day, likewise.")] = []


class TimedataDummy(Section, frozen=True):
    """Keeps nothing and answers nothing (component `Timedata.Dummy`)."""

    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"


class MetricsPrometheus(Section, frozen=True):
    """Metrics for Prometheus at `/metrics`, and `/-/healthy`, `/-/ready` (component `Metrics.Prometheus`). The page
    about metrics lists them."""

    port: Annotated[Port, Meta(description="HTTP port.")] = 9400
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    bearer_token: Annotated[
        str, Meta(description="Whoever asks must send it, `Authorization: Bearer <token>`; empty: nobody must.")
    ] = ""
    next_bearer_token: Annotated[
        str, Meta(description="Another token that is good, too: for a change without a gap.")
    ] = ""
    open_health: Annotated[
        bool, Meta(description="`/-/healthy` and `/-/ready` without a token: for probes that can send none.")
    ] = False


class Alerting(Section, frozen=True):
    """Mails to users about edges that are offline, or in WARNING or FAULT (component `Alerting`). It needs a mailer:
    `[mail.smtp]`, or `[simulator.mailer]` for development. See [Alerting](alerting.md)."""

    initial_delay: Annotated[
        int,
        Meta(description="Minutes after the start before edges that are offline are looked for; 0 or less: at once."),
    ] = 15
    notify_on_offline: Annotated[bool, Meta(description="Mails when an edge stays offline.")] = True
    notify_on_sum_state_change: Annotated[bool, Meta(description="Mails when an edge stays in WARNING or FAULT.")] = (
        True
    )
    mass_outage_minimum: Annotated[
        int,
        Meta(ge=0, le=1000000, description="Edges that go offline together are a mass outage from this number on; 0:"
             " never."),
    ] = 20  # fmt: skip
    mass_outage_percent: Annotated[
        int, Meta(ge=1, le=100, description="And from this share of the edges that were online.")
    ] = 30
    mass_outage_hold: Annotated[
        int, Meta(ge=1, le=10080, description="Minutes that users are not told of a mass outage.")
    ] = 60


class SimulatorMailer(Section, frozen=True):
    """Mails become lines of the log (component `Simulator.Mailer`), for development."""

    id: Annotated[Text, Meta(description="Stands in those lines.")] = "SimulatorMail"


class MailSmtp(Section, frozen=True):
    """Mails to users over a mail server of one's own. What waits for the server is kept on disk."""

    host: Annotated[Text, Meta(description="The mail server; its certificate must be for this name.")]
    from_address: Annotated[Text, Meta(description="Sender of all mails.")]
    port: Annotated[Port, Meta(description="587 for `starttls`, 465 for `tls`.")] = 587
    security: Annotated[
        Literal["starttls", "tls", "none"],
        Meta(description="TLS after the greeting, from the first byte, or not at all."),
    ] = "starttls"
    username: Annotated[str, Meta(description="Login; empty: none.")] = ""
    password: Annotated[str, Meta(description="Its password.")] = ""
    ca: Annotated[
        str, Meta(description='Authority to trust instead of the machine\'s own, PEM: `{ file = "ca.pem" }`.')
    ] = ""
    helo: Annotated[str, Meta(description="Name said to the server; empty: the domain of `fromAddress`.")] = ""
    timeout: Annotated[int, Meta(ge=5, le=600, description="Seconds for one mail, all of it.")] = 60
    from_name: Annotated[str, Meta(description="Name of the sender; empty: `oem`.")] = ""
    reply_to: Annotated[str, Meta(description="Where replies go; empty: the sender.")] = ""
    envelope_sender: Annotated[str, Meta(description="Where bounces go; empty: the sender.")] = ""
    oem: Annotated[Text, Meta(description="Name that stands in the mails.")] = "OpenEMS"
    signature: Annotated[str, Meta(description="At the end of each mail.")] = ""
    imprint: Annotated[str, Meta(description="In the foot of each mail.")] = ""
    base_url: Annotated[str, Meta(description="Of the UI, for links to edges and settings; empty: no links.")] = ""
    language: Annotated[
        Literal["EN", "DE", "CZ", "NL", "ES", "FR"], Meta(description="For readers whose language is not known.")
    ] = "EN"
    timezone: Annotated[Text, Meta(description="For readers whose time zone is not known.")] = "UTC"
    templates: Annotated[Text | None, Meta(description="Directory of texts and layouts of one's own.")] = None
    spool: Annotated[
        Text | None, Meta(description="Directory of waiting mails; absent: `mail` in the state directory.")
    ] = None
    max_per_minute: Annotated[int, Meta(ge=1, le=100000, description="Mails a minute.")] = 60
    max_connections: Annotated[int, Meta(ge=1, le=20, description="Mails at the same time.")] = 2
    max_per_hour: Annotated[
        int, Meta(ge=1, le=10000, description="Mails one user gets an hour; if there are more, one tells of all.")
    ] = 20
    give_up_after: Annotated[int, Meta(ge=1, le=720, description="Hours after which a mail is given up.")] = 48
    operators: Annotated[list[str], Meta(description="Addresses that are told of mass outages.")] = []
    dry_run: Annotated[bool, Meta(description="Everything but the sending.")] = False


class CoreJsonRpcRequestHandler(Section, frozen=True):
    """Queries of users (component `Core.JsonRpcRequestHandler`)."""

    query_thread_pool_size: Annotated[int, Meta(ge=1, le=1000, description="Queries of history at the same time.")] = 20
    query_thread_pool_max_queue_size: Annotated[
        int, Meta(ge=0, le=1000000, description="Queries that may wait; further ones are refused.")
    ] = 1000


class CoreTimedataManager(Section, frozen=True):
    """The order of history providers (component `Core.TimedataManager`)."""

    ids: Annotated[
        list[str],
        Meta(description="Ids of providers; the first is asked first. `timedata.ids`, the full name, is the same."),
    ] = []


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


class BadConfiguration(Exception):
    """What is wrong with a file: ``problems`` are complete lines for a human."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(problems))


class Known(msgspec.Struct, frozen=True):
    """One section as the reader and the documentation see it."""

    name: str
    field: str
    section: type[Section]
    many: bool


def known_sections(configuration: type[msgspec.Struct]) -> dict[str, Known]:
    """Section name -> what the reader knows of it, of a struct whose fields are sections."""
    table: dict[str, Known] = {}
    for field in msgspec.structs.fields(configuration):
        many = get_origin(field.type) is list
        types = get_args(field.type) if many or get_origin(field.type) in (Union, UnionType) else (field.type,)
        section = next(t for t in types if t is not NoneType)
        name = field.name.replace("_", ".")
        table[name] = Known(name, field.name, section, many)
    return table


KNOWN = known_sections(Configuration)


def _nearest(name: str, known: list[str]) -> str:
    lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f'; the nearest known is "{lower[found[0]]}"' if found else ""


class _Reader:
    """Turns a decoded document into sections, collecting problems."""

    def __init__(
        self,
        source: str,
        strict: bool,
        environ: Mapping[str, str],
        directory: Path,
        headers: frozenset[str],
        known: Mapping[str, Known] = KNOWN,
    ) -> None:
        self.source = source
        self.known = known
        self.headers = headers
        self.strict = strict
        self.environ = environ
        self.directory = directory
        self.problems: list[str] = []
        self.found: dict[str, Any] = {}

    def problem(self, section: str, key: str, reason: str) -> None:
        where = f"[{section}] {key}" if key else f"[{section}]"
        self.problems.append(f"{self.source}: {where if section else key}: {reason}")

    def walk(self, table: dict[str, Any], path: str) -> None:
        """``table`` is the content of ``[path]``: its own keys, and sections below."""
        own: dict[str, Any] = {}
        for key, value in table.items():
            name = f"{path}.{key}" if path else key
            below = any(known == name or known.startswith(name + ".") for known in self.known)
            if below:
                self.section(name, value)
            else:
                own[key] = value
        if path in self.known:
            known = self.known[path]
            # [edge.manager] alone makes no [edge]; an empty [edge] does, which only the header tells.
            if own or path in self.headers or len(own) == len(table):
                self.read(known, own)
        else:
            for key, value in own.items():
                self.unknown(path, key, value)

    def section(self, name: str, value: Any) -> None:
        known = self.known.get(name)
        if isinstance(value, dict):
            self.walk(value, name)
        elif isinstance(value, list) and known is not None and value and all(isinstance(v, dict) for v in value):
            if not known.many:
                self.problem(name, "", f"may be there only once: [{name}], not [[{name}]]")
                return
            for entry in value:
                self.walk(entry, name)
        else:
            self.problem("", name, f"is a section: [{name}]")

    def unknown(self, path: str, key: str, value: Any) -> None:
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict | list):
            full = self._deepest(name, value)
            later = next((x for x in LATER if full == x or full.startswith(x + ".") or x.startswith(name + ".")), None)
            if later is not None and self.known is KNOWN:
                self.problem(full, "", "is not available in this version")
                return
            self.problem(full, "", f"unknown section{_nearest(full, list(self.known))}")
        else:
            self.problem(path, key, f"unknown key{_nearest(name, list(self.known)) or '; no section has it'}")

    @staticmethod
    def _deepest(name: str, value: Any) -> str:
        """``[a.b]`` with an unknown ``a`` is reported as a.b."""
        while isinstance(value, dict) and len(value) == 1:
            key, inner = next(iter(value.items()))
            if not isinstance(inner, dict | list):
                break
            name, value = f"{name}.{key}", inner
        return name

    def read(self, known: Known, table: dict[str, Any]) -> None:
        values: dict[str, Any] = {}
        if known.field == "core_timedatamanager" and isinstance(table.get("timedata"), dict):
            table = {**table, **table["timedata"]}
            del table["timedata"]
        fields = {field.encode_name: field for field in msgspec.structs.fields(known.section)}
        before = len(self.problems)
        for key, raw in table.items():
            if key not in fields:
                if key in WITHOUT_EFFECT:
                    self.problem(known.name, key, "has no effect here, there are no message threads; leave it out")
                else:
                    self.problem(known.name, key, f"unknown key{_nearest(key, list(fields))}")
                continue
            value = self.indirect(known.name, key, raw)
            try:
                values[fields[key].name] = msgspec.convert(value, fields[key].type, strict=self.strict)
            except msgspec.ValidationError as e:
                self.problem(known.name, key, str(e).replace("`", ""))
        for key, field in fields.items():
            if field.required and key not in table:
                self.problem(known.name, key, "is required")
        if len(self.problems) > before:
            return
        section = known.section(**values)
        if known.many:
            self.found.setdefault(known.field, []).append(section)
        elif known.field in self.found:
            self.problem(known.name, "", "is there twice")
        else:
            self.found[known.field] = section

    def indirect(self, section: str, key: str, value: Any) -> Any:
        """``{ env = "NAME" }`` and ``{ file = "path" }`` stand for a text that is kept elsewhere."""
        if not isinstance(value, dict) or len(value) != 1:
            return value
        way, name = next(iter(value.items()))
        if not isinstance(name, str) or way not in ("env", "file"):
            return value
        if way == "env":
            if name not in self.environ:
                self.problem(section, key, f"the environment has no {name}")
            return self.environ.get(name, "-")
        try:
            return (self.directory / name).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            self.problem(section, key, f"cannot read {name}: {getattr(e, 'strerror', None) or 'no text'}")
            return "-"


def _contradictions(configuration: Configuration) -> list[str]:
    """What is wrong between sections."""
    problems: list[str] = []
    for network in configuration.backend.trusted_proxies:
        try:
            TrustedProxies([network])
        except ValueError as e:
            problems.append(f"[backend] trustedProxies: {e}")
    sources = {
        "[metadata.file]": configuration.metadata_file,
        "[metadata.dummy]": configuration.metadata_dummy,
        "[metadata.odoo]": configuration.metadata_odoo,
    }
    if all(section is None for section in sources.values()):
        problems.append(f"nothing says which edges exist: one of {', '.join(sources)} is needed")
    given = [name for name, section in sources.items() if section is not None]
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} exclude each other")
    problems += oauth_problems(configuration)
    problems += b2b_problems(configuration)
    problems += mail_problems(configuration)
    ports: dict[int, str] = {}
    for name, listener in listeners(configuration).items():
        if configuration.port(listener) > 65535:
            problems.append(f"[{name}] port: {listener} plus the offset {configuration.backend.offset} is above 65535")
        if listener in ports:
            problems.append(f"[{name}] port: {listener} is the port of [{ports[listener]}] already")
        ports[listener] = name
    ids: set[str] = set()
    for id_ in [
        *(p.id for p in configuration.timedata_sqlite),
        *(p.id for p in configuration.timedata_timescaledb),
        *(p.id for p in configuration.timedata_influxdb),
        *(p.id for p in (configuration.timedata_aggregatedinfluxdb,) if p is not None),
        *(p.id for p in configuration.timedata_dummy),
    ]:
        if id_ in ids:
            problems.append(f'[[timedata]] id: two providers have the id "{id_}"')
        ids.add(id_)
    for provider in configuration.timedata_sqlite:
        if provider.retention_days_raw > provider.retention_days_rollup:
            problems.append(
                f"[timedata.sqlite] retentionDaysRaw: {provider.retention_days_raw} is more than retentionDaysRollup"
            )
    for database in configuration.timedata_timescaledb:
        if 0 < database.rollup_retention_days < (database.raw_retention_days or 1 << 30):
            problems.append(
                "[timedata.timescaledb] rollupRetentionDays: less than rawRetentionDays: as long as values are kept"
                " as they came, so must be their 5-minute values"
            )
    problems += influx_problems(configuration)
    for id_ in configuration.core_timedatamanager.ids:
        if id_ not in ids:
            problems.append(f'[core.timedatamanager] ids: there is no provider "{id_}"{_nearest(id_, sorted(ids))}')
    return problems


def b2b_problems(configuration: Configuration) -> list[str]:
    """Other systems log in by password; without anybody who takes one the servers would refuse everyone."""
    if configuration.backend2backend_rest is None and not configuration.backend2backend_websocket:
        return []
    ways = configuration.authentication.passwords
    clients = configuration.authentication_oauth_clientconfig
    if "metadata" in ways or ("oauth" in ways and any(client.service_account for client in clients)):
        return []
    return ["[backend2backend] needs passwords, and [authentication] passwords names nobody who takes any"]


def oauth_problems(configuration: Configuration) -> list[str]:
    section, clients = configuration.authentication_oauth, configuration.authentication_oauth_clientconfig
    problems: list[str] = []
    if section is None:
        if clients:
            problems.append("[[authentication.oauth.clientconfig]] is there, [authentication.oauth] is not")
    else:
        if not clients:
            problems.append("[authentication.oauth] needs an [[authentication.oauth.clientconfig]] for each OEM")
        problems += [
            f"[authentication.oauth] {problem}" for problem in problems_of(oauth_realm(section), oems(clients))
        ]
        problems += [
            f'[authentication.oauth] algorithms: "{name}" is not known{_nearest(name, list(ALGORITHMS))}'
            for name in section.algorithms
            if name not in ALGORITHMS
        ]
    seen: set[str] = set()
    for client in configuration.oauthregistry_client:
        if client.identifier in seen:
            problems.append(f'[[oauthregistry.client]] identifier: "{client.identifier}" is there twice')
        seen.add(client.identifier)
    return problems


def influx_problems(configuration: Configuration) -> list[str]:
    problems: list[str] = []
    aggregated = configuration.timedata_aggregatedinfluxdb
    servers: list[TimedataInfluxdb | TimedataAggregatedInfluxdb] = [*configuration.timedata_influxdb]
    for server in [*servers, *([] if aggregated is None else [aggregated])]:
        if server.query_language == "FLUX" and server.org == "-":
            problems.append(f'[[timedata]] org: "{server.id}" is asked in FLUX, and InfluxDB 2 has organisations')
    for provider in configuration.timedata_influxdb:
        try:
            period = Period.of(provider.start_date, provider.end_date)
        except ValueError as error:
            problems.append(f"[timedata.influxdb] startDate, endDate: a day looks like 2026-01-31: {error}")
        else:
            if period.begin is not None and period.end is not None and period.begin >= period.end:
                problems.append(f"[timedata.influxdb] endDate: {provider.end_date} is before {provider.start_date}")
    if aggregated is not None:
        try:
            zones_of(aggregated.measurements_max)
        except ValueError as error:
            problems.append(f"[timedata.aggregatedinfluxdb] measurementsMax: {error}")
        try:
            AllowedChannels(aggregated.allowed_channels_avg, aggregated.allowed_channels_max)
        except ValueError as error:
            problems.append(f"[timedata.aggregatedinfluxdb] allowedChannelsAvg, allowedChannelsMax: {error}")
    return problems


def mail_problems(configuration: Configuration) -> list[str]:
    section = configuration.mail_smtp
    if section is None:
        return []
    problems: list[str] = []
    if configuration.simulator_mailer is not None:
        problems.append("[mail.smtp] and [simulator.mailer] exclude each other")
    addresses = {"fromAddress": section.from_address, "replyTo": section.reply_to}
    addresses["envelopeSender"] = section.envelope_sender
    for key, text in [*addresses.items(), *(("operators", operator) for operator in section.operators)]:
        try:
            if text or key in ("fromAddress", "operators"):
                address(text)
        except BadAddress as e:
            problems.append(f'[mail.smtp] {key}: "{text}" {e}')
    if bool(section.username) != bool(section.password):
        problems.append("[mail.smtp] username and password belong together")
    if section.password and section.security == "none" and section.host not in ("127.0.0.1", "::1", "localhost"):
        problems.append("[mail.smtp] security: without TLS the password would be readable on its way")
    if section.base_url and not re.match(r"https?://[^\s<>\"]+\Z", section.base_url):
        problems.append(f'[mail.smtp] baseUrl: "{section.base_url}" is no address of a page')
    if section.helo and not re.match(r"[A-Za-z0-9.:\[\]-]{1,255}\Z", section.helo):
        problems.append(f'[mail.smtp] helo: "{section.helo}" is no host name')
    try:
        ZoneInfo(section.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problems.append(f'[mail.smtp] timezone: there is no "{section.timezone}", such as Europe/Berlin')
    if section.templates is not None:
        # Imported late: few have templates of their own.
        from openems.backend.mail.render import BadTemplates, Templates
        from openems.backend.mail.render import Oem as MailOem

        try:
            Templates(MailOem(), section.templates)
        except BadTemplates as e:
            problems.append(f"[mail.smtp] templates: {e}")
    if section.ca and "-----END CERTIFICATE-----" not in section.ca:
        problems.append('[mail.smtp] ca: is no certificate in PEM; a file is given as { file = "ca.pem" }')
    return problems


def oauth_realm(section: AuthenticationOAuth) -> Realm:
    return Realm(
        realm=section.realm,
        base_url=section.base_keycloak_url,
        issuer=section.issuer_url,
        login_url=section.login_url,
        token_url=section.token_url,
        certs_url=section.certs_url,
    )


def oems(clients: list[AuthenticationOAuthClient]) -> list[Oem]:
    return [
        Oem(
            oem=client.oem,
            client_id=client.client_id,
            client_secret=client.client_secret,
            redirect_uri=client.redirect_uri,
            redirect_uris=client.redirect_uris,
            service_account=client.service_account,
        )
        for client in clients
    ]


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


def b2b_websocket(number: int) -> str:
    """The name of one of several, counted from 0."""
    return f"backend2backend.websocket {number + 1}" if number else "backend2backend.websocket"


def from_document(
    document: dict[str, Any],
    source: str,
    *,
    strict: bool = True,
    environ: Mapping[str, str] = os.environ,
    directory: Path = Path("."),
    headers: frozenset[str] = frozenset(),
) -> Configuration:
    """Check and convert a decoded document. ``strict`` False also takes numbers written as text (Felix files);
    ``headers`` are sections that are there although nothing is in them.

    Raises :class:`BadConfiguration` with every problem found.
    """
    reader = _Reader(source, strict, environ, directory, headers)
    reader.walk(document, "")
    if reader.problems:
        raise BadConfiguration(source, reader.problems)
    configuration = Configuration(**reader.found)
    problems = _contradictions(configuration)
    if problems:
        raise BadConfiguration(source, [f"{source}: {problem}" for problem in problems])
    return configuration


def sections(text: str, source: str, known: Mapping[str, Known], **options: Any) -> dict[str, Any]:
    """Field -> section, for a program with a configuration of its own. Raises :class:`BadConfiguration`."""
    document, headers = _document(text, source)
    reader = _Reader(
        source, True, options.get("environ", os.environ), options.get("directory", Path(".")), headers, known
    )
    reader.walk(document, "")
    if reader.problems:
        raise BadConfiguration(source, reader.problems)
    return reader.found


def parse(text: str, source: str, **options: Any) -> Configuration:
    document, headers = _document(text, source)
    return from_document(document, source, headers=headers, **options)


def _document(text: str, source: str) -> tuple[dict[str, Any], frozenset[str]]:
    """And the headers that are in it, which a section without keys leaves no other trace of."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise BadConfiguration(source, [f"{source}: no valid TOML: {e}"]) from None
    return document, frozenset(name.strip() for name in _HEADER.findall(text))


def load(path: str | Path, *, environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read a TOML file. Raises :class:`BadConfiguration`; a file that cannot be read, too."""
    text = read_text(Path(path))
    return parse(text, str(path), environ=environ, directory=Path(path).parent)


def read_text(path: Path) -> str:
    """UTF-8, with or without byte order mark. Raises :class:`BadConfiguration` that says what permission is wanted."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except PermissionError:
        raise BadConfiguration(str(path), [_unreadable(path)]) from None
    except OSError as e:
        raise BadConfiguration(str(path), [f"{path}: cannot be read: {e.strerror}"]) from None
    except UnicodeDecodeError as e:
        raise BadConfiguration(str(path), [f"{path}: is no UTF-8 text (byte {e.start})"]) from None


def _unreadable(path: Path) -> str:
    wanted = f"user {_user_name(os.geteuid())} needs read permission"
    try:
        stat = path.stat()
    except OSError:
        return f"{path}: permission denied, a directory above it is closed; {wanted}"
    owner = _user_name(stat.st_uid)
    return f"{path}: permission denied, it belongs to {owner} with mode {stat.st_mode & 0o7777:04o}; {wanted}"


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def to_toml(document: Mapping[str, Any]) -> str:
    """``{section: {key: value}}`` or ``{section: [{..}, ..]}`` as TOML text."""
    parts: list[str] = []
    for section, tables in document.items():
        many = isinstance(tables, list)
        for table in tables if many else [tables]:
            lines = [f"[[{section}]]" if many else f"[{section}]"]
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items()]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON's texts, numbers and booleans are TOML's, except for DEL.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def documentation() -> str:
    """docs/configuration.md."""
    parts = [
        "# Configuration\n\n"
        "Made by `openems-backend config-docs` from the types that read the file; do not edit.\n\n"
        "One TOML file. Section names are OpenEMS's component names in lower case, keys are its property names. "
        "A section that is absent is a component that does not run, unless it says otherwise. Anything unknown or of "
        "a wrong type is refused at start, with file, section, key and reason; `openems-backend check-config FILE` "
        "does the same without starting.\n\n"
        'A text may be kept elsewhere: `key = { env = "NAME" }` takes it from the environment, '
        '`key = { file = "path" }` from a file '
        "(relative to the configuration file; the line end at its end is not part of it).\n\n"
        "A Felix configuration folder is read as it is (`--felix DIR`), or converted by "
        "`openems-backend convert-felix DIR`.\n"
    ]
    parts += documented_sections(KNOWN)
    parts.append("\n## Example\n\n```toml\n" + EXAMPLE + "```\n")
    return "".join(parts)


def documented_sections(known_sections: Mapping[str, Known]) -> list[str]:
    """Markdown of each section with its keys."""
    parts: list[str] = []
    for known in known_sections.values():
        brackets = f"[[{known.name}]]" if known.many else f"[{known.name}]"
        parts.append(f"\n## `{brackets}`\n\n{' '.join((known.section.__doc__ or '').split())}")
        if known.many:
            parts.append(" May be there several times.")
        parts.append("\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n")
        for field in msgspec.structs.fields(known.section):
            type_, meaning = _documented(field.type)
            if field.required:
                default = "required"
            elif field.default is not msgspec.NODEFAULT:
                default = "absent" if field.default is None else f"`{_toml_value(field.default)}`"
            else:
                default = f"`{_toml_value(field.default_factory())}`" if callable(field.default_factory) else ""
            parts.append(f"| `{field.encode_name}` | {type_} | {default} | {meaning} |\n")
    return parts


def _documented(type_: Any) -> tuple[str, str]:
    meaning, limits = "", []
    while get_origin(type_) is Annotated:
        type_, *metas = get_args(type_)
        for meta in metas:
            meaning = meaning or meta.description or ""
            limits += [f"{meta.ge} to {meta.le}"] if meta.ge is not None else []
    if get_origin(type_) in (Union, UnionType):
        inner = [_documented(t)[0] for t in get_args(type_) if t is not NoneType]
        text = ", ".join(inner)
    elif get_origin(type_) is Literal:
        text = ", ".join(f"`{value}`" for value in get_args(type_))
    elif get_origin(type_) is list:
        text = "list of texts"
    else:
        text = {str: "text", int: "integer", float: "number", bool: "true, false"}[type_]
    return f"{text}, {limits[0]}" if limits else text, meaning


EXAMPLE = """\
[backend]
stateDir = "/var/lib/openems-backend"

[edge]

[edge.manager]

[ui.websocket]
interface = "127.0.0.1"

[metadata.file]
path = "/etc/openems-backend/metadata.json"

[[timedata.sqlite]]
retentionDaysRaw = 60
"""
