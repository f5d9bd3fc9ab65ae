"""Vectors of auth.md D that are shown nowhere else, and limits as UIs meet them (S13)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.application import config
from openems.application.logins import registration_of
from openems.backend.authentication.attempts import Attempts
from openems.backend.authentication.keycloak.pending import PendingLogins, code_challenge, unpadded
from openems.backend.metrics.requests import Requests
from openems.backend.ui.parameters import registration_record
from openems.common.errors import OpenemsError
from openems.http.exchange import Reply
from tests.backend.authentication.test_registration import record
from tests.backend.authentication.world import CALLBACK, PASSWORD, WithUi
from tests.backend.ui.world import ID, failed


class Vectors(SynchronousTestCase):
    def test_pkce(self) -> None:
        for data, verifier, challenge in (
            (bytes(32), "A" * 43, "DwBzhbb51LfusnSGBa_hqYSgo7-j8BTQnip4TOnlzRo"),
            (
                bytes(range(32)),
                "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
                "6oZqdX5MOLq_qBJ8vppAnT4fk6AP8UiP9zX8-Rev_9A",
            ),
            (b"\xff" * 32, "_" * 42 + "8", "Il9-dTKd1FqjVJddc5hzGTCTk686TGczvBNgGk8bh5Y"),
        ):
            self.assertEqual((unpadded(data), code_challenge(verifier)), (verifier, challenge))
        rfc7636 = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        self.assertEqual(code_challenge(rfc7636), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")

    def test_a_login_makes_its_verifier_so(self) -> None:
        taken: list[bytes] = []

        def random_bytes(count: int) -> bytes:
            taken.append(hashlib.sha256(bytes([len(taken)])).digest()[:count])
            return taken[-1]

        _, _, pending = PendingLogins(random_bytes).add("openems", CALLBACK, "192.0.2.1", 0.0)
        self.assertIn(base64.urlsafe_b64decode(pending.code_verifier + "="), taken)
        self.assertEqual(len(pending.code_verifier), 43)

    def test_http_error_texts(self) -> None:
        for status, phrase, text in (
            (409, "", "Http 409 Conflict"), (400, "Nonsense", "Http 400 Bad Request"),
            (418, "", "Http 418 I'm a teapot"), (499, "X", "Http 499 X"),
        ):  # fmt: skip
            self.assertEqual(Reply(status, {}, b"", "POST /token", phrase).status_text, text)

    def test_method_paths(self) -> None:
        requests = Requests()
        requests.of_edges("edgeRpc/oauthRegistry/getInitMetadata", 0.1)
        requests.of_edges("oauthRegistry/getInitMetadata", 0.1)
        self.assertEqual(
            set(requests.seconds),
            {
                ("Edge.Manager", "edgeRpc/oauthRegistry/getInitMetadata"),
                ("Backend.Edge.Server", "oauthRegistry/getInitMetadata"),
            },
        )

    def test_roles(self) -> None:
        for role in ("installer", "INSTALLER", "Installer"):
            self.assertEqual(registration_record(record(role=role))["role"], "INSTALLER")
        with self.assertRaises(OpenemsError):
            registration_record(record(role="foo"))

    def test_s15_can_be_switched_off(self) -> None:
        head = "[metadata.dummy]\n[authentication.oauth]\nregistration = {}\n"
        client = '[[authentication.oauth.clientconfig]]\nclientSecret = "x"\n'
        for switch in ("true", "false"):
            configuration = config.parse(head.format(switch) + client, "x")
            keycloak: Any = object()
            self.assertIs(
                registration_of(configuration, None, keycloak), keycloak if switch == "true" else None, switch
            )
        self.assertIsNone(registration_of(config.parse("[metadata.dummy]\n", "x"), None, None))


class Messages(WithUi):
    def oauth(self, ui: Any, method: str, **params: Any) -> Any:
        ui.connection.take()
        payload = {"jsonrpc": "2.0", "id": ID, "method": method, "params": params}
        ui.send("authenticateWithOAuth", {"payload": payload})
        self.fake.pump()
        (reply,) = ui.connection.take()
        return reply

    def test_oem_lookup(self) -> None:
        self.open()
        ui = self.world.connect()
        unable = failed(1, "Unable to initiate connection", "Unable to initiate connection")
        refused = failed(1003, "Authentication failed")
        for oem in ("openems", "acme"):
            self.assertIn("result", self.oauth(ui, "initiateConnect", oem=oem))
        for oem, text in (
            ("OpenEMS", "No OEM config found for OpenEMS"),
            ("", "No OEM provided"),
            ("  ", "No OEM provided"),
        ):
            self.assertEqual(self.oauth(ui, "initiateConnect", oem=oem), unable)
            self.assertEqual(self.oauth(ui, "getTokenByCode", oem=oem, identifier="i", code="c"), refused)
            self.assertEqual(self.oauth(ui, "getTokenByRefreshToken", oem=oem, refreshToken="r"), failed(1, text, text))
        self.assertEqual(self.oauth(ui, "initiateConnect"), unable)
        self.assertEqual(self.oauth(ui, "getTokenByCode", identifier="i", code="c")["error"]["code"], 5010)
        self.assertEqual(self.oauth(ui, "getTokenByRefreshToken", refreshToken="r")["error"]["code"], 5010)

    def test_s3_a_nonce_of_another_login_leaves_nobody(self) -> None:
        self.open()
        ui = self.world.connect()
        self.fake.id_claims = {"nonce": "another"}
        started = self.oauth(ui, "initiateConnect", oem="openems", redirectUri=CALLBACK)["result"]
        code = self.fake.browser_login(started["loginUrl"], self.mia)
        reply = self.oauth(ui, "getTokenByCode", oem="openems", identifier=started["identifier"], code=code)
        self.assertEqual(reply, failed(1003, "Authentication failed"))
        self.assertEqual((ui.session.user, ui.session.token), (None, None))

    def password(self, ui: Any, name: str, password: str) -> Any:
        ui.connection.take()
        ui.send("authenticateWithPassword", {"username": name, "password": password})
        self.fake.advance(2)
        (reply,) = ui.connection.take()
        return reply.get("error", {}).get("code")

    def test_s13_fifty_on_one_socket_and_over_fifty(self) -> None:
        self.open(attempts=self.attempts)
        ui = self.world.connect(remote="192.0.2.1:1")
        one = [self.password(ui, "mia@example.com", f"wrong {number}") for number in range(50)]
        self.assertEqual(one[:5], [1003] * 5)
        self.assertGreaterEqual(one.count(4005), 35)
        many = []
        for number in range(50):
            ui = self.world.connect(remote=f"192.0.2.2:{number}")
            many.append(self.password(ui, f"user{number}@example.com", f"wrong {number}"))
        self.assertGreaterEqual(many.count(4005), 10)
        # By token it does not go on from there either.
        ui = self.world.connect(remote="192.0.2.2:99")
        codes = [self.oauth(ui, "getTokenByRefreshToken", oem="openems", refreshToken=f"r{n}") for n in range(3)]
        self.assertIn(4005, [code["error"]["code"] for code in codes])
        # The right one from elsewhere works.
        self.assertIsNone(self.password(self.world.connect(remote="198.51.100.1:1"), "mia@example.com", PASSWORD))

    def make(self, **options: Any) -> Any:
        self.attempts = Attempts()
        return super().make(attempts=self.attempts, **options)
