"""What is not Keycloak's: certificates (auth.md S21), origins at the handshake (S25), the example and its page."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from twisted.internet import reactor as _reactor
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from openems.application import config, felix
from openems.http.concurrency import Concurrency
from openems.http.exchange import Exchange, ExchangeError
from openems.testing.keycloak import rsa_key
from tests.backend.ui.world import World

reactor: Any = _reactor
ROOT = Path(__file__).parents[3]


def certificate(host: str) -> Any:
    """Of nobody but itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(rsa_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(rsa_key(), hashes.SHA256())
    )
    key = rsa_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    return ssl.PrivateCertificate.loadPEM(made.public_bytes(serialization.Encoding.PEM) + key)


class Certificates(TestCase):
    async def test_s21_of_nobody(self) -> None:
        asked: list[bytes] = []

        class Page(Resource):
            isLeaf = True

            def render_POST(self, request: Any) -> bytes:
                asked.append(request.content.read())
                return b"{}"

        site = Site(Page())
        site.noisy = False
        port = reactor.listenSSL(0, site, certificate("localhost").options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        exchange = Exchange(reactor=reactor, concurrency=Concurrency(1, 1), timeout=10)
        self.addCleanup(lambda: Deferred.fromCoroutine(exchange.close()))
        for host in ("localhost", "127.0.0.1"):
            try:
                await exchange.request(
                    "POST", f"https://{host}:{port.getHost().port}/token", form={"client_secret": "x"}
                )
            except ExchangeError as e:
                self.assertEqual(e.kind, "connection")
            else:
                self.fail("a certificate of nobody was believed")
        self.assertEqual(asked, [])
        # Of Twisted's own server.
        self.flushWarnings()


class Caller(Protocol):
    def __init__(self) -> None:
        self.head = b""

    def dataReceived(self, data: bytes) -> None:
        self.head += data


class Origins(TestCase):
    async def test_s25_the_handshake_is_refused(self) -> None:
        server = World(origins=["https://ui.example.com"], reactor=reactor).server
        port = await server.start(0, "127.0.0.1")
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        heads = {}
        for origin in ("https://ui.example.com", "https://evil.example", None):
            caller = Caller()
            factory = Factory.forProtocol(lambda caller=caller: caller)  # type: ignore[misc]
            factory.noisy = False
            await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
            lines = [
                "GET / HTTP/1.1",
                "Host: x",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ]
            lines += [f"Origin: {origin}"] if origin else []
            caller.transport.write("\r\n".join([*lines, "", ""]).encode())
            while b"\r\n\r\n" not in caller.head:
                await deferLater(reactor, 0.01)
            heads[origin] = caller.head.split(b" ")[1]
            caller.transport.abortConnection()
        self.assertEqual(heads, {"https://ui.example.com": b"101", "https://evil.example": b"404", None: b"101"})
        self.assertEqual(server.refused, 1)


class Page(SynchronousTestCase):
    def test_the_example_and_the_page(self) -> None:
        text = (ROOT / "examples" / "keycloak.toml").read_text()
        environ = {"OPENEMS_CLIENT_SECRET": "one", "ACME_CLIENT_SECRET": "two"}
        configuration = config.parse(text, "keycloak.toml", environ=environ)
        self.assertEqual([c.oem for c in configuration.authentication_oauth_clientconfig], ["openems", "acme"])
        page = (ROOT / "docs" / "keycloak.md").read_text()
        blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
        self.assertIn(blocks[0], text)
        # The other block is a piece: with the rest it is a configuration.
        both = text + blocks[1].replace('{ file = "/etc/openems-backend/luox.secret" }', '"x"')
        self.assertEqual(config.parse(both, "x", environ=environ).oauthregistry_client[0].identifier, "luox_prod")

    def test_the_defaults_of_keys_are_the_examples(self) -> None:
        """A client and its secret are enough where Keycloak is on its usual port."""
        text = '[metadata.dummy]\n[authentication.oauth]\n[[authentication.oauth.clientconfig]]\nclientSecret = "x"\n'
        short = config.parse(text, "x").authentication_oauth
        environ = {"OPENEMS_CLIENT_SECRET": "one", "ACME_CLIENT_SECRET": "two"}
        whole = config.parse((ROOT / "examples" / "keycloak.toml").read_text(), "x", environ=environ)
        self.assertEqual(short, whole.authentication_oauth)

    def test_a_felix_folder(self) -> None:
        """The components' files of the Java backend."""
        folder = Path(self.mktemp())
        files = {
            "Metadata/Dummy.config": 'service.pid="Metadata.Dummy"\n',
            "Authentication/OAuth.config": 'realm="r"\nrateLimitedBucketSize=I"10"\nmaxConcurrentRequests=I"20"\n',
            "Authentication/OAuth/ClientConfig/a.config": (
                'service.factoryPid="Authentication.OAuth.ClientConfig"\noem="acme"\nclientSecret="s"\n'
                'serviceAccount=B"true"\n'
            ),
            "OAuthRegistry/Client/b.config": (
                'service.factoryPid="OAuthRegistry.Client"\nidentifier="i"\nauthenticationUrl="https://a/"\n'
                'tokenUrl="https://a/t"\nissuerUrl="https://a"\nclientId="c"\nclientSecret="s"\n'
                'redirectUri="https://u/"\n'
            ),
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        configuration, notes = felix.load(folder)
        section = configuration.authentication_oauth
        assert section is not None
        self.assertEqual((section.realm, section.max_concurrent_requests), ("r", 20))
        (client,) = configuration.authentication_oauth_clientconfig
        self.assertEqual((client.oem, client.client_secret, client.service_account), ("acme", "s", True))
        self.assertEqual([c.identifier for c in configuration.oauthregistry_client], ["i"])
        self.assertEqual(len(notes), 1)
        self.assertIn("rateLimitedBucketSize", notes[0])

    def test_contradictions(self) -> None:
        head = "[metadata.dummy]\n"
        client = '[[authentication.oauth.clientconfig]]\nclientSecret = "x"\n'
        for text, told in (
            (head + client, "[authentication.oauth] is not"),
            (head + "[authentication.oauth]\n", "needs an"),
            (head + "[authentication.oauth]\n" + client + client, "is there twice"),
            (head + '[authentication.oauth]\ntokenUrl = "localhost"\n' + client, "tokenUrl"),
            (head + '[authentication.oauth]\nalgorithms = ["RS265"]\n' + client, "RS256"),
            (
                head + "[authentication.oauth]\n" + client + 'serviceAccount = true\n' + client
                + 'oem = "b"\nserviceAccount = true\n',
                "only one client",
            ),
        ):  # fmt: skip
            with self.assertRaises(config.BadConfiguration) as caught:
                config.parse(text, "x")
            self.assertIn(told, str(caught.exception))
