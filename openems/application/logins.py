"""Builds how users log in and register, and what gives edges tokens of third parties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openems.application.config import Configuration
from openems.application.config.logins import oauth_realm, oems
from openems.backend.authentication.attempts import ADDRESS, PAIR, Attempts
from openems.backend.authentication.choice import choose
from openems.backend.authentication.keycloak.service import Keycloak
from openems.backend.authentication.keycloak.stored import DAY, StoredSessions
from openems.backend.interfaces import IUserRegistry
from openems.backend.metrics.requests import Requests
from openems.backend.oauthregistry.registry import OAuthRegistry, Provider


def attempts_of(configuration: Configuration) -> Attempts:
    section = configuration.authentication
    return Attempts(PAIR._replace(free=section.attempts_of_user), ADDRESS._replace(free=section.attempts_of_address))


def keycloak_of(
    configuration: Configuration,
    metadata: Any,
    attempts: Attempts,
    state_dir: Path,
    *,
    reactor: Any,
    now: Callable[[], int],
    requests: Requests | None,
) -> Keycloak | None:
    section = configuration.authentication_oauth
    if section is None:
        return None
    life = section.password_session_days * DAY
    return Keycloak(
        oauth_realm(section),
        oems(configuration.authentication_oauth_clientconfig),
        metadata,
        reactor=reactor,
        now=lambda: now() / 1000,
        user_registry=metadata if IUserRegistry.providedBy(metadata) else None,
        attempts=attempts,
        max_concurrent=section.max_concurrent_requests,
        max_queue=section.max_waiting_requests,
        timeout=section.request_timeout,
        allow_plain_http=section.allow_plain_http,
        algorithms=section.algorithms,
        audience=section.audience,
        keys_refresh=section.keys_refresh,
        keys_interval=section.keys_min_interval,
        registration_roles=section.registration_roles,
        neutral_registration=section.registration_conflict == "neutral",
        stored=StoredSessions(str(state_dir / "keycloak-sessions.sqlite"), life=life) if life else None,
        debug=section.debug_mode == "DETAILED",
        observe=None if requests is None else requests.http("auth0"),
    )


def passwords_of(configuration: Configuration, passwords: Any, keycloak: Keycloak | None) -> Any:
    """Whom every listener asks for passwords: metadata's ``passwords``, the identity provider, or both."""
    return choose(
        configuration.authentication.passwords,
        passwords,
        keycloak,
        oauth_passwords=any(c.service_account for c in configuration.authentication_oauth_clientconfig),
    )


def registration_of(configuration: Configuration, metadata: Any, keycloak: Keycloak | None) -> Any:
    """Where users register: at the identity provider, else in Odoo; None where nobody may."""
    section, odoo = configuration.authentication_oauth, configuration.metadata_odoo
    if section is not None:
        return keycloak if section.registration else None
    return metadata.registration if odoo is not None and odoo.registration else None


def oauth_registry_of(configuration: Configuration, *, reactor: Any) -> OAuthRegistry | None:
    clients = configuration.oauthregistry_client
    if not clients:
        return None
    providers = [
        Provider(
            identifier=client.identifier,
            authentication_url=client.authentication_url,
            token_url=client.token_url,
            client_id=client.client_id,
            client_secret=client.client_secret,
            redirect_uri=client.redirect_uri,
            issuer_url=client.issuer_url,
            edges=client.edges,
            scopes=client.scopes,
        )
        for client in clients
    ]
    return OAuthRegistry(providers, reactor=reactor)
