"""What must be known to talk to a Keycloak realm (auth.md 3), checked."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import msgspec

from openems.backend.authentication.keycloak.redirects import defaults_for

DEFAULT_BASE = "http://localhost:7900"


class Oem(msgspec.Struct, frozen=True, kw_only=True):
    """One OEM's client (auth.md 3.2). ``redirect_uris``: what a UI may name as its own; empty: the configured one and
    its ``oauthcallback``."""

    oem: str = "openems"
    client_id: str = "openems"
    client_secret: str = ""
    redirect_uri: str = "http://localhost:4200/"
    redirect_uris: Sequence[str] = ()
    service_account: bool = False

    @property
    def allowed_redirects(self) -> tuple[str, ...]:
        return tuple(self.redirect_uris) or defaults_for(self.redirect_uri)

    def __repr__(self) -> str:
        return f"Oem(oem={self.oem!r}, client_id={self.client_id!r}, service_account={self.service_account})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("oem", self.oem), ("client_id", self.client_id)]


class Realm(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses, each as given: the one the browser sees and the one the backend uses may differ. ``users_url`` and
    ``sessions_url`` are of the administration."""

    realm: str = "openems"
    base_url: str = DEFAULT_BASE
    issuer: str = f"{DEFAULT_BASE}/realms/openems"
    login_url: str = f"{DEFAULT_BASE}/realms/openems/protocol/openid-connect/auth"
    token_url: str = f"{DEFAULT_BASE}/realms/openems/protocol/openid-connect/token"
    certs_url: str = f"{DEFAULT_BASE}/realms/openems/protocol/openid-connect/certs"

    @property
    def logout_url(self) -> str:
        """Beside the token endpoint."""
        return self.token_url.removesuffix("/token") + "/logout"

    def admin_url(self, *path: str) -> str:
        segments = "/".join(quote(segment, safe="") for segment in ("admin", "realms", self.realm, *path))
        return f"{self.base_url.rstrip('/')}/{segments}"


def problems_of(realm: Realm, oems: Sequence[Oem]) -> list[str]:
    """What is wrong, one line each; without secrets."""
    problems: list[str] = []
    for name, url in (
        ("baseKeycloakUrl", realm.base_url), ("issuerUrl", realm.issuer), ("loginUrl", realm.login_url),
        ("tokenUrl", realm.token_url), ("certsUrl", realm.certs_url),
    ):  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            problems.append(f"{name}: {url!r} is no http or https URL")
    seen: set[str] = set()
    for oem in oems:
        if oem.oem in seen:
            problems.append(f"oem: {oem.oem!r} is there twice")
        seen.add(oem.oem)
    if sum(oem.service_account for oem in oems) > 1:
        problems.append("serviceAccount: only one client can be the service account")
    return problems
