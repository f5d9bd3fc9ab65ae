"""The contracts between the bundles: what the Java program declares as services, as zope interfaces (core.md 1).

Everything that may wait is a coroutine (or returns an awaitable); failures a user may see are
:class:`openems.common.errors.OpenemsError`. Times are epoch milliseconds or aware datetimes, energies Wh, powers W.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from openems.backend.models import (
        Authenticated,
        Checked,
        Edge,
        History,
        MailRecipient,
        OAuthStart,
        OAuthTokens,
        PageRequest,
        SetupProtocolCoreInfo,
        User,
        UserAlertingSettings,
    )
    from openems.common.data import DataNotification, Value
    from openems.common.jsonrpc import Notification, Request
    from openems.common.resolution import Resolution
    from openems.common.role import Language, Role


class IMetadata(Interface):
    """Edges, users, roles, configurations (metadata.md 2)."""

    initialized: bool = Attribute("True once edges and users are known; MetadataInitialized was published then.")

    def get_edge(edge_id: str) -> Edge | None:
        """The edge, or None; no I/O."""

    def edges() -> Sequence[Edge]:
        """All edges, in no promised order."""

    def edge_id_for_apikey(apikey: str) -> str | None:
        """Exact and case-sensitive."""

    def apikeys_to_edge_ids() -> Mapping[str, str]:
        """What ``updateMetadataCache`` carries (metadata.md 10)."""

    def edge_id_for_setup_password(setup_password: str) -> str | None:
        """None also for an empty password."""

    def get_user_by_external_id(user_id: str) -> Awaitable[User]:
        """The user of a login. Raises 1003 if there is none."""

    def get_user_role(user: User, edge_id: str) -> Role | None:
        """The user's role for this edge; None if he has nothing to do with it. No I/O, asked for each request."""

    def get_page(user: User, request: PageRequest) -> Awaitable[list[dict[str, Any]]]:
        """EdgeMetadata shapes (wire.md 4.15) of the edges the user may see (metadata.md 8)."""

    def get_edge_metadata(user: User, edge_id: str) -> Awaitable[dict[str, Any]]:
        """One EdgeMetadata shape; code 1 ``Unable to find edge with id [..]`` (metadata.md 8.4)."""

    def get_edge_config(edge_id: str) -> Awaitable[Raw]:
        """The stored configuration, verbatim; ``{"components":{},"factories":{}}`` if there is none."""

    def add_edge_to_user(user: User, edge: Edge) -> Awaitable[None]: ...

    def get_serial_number(edge_id: str) -> Awaitable[str | None]: ...

    def get_ems_type(edge_id: str) -> Awaitable[str | None]: ...

    def get_user_information(user: User) -> Awaitable[dict[str, Any]]:
        """The ``user`` member of the reply (wire.md 6.3)."""

    def set_user_information(user: User, information: dict[str, Any]) -> Awaitable[None]: ...

    def update_user_language(user: User, language: Language) -> Awaitable[User]:
        """Returns the changed user."""

    def update_user_settings(user: User, settings: dict[str, Any]) -> Awaitable[User]:
        """Merged into the stored ones (ui.md 19, 44). Returns the changed user."""

    def get_user_alerting_settings(edge_id: str) -> Awaitable[list[UserAlertingSettings]]: ...

    def set_user_alerting_settings(
        user: User, edge_id: str, settings: list[UserAlertingSettings]
    ) -> Awaitable[None]: ...

    def submit_setup_protocol(user: User, protocol: dict[str, Any]) -> Awaitable[int]: ...

    def get_setup_protocol(user: User, setup_protocol_id: int) -> Awaitable[bytes]:
        """A PDF."""

    def get_setup_protocol_data(user: User, edge_id: str) -> Awaitable[dict[str, Any]]: ...

    def get_setup_protocols_core_info(edge_id: str) -> Awaitable[list[SetupProtocolCoreInfo]]:
        """Newest first; the first is the one of ``getLatestSetupProtocolCoreInfo``."""

    def log_generic_system_log(edge_id: str, user: User, teaser: str, values: dict[str, str]) -> None:
        """Audit of a system command (core.md 3.5)."""


class IAuthUserPasswordAuthenticationService(Interface):
    """auth.md 2.1. Every refusal is error 1003."""

    def authenticate_with_password(username: str, password: str, remote: str) -> Awaitable[Authenticated]:
        """``remote`` is the peer's address, for limits."""

    def authenticate_with_token(token: str) -> Awaitable[Authenticated]: ...

    def logout(token: str) -> Awaitable[None]: ...


class IPasswordChecks(Interface):
    """A password service that opens sessions elsewhere; for clients that send theirs each time (auth.md Q24)."""

    def check_password(username: str, password: str, remote: str) -> Awaitable[Checked]:
        """As ``authenticate_with_password``; no session stays of it."""


class IAuthUserAuthorizationCodeFlowService(Interface):
    """auth.md 2.2."""

    def initiate_connect(oem: str | None, redirect_uri: str | None, remote: str) -> Awaitable[OAuthStart]:
        """``remote`` is the peer's address, for limits."""

    def token_by_code(oem: str, identifier: str, code: str) -> Awaitable[OAuthTokens]: ...

    def token_by_refresh_token(oem: str, refresh_token: str) -> Awaitable[OAuthTokens]: ...


class IAuthUserRegistrationService(Interface):
    """auth.md 2.3; ``record`` is the checked ``user`` object of registerUser (ui.md 6)."""

    def register_user(record: dict[str, Any]) -> Awaitable[None]: ...

    def register_user_if_not_exist(record: dict[str, Any]) -> Awaitable[None]: ...


class IUserRegistry(Interface):
    """Metadata that can create users (auth.md 8.6, 9)."""

    def register_user(record: dict[str, Any], oem: str) -> Awaitable[None]:
        """``record``: as for :class:`IAuthUserRegistrationService`, with ``oauthUid`` (and ``oauthProviderId`` -1)
        where the user logs in by an identity provider. Raises OpenemsError; then nothing was created."""


class ILoginSessions(Interface):
    """What an identity provider knows of open sessions of its users; a password or code-flow service may provide it."""

    def logout(token: str) -> Awaitable[None]:
        """Ends the session at the identity provider. A token of others, or of a session that ended, is no error."""

    def still_valid(token: str | None, user_id: str) -> Awaitable[bool]:
        """False: the user was disabled or removed, or the session was ended. True also for tokens of others, and while
        nobody can tell."""

    def connection_closed(token: str) -> None:
        """The connection that logged in with this token is gone: forget what was kept for its logout."""


class IAppCenterMetadata(Interface):
    """metadata.md 16.1. Results are the decoded JSON values of wire.md 6.12."""

    def is_key_applicable(key: str, edge_id: str, app_id: str | None) -> Awaitable[dict[str, Any]]: ...

    def get_possible_apps(key: str, edge_id: str) -> Awaitable[list[Any]]: ...

    def add_install_app_instance_history(
        key: str, edge_id: str, app_id: str, instance_id: str, user_id: str | None
    ) -> Awaitable[None]: ...

    def add_deinstall_app_instance_history(
        edge_id: str, app_id: str, instance_id: str, user_id: str | None
    ) -> Awaitable[None]: ...

    def get_installed_apps(edge_id: str) -> Awaitable[list[Any]]: ...

    def add_register_key_history(edge_id: str, app_id: str | None, key: str, user: User) -> Awaitable[None]: ...

    def add_unregister_key_history(edge_id: str, app_id: str | None, key: str, user: User) -> Awaitable[None]: ...

    def get_registered_keys(edge_id: str, app_id: str | None) -> Awaitable[list[Any]]: ...

    def get_suppliable_key(user: User, edge_id: str, app_id: str) -> Awaitable[str]: ...

    def is_app_free(user: User, app_id: str) -> Awaitable[bool]: ...


class IOAuthRegistry(Interface):
    """auth.md 10: tokens of third-party services for edges. An unknown identifier is code 1."""

    def get_init_metadata(edge_id: str, identifier: str) -> dict[str, str]:
        """``authenticationUrl``, ``clientId``, ``redirectUrl``."""

    def fetch_tokens_from_code(
        edge_id: str, identifier: str, code: str, scopes: list[str], code_verifier: str | None
    ) -> Awaitable[dict[str, str]]:
        """``accessToken``, ``refreshToken``."""

    def fetch_tokens_from_refresh_token(
        edge_id: str, identifier: str, refresh_token: str, scopes: list[str]
    ) -> Awaitable[dict[str, str]]: ...


class IEdgeManager(Interface):
    """The fleet: links, cache, requests (edge.md 3.12)."""

    def send(edge_id: str, user: User, role: Role, request: Request) -> Awaitable[Raw]:
        """Forward ``request`` in an ``authenticatedRpc``; the innermost ``result`` object (edge.md 3.7).

        3000 if the edge is not connected; code 1 after the time-out (``request.timeout``, else 60 s) or when the
        connection closes; the edge's own error otherwise.
        """

    def subscribe_system_log(edge_id: str, user: User, role: Role, session_id: str, request: Request) -> Awaitable[Raw]:
        """edge.md 3.9, ``request.params.subscribe``; returns the innermost ``result``."""

    def unsubscribe_system_logs(session_id: str) -> None:
        """A UI session ended or logged out: forget all its system-log subscriptions."""

    def get_channel_values(edge_id: str, channels: Sequence[str]) -> dict[str, Value]:
        """Every requested address in ascending order; None where unknown or the edge is not connected."""

    def is_connected(edge_id: str) -> bool: ...


class IUiWebsocket(Interface):
    """What the edge side tells the UIs (ui.md 1.1)."""

    def send(session_id: str, edge_id: str, notification: Notification) -> bool:
        """Wrapped in ``edgeRpc`` to one session; False if it is gone."""

    def send_broadcast(edge_id: str, notification: Notification) -> None:
        """Wrapped in ``edgeRpc`` to every session that subscribed the edge."""

    def send_subscribed_channels(edge_id: str) -> None:
        """New values are in the cache: push ``currentData`` to the sessions that watch this edge (ui.md 10.3)."""


class IJsonRpcRequestHandler(Interface):
    """Requests of users, whichever way they came (core.md 2)."""

    def handle_request(context: str, user: User, request: Request) -> Awaitable[Any]:
        """The ``result`` (anything :func:`openems.common.jsonrpc.raw` takes). 4001 for unknown methods."""


class IBackendTimedata(Interface):
    """History: written and asked (core.md 1.2). One grid for all providers:
    :func:`openems.common.resolution.periods`; a channel that is not a column of the answer was not answered."""

    def write(edge_id: str, data: DataNotification) -> None:
        """Takes the data at once or queues it; never blocks, never raises for a peer's data."""

    def query_historic_data(
        edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> Awaitable[History]:
        """The mean of each period (the definitions are in timedata.md 13 and timedata-timescaledb.md 24.2)."""

    def query_historic_energy(
        edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str]
    ) -> Awaitable[dict[str, Value]]:
        """Rise of each counter over the span, aware of resets (timedata-timescaledb.md 24.3)."""

    def query_historic_energy_per_period(
        edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> Awaitable[History]: ...

    def query_first_value_before(edge_id: str, date: datetime, channels: Sequence[str]) -> Awaitable[dict[str, Value]]:
        """The newest value strictly before ``date``."""


class ITimedata(IBackendTimedata):
    """A provider."""

    id: str = Attribute("The provider's id, unique; ``timedata.ids`` orders by it.")


class ITimedataManager(IBackendTimedata):
    """All providers behind one (core.md 4). Raises code 1 where nobody has an answer."""


class IMailer(Interface):
    """core.md 1.5."""

    def send_mail(send_at: int, template_id: str, contexts: Sequence[dict[str, Any]]) -> Awaitable[int]:
        """One mail a context (``recipients``, ``edgeId``, ...); the number sent."""


class IAlertingStore(Interface):
    """What alerting must know after a restart. A metadata provider may provide it; for one that does not, a file of
    alerting's own does. No I/O but in ``flush``: changes are written within a second or so."""

    def pending_alerts() -> Mapping[str, Raw]:
        """Edge id -> what was kept for it, JSON."""

    def keep_pending_alert(edge_id: str, pending: Raw | None) -> None:
        """None: nothing is pending any more."""

    def set_last_notification(
        edge_id: str, user_login: str, *, offline: int | None = None, sum_state: int | None = None
    ) -> None:
        """When the last mail of a kind went out, in epoch milliseconds; ``get_user_alerting_settings`` tells it. A time
        never goes back: after a start the last ones may come again."""

    def flush() -> Awaitable[None]:
        """Everything is on disk when this returns; raises OpenemsError if it cannot be."""


class INotificationStamps(Interface):
    """When users were last told of an edge, kept where their settings are. For a metadata provider that is no
    :class:`IAlertingStore` and whose own mailer, if it has one, keeps them by itself."""

    def set_last_notification(
        edge_id: str, user_login: str, *, offline: int | None = None, sum_state: int | None = None
    ) -> None:
        """As in IAlertingStore. No I/O: written soon. A time never goes back."""


class IMailDirectory(Interface):
    """Where mails of a user go. A metadata provider may provide it."""

    def mail_recipient(user_login: str, edge_id: str | None) -> Awaitable[MailRecipient | None]:
        """None: unknown, disabled, without an address, or without a role for that edge (None: whatever edge)."""


class IDebugLoggable(Interface):
    """core.md 5."""

    def debug_log() -> str | None: ...

    def debug_metrics() -> Mapping[str, int | float]:
        """``<component id>/<name>`` -> value."""


class IMetricsConsumer(Interface):
    def consume_metrics(now: int, metrics: Mapping[str, int | float]) -> None: ...


class IEndpoint(Interface):
    """The domain's side of one WebSocket connection; made for it by the server's factory (wire.md 3.7).

    Calls come in the order of the messages. ``opened`` comes first.
    """

    def opened() -> None:
        """Raise :class:`openems.websocket.peer.Refused` to end the connection."""

    def received(text: bytes) -> bool:
        """The hot path: True if this text was dealt with here, False to have it parsed and dispatched."""

    def request(request: Request) -> Awaitable[Any]:
        """The ``result``; an :class:`OpenemsError` becomes the error reply, None error 4001."""

    def notification(notification: Notification) -> None: ...

    def closed() -> None:
        """After this nothing can be sent; pending requests have failed already."""
