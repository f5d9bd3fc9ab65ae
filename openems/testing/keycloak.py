"""A Keycloak that is not one: its token endpoint, key set, logout and administration of users, in memory.

It answers as the real one does where logins depend on it (odoo-keycloak-verified.md 2), keeps a list of what it was
asked, and can be slow, broken, or answer whatever a test wants.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from klein import Klein
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

BASE = "http://localhost:7900"
OIDC = "/realms/<realm>/protocol/openid-connect"
NOW = 1_000_000_000


@functools.cache
def rsa_key(number: int = 0) -> Any:
    """Making one takes a tenth of a second, so each is made once."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def ec_key(number: int = 0) -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: Any, kid: str, **members: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    entry: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    entry.pop("key_ops", None)
    return {**entry, "kid": kid, "use": "sig", **members}


class Asked(msgspec.Struct, frozen=True):
    """One request as it arrived."""

    method: str
    path: str
    form: dict[str, str]
    body: Any
    headers: dict[str, str]


class FakeKeycloak:
    """``agent`` goes into what is tested. ``pump()`` lets bytes flow, ``advance`` time too."""

    app = Klein()

    def __init__(self, clock: Any, *, realm: str = "openems", base: str = BASE, now: Callable[[], float] | None = None):
        self.clock = clock
        self.realm = realm
        self.issuer = f"{base}/realms/{realm}"
        self.now = now or (lambda: NOW + clock.seconds())
        self.asked: list[Asked] = []
        #: Seconds before each answer; None: no answer at all.
        self.delay: float | None = 0.0
        #: (method, path) -> (status, headers, body), or None for the usual answer.
        self.answer: Callable[[Asked], tuple[int, dict[str, str], bytes] | None] = lambda asked: None
        self.signing_kid = "kid-1"
        self.keys: dict[str, Any] = {"kid-1": rsa_key()}
        self.clients = {"openems": "openems-secret", "acme": "acme-secret"}
        self.users: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, dict[str, Any]] = {}
        self.rotate = False
        #: Changed claims of the tokens to come.
        self.claims: dict[str, Any] = {}
        self.id_claims: dict[str, Any] = {}
        self._used: set[str] = set()
        self.agent = RequestTraversalAgent(self.app.resource())

    # For tests

    def pump(self) -> None:
        for _ in range(5):
            self.agent.flush()
            self.clock.advance(0)

    def advance(self, seconds: float, step: float = 0.5) -> None:
        self.pump()
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            self.pump()

    def posts(self, grant: str = "") -> list[Asked]:
        """Requests at the token endpoint, of one grant if named."""
        return [
            asked
            for asked in self.asked
            if asked.path.endswith("/token") and grant in ("", asked.form.get("grant_type"))
        ]

    def fetches(self) -> int:
        """Of the key set."""
        return sum(asked.path.endswith("/certs") for asked in self.asked)

    def add_user(self, email: str, password: str, **members: Any) -> str:
        user_id = str(uuid.uuid5(uuid.NAMESPACE_URL, email))
        self.users[user_id] = {"id": user_id, "email": email, "username": email, "password": password, **members}
        self.users[user_id].setdefault("enabled", True)
        return user_id

    def browser_login(self, login_url: str, user_id: str) -> str:
        """What the login page does: the code that comes back in the redirect."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(login_url).query).items()}
        code = str(uuid.uuid4())
        self.codes[code] = {**query, "user": user_id}
        return code

    def access_token(self, user_id: str, client_id: str = "openems", session_id: str = "sid-1", **claims: Any) -> str:
        user = self.users.get(user_id, {})
        payload = {
            **self._common(user_id, client_id, session_id),
            "typ": "Bearer",
            "scope": "openid email profile",
            "email": user.get("email", ""),
            "preferred_username": user.get("username", ""),
            **self.claims,
            **claims,
        }
        return self.signed(payload)

    def signed(
        self, payload: dict[str, Any], *, kid: str | None = None, algorithm: str = "RS256", key: Any = None
    ) -> str:
        payload = {name: value for name, value in payload.items() if value is not None}
        kid = kid or self.signing_kid
        return jwt.encode(payload, key or self.keys[kid], algorithm=algorithm, headers={"kid": kid})

    def _common(self, user_id: str, client_id: str, session_id: str) -> dict[str, Any]:
        now = int(self.now())
        return {
            "iss": self.issuer, "sub": user_id, "azp": client_id, "sid": session_id, "iat": now, "exp": now + 300,
            "jti": str(uuid.uuid4()),
        }  # fmt: skip

    # The server

    def _tokens(
        self, user_id: str, client_id: str, session_id: str, *, nonce: str | None, openid: bool
    ) -> dict[str, Any]:
        refresh_token = f"refresh-{uuid.uuid4()}"
        self.sessions[refresh_token] = {"user": user_id, "client": client_id, "sid": session_id}
        reply = {
            "access_token": self.access_token(user_id, client_id, session_id),
            "expires_in": 300,
            "refresh_expires_in": 1800,
            "refresh_token": refresh_token,
            "token_type": "Bearer",
            "not-before-policy": 0,
            "session_state": session_id,
            "scope": "openid email profile",
        }
        if openid:
            claims = {
                **self._common(user_id, client_id, session_id), "typ": "ID", "aud": client_id, "nonce": nonce,
                **self.id_claims,
            }  # fmt: skip
            reply["id_token"] = self.signed(claims)
        return reply

    def _heard(self, request: Any) -> Asked:
        body = request.content.read()
        kind = request.getHeader("content-type") or ""
        form, decoded = {}, None
        if kind.startswith("application/x-www-form-urlencoded"):
            form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        elif body:
            decoded = json.loads(body)
        headers = {
            name.decode().lower(): values[0].decode() for name, values in request.requestHeaders.getAllRawHeaders()
        }
        asked = Asked(request.method.decode(), request.path.decode(), form, decoded, headers)
        self.asked.append(asked)
        return asked

    async def _in_time(self) -> None:
        if self.delay is None:
            await Deferred()
        elif self.delay:
            await deferLater(self.clock, self.delay)

    def _reply(self, request: Any, status: int, value: Any = None, **headers: str) -> bytes:
        request.setResponseCode(status)
        for name, text in headers.items():
            request.setHeader(name, text)
        if value is None:
            return b""
        request.setHeader("content-type", "application/json")
        return json.dumps(value).encode()

    async def _serve(self, request: Any, answer: Callable[[Asked], tuple[int, Any, dict[str, str]]]) -> bytes:
        asked = self._heard(request)
        await self._in_time()
        forced = self.answer(asked)
        if forced is not None:
            status, headers, body = forced
            request.setResponseCode(status)
            for name, text in headers.items():
                request.setHeader(name, text)
            return body
        status, value, headers = answer(asked)
        return self._reply(request, status, value, **headers)

    @app.route(f"{OIDC}/certs")
    async def _certs(self, request: Any, realm: str) -> bytes:
        keys = [
            public_jwk(key, kid, alg="RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
            for kid, key in self.keys.items()
        ]
        keys.append({**public_jwk(rsa_key(99), "kid-enc", alg="RSA-OAEP"), "use": "enc"})
        return await self._serve(request, lambda asked: (200, {"keys": keys}, {}))

    @app.route(f"{OIDC}/token", methods=["POST"])
    async def _token(self, request: Any, realm: str) -> bytes:
        return await self._serve(request, self._token_reply)

    def _token_reply(self, asked: Asked) -> tuple[int, Any, dict[str, str]]:
        form = asked.form
        client_id = form.get("client_id", "")
        if self.clients.get(client_id) != form.get("client_secret"):
            return denied(401, "unauthorized_client", "Invalid client or Invalid client credentials")
        grant = form.get("grant_type")
        if grant == "password":
            name = form.get("username", "").lower()
            user = next((user for user in self.users.values() if name in (user["username"], user["email"])), None)
            if user is None or user["password"] != form.get("password"):
                return denied(400, "invalid_grant", "Invalid user credentials")
            if not user["enabled"]:
                return denied(400, "invalid_grant", "Account disabled")
            return 200, self._tokens(user["id"], client_id, _sid(), nonce=None, openid=False), {}
        if grant == "client_credentials":
            token = self.access_token("service", client_id, None or "", sid=None, email=None)
            return 200, {"access_token": token, "expires_in": 300, "token_type": "Bearer"}, {}
        if grant == "authorization_code":
            return self._by_code(form)
        if grant == "refresh_token":
            session = self.sessions.get(form.get("refresh_token", ""))
            if session is None or form["refresh_token"] in self._used:
                return denied(400, "invalid_grant", "Session not active")
            if session["client"] != client_id:
                return denied(
                    400, "invalid_grant", "Invalid refresh token. Token client and authorized client don't match"
                )
            if not self.users[session["user"]]["enabled"]:
                return denied(400, "invalid_grant", "User disabled")
            if self.rotate:
                self._used.add(form["refresh_token"])
            return 200, self._tokens(session["user"], client_id, session["sid"], nonce=None, openid=True), {}
        return denied(400, "unsupported_grant_type", "Unsupported grant_type")

    def _by_code(self, form: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        begun = self.codes.pop(form.get("code", ""), None)
        if begun is None:
            return denied(400, "invalid_grant", "Code not valid")
        if begun["client_id"] != form["client_id"]:
            return denied(400, "invalid_grant", "Auth error: Found different client_id in clientSession")
        if begun["redirect_uri"] != form.get("redirect_uri"):
            return denied(400, "invalid_grant", "Incorrect redirect_uri")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != begun["code_challenge"]:
            return denied(400, "invalid_grant", "PKCE verification failed: Code mismatch")
        return 200, self._tokens(begun["user"], form["client_id"], _sid(), nonce=begun["nonce"], openid=True), {}

    @app.route(f"{OIDC}/logout", methods=["POST"])
    async def _logout(self, request: Any, realm: str) -> bytes:
        def reply(asked: Asked) -> tuple[int, Any, dict[str, str]]:
            session = self.sessions.get(asked.form.get("refresh_token", ""))
            if session is None:
                return denied(400, "invalid_grant", "Invalid refresh token")
            self.end(session["sid"])
            return 204, None, {}

        return await self._serve(request, reply)

    def end(self, session_id: str) -> None:
        self.sessions = {token: session for token, session in self.sessions.items() if session["sid"] != session_id}

    @app.route("/admin/realms/<realm>/sessions/<session_id>", methods=["DELETE"])
    async def _end_session(self, request: Any, realm: str, session_id: str) -> bytes:
        def reply(asked: Asked) -> tuple[int, Any, dict[str, str]]:
            self.end(session_id)
            return 204, None, {}

        return await self._serve(request, reply)

    @app.route("/admin/realms/<realm>/users", methods=["POST", "GET"])
    async def _users(self, request: Any, realm: str) -> bytes:
        email = (request.args.get(b"email") or [b""])[0].decode()

        def reply(asked: Asked) -> tuple[int, Any, dict[str, str]]:
            if asked.method == "GET":
                return 200, [user for user in self.users.values() if user["email"] == email], {}
            body = asked.body
            if any(user["email"] == body["email"].lower() for user in self.users.values()):
                return 409, {"errorMessage": "User exists with same email"}, {}
            password = next((entry["value"] for entry in body.get("credentials", ())), "")
            user_id = self.add_user(body["email"].lower(), password)
            return 201, None, {"Location": f"{BASE}/admin/realms/{realm}/users/{user_id}"}

        return await self._serve(request, reply)

    @app.route("/admin/realms/<realm>/users/<user_id>", methods=["GET", "DELETE"])
    async def _user(self, request: Any, realm: str, user_id: str) -> bytes:
        def reply(asked: Asked) -> tuple[int, Any, dict[str, str]]:
            user = self.users.get(user_id)
            if user is None:
                return 404, {"error": "User not found"}, {}
            if asked.method == "DELETE":
                del self.users[user_id]
                return 204, None, {}
            return 200, {name: value for name, value in user.items() if name != "password"}, {}

        return await self._serve(request, reply)


def denied(status: int, error: str, description: str) -> tuple[int, Any, dict[str, str]]:
    return status, {"error": error, "error_description": description}, {}


def _sid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes + b"\0\0").decode()
