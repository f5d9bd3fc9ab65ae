"""Realms of a real Keycloak for tests, made from the realm in deploy/, and a browser's login without a browser.

Everything blocks: it talks to a program of its own, and only between the steps of a test.
"""

from __future__ import annotations

import html
import http.client
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from openems.backend.authentication.keycloak.settings import Oem, Realm

REALM = Path(__file__).parents[3] / "deploy" / "keycloak" / "realm.json"
PASSWORD = "p&ss w=rd+%~*ä"
USERS = {
    "mia": "10000000-0000-4000-8000-000000000001",
    "jan": "10000000-0000-4000-8000-000000000002",
    "unknown": "10000000-0000-4000-8000-000000000003",
    "disabled": "10000000-0000-4000-8000-000000000004",
    "update": "10000000-0000-4000-8000-000000000005",
    "noemail": "10000000-0000-4000-8000-000000000006",
}


def document(name: str, **changes: Any) -> dict[str, Any]:
    """The realm of deploy/ with users and clients of tests, the variables in it as Keycloak fills them in."""
    text = re.sub(r"\$\{[A-Z_]+:([^}]*)\}", r"\1", REALM.read_text())
    realm: dict[str, Any] = json.loads(text)
    account = next(user for user in realm["users"] if "serviceAccountClientId" in user)
    foreign = {
        **realm["clients"][0],
        "clientId": "foreign",
        "secret": "foreign-secret",
        "serviceAccountsEnabled": False,
    }
    foreign_es = {**foreign, "clientId": "foreign-es"}
    foreign_es["attributes"] = {**foreign["attributes"], "access.token.signed.response.alg": "ES256"}
    users = [user(login) for login in USERS]
    realm.update(realm=name, clients=[*realm["clients"], foreign, foreign_es], users=[account, *users])
    realm.update(changes)
    return realm


def user(login: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": USERS[login],
        "username": f"{login}@example.com",
        "firstName": "Mia",
        "lastName": "Müller",
        "enabled": login != "disabled",
        "credentials": [{"type": "password", "value": PASSWORD, "temporary": False}],
    }
    if login != "noemail":
        made.update(email=f"{login}@example.com", emailVerified=True)
    if login == "update":
        made["requiredActions"] = ["UPDATE_PASSWORD"]
    return made


def settings(url: str, realm: str) -> Realm:
    base = f"{url}/realms/{realm}"
    oidc = f"{base}/protocol/openid-connect"
    return Realm(
        realm=realm,
        base_url=url,
        issuer=base,
        login_url=f"{oidc}/auth",
        token_url=f"{oidc}/token",
        certs_url=f"{oidc}/certs",
    )


OEMS = (
    Oem(client_secret="change-me-openems", service_account=True),
    Oem(oem="acme", client_id="acme", client_secret="change-me-acme", redirect_uri="http://localhost:4300/"),
)


class Admin:
    """The administrator of the whole server."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.url: str = info["url"]
        self._credentials = info["admin"], info["password"]
        self._token = "", 0.0

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded reply; AssertionError for any that is no success."""
        headers = {"Authorization": f"Bearer {self._bearer()}", "Content-Type": "application/json"}
        status, _, text = exchange(
            method, f"{self.url}/admin/realms{path}", None if body is None else json.dumps(body), headers
        )
        assert 200 <= status < 300, f"{method} {path}: {status} {text[:300]!r}"
        return json.loads(text) if text else None

    def _bearer(self) -> str:
        token, until = self._token
        if time.monotonic() < until:
            return token
        name, password = self._credentials
        reply = token_request(
            self.url, "master", grant_type="password", client_id="admin-cli", username=name, password=password
        )
        self._token = reply["access_token"], time.monotonic() + 30
        return str(reply["access_token"])

    def make_realm(self, name: str, **changes: Any) -> Realm:
        self.ask("POST", "", document(name, **changes))
        return settings(self.url, name)

    def remove_realm(self, name: str) -> None:
        self.ask("DELETE", f"/{name}")

    def key_providers(self, realm: str) -> list[dict[str, Any]]:
        """Of signing keys of users' tokens."""
        components = self.ask("GET", f"/{realm}/components?type=org.keycloak.keys.KeyProvider")
        return [c for c in components if c["providerId"] == "rsa-generated"]

    def add_key(self, realm: str) -> None:
        parent = self.ask("GET", f"/{realm}")["id"]
        config = {"priority": ["200"], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"]}
        self.ask(
            "POST",
            f"/{realm}/components",
            {
                "name": "newer",
                "parentId": parent,
                "providerId": "rsa-generated",
                "providerType": "org.keycloak.keys.KeyProvider",
                "config": config,
            },
        )


def exchange(
    method: str, url: str, body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, list[tuple[str, str]], str]:
    """Status, headers, body; redirects are not followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body.encode() if body else None, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.getheaders(), reply.read().decode()
    finally:
        connection.close()


def token_request(url: str, realm: str, **form: str) -> dict[str, Any]:
    status, _, text = exchange(
        "POST",
        f"{url}/realms/{realm}/protocol/openid-connect/token",
        urlencode(form),
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    reply: dict[str, Any] = json.loads(text)
    assert status == 200, reply
    return reply


def form_login(login_url: str, username: str, password: str = PASSWORD) -> dict[str, str]:
    """The query of the redirect back: ``code``, ``state``. Cookies are sent although they are for https only."""
    status, headers, page = exchange("GET", login_url)
    assert status == 200, (status, page[:500])
    action = re.search(r'<form[^>]*id="kc-form-login"[^>]*action="([^"]+)"', page)
    assert action is not None, page[:2000]
    cookies = "; ".join(value.partition(";")[0] for name, value in headers if name.lower() == "set-cookie")
    status, headers, page = exchange(
        "POST",
        html.unescape(action[1]),
        urlencode({"username": username, "password": password, "credentialId": ""}),
        {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookies},
    )
    assert status == 302, (status, page[:500])
    location = next(value for name, value in headers if name.lower() == "location")
    return dict(parse_qsl(urlsplit(location).query))
