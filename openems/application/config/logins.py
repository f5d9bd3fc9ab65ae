"""Logins of users, and tokens of third parties."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from openems.application.config.section import Section, Text
from openems.backend.authentication.keycloak.settings import Oem, Realm


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
