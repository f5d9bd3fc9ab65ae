"""The process of :mod:`services.smtpd`: a mail server that does as the file ``mode`` says and keeps what it takes.

Runs with the interpreter of the service's own installation, in the directory of the instance.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = b"mailer", b"s3cret word"


def certificate(folder: Path) -> None:
    """Of one's own for 127.0.0.1 and localhost, and the same as the authority to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Handler:
    """``mode``: ok; temporary (450 to each recipient); temporary-once (the first time only, for each recipient);
    permanent (550); refuse-data (554 after the text); drop (closes after the text, takes nothing); hang (no word after
    the text); slow (takes it after 2 s)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()
        self._mode = ""
        self._number = 0

    @property
    def mode(self) -> str:
        return (self._folder / "mode").read_text().strip()

    def _note(self, what: str, text: str) -> None:
        with (self._folder / "attempts").open("a") as file:
            file.write(f"{what} {text}\n")

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        self._note("RCPT", address)
        mode = self.mode
        if mode != self._mode:
            self._mode = mode
            self._seen.clear()
        if mode == "permanent" or address.startswith("nobody@"):
            return "550 5.1.1 no such user"
        if mode == "temporary" or (mode == "temporary-once" and address not in self._seen):
            self._seen.add(address)
            return "450 4.2.1 not now"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mode = self.mode
        self._note("DATA", f"{mode} {' '.join(envelope.rcpt_tos)}")
        if mode == "refuse-data":
            return "554 5.7.1 spam"
        if mode == "drop":
            server.transport.abort()
            return "250 never heard"
        if mode == "hang":
            await asyncio.sleep(3600)
        if mode == "slow":
            await asyncio.sleep(2)
        self._number += 1
        record = {
            "from": envelope.mail_from,
            "to": list(envelope.rcpt_tos),
            "tls": session.ssl is not None,
            "login": bool(session.authenticated),
            "helo": session.host_name,
            "mail": envelope.original_content.decode("utf-8", "surrogateescape"),
        }
        target = self._folder / "mails" / f"{self._number:05}-{os.getpid()}.json"
        temporary = target.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, ensure_ascii=True))
        temporary.rename(target)
        return "250 2.0.0 taken"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    good = getattr(data, "login", b"") == USER and getattr(data, "password", b"") == PASSWORD
    return AuthResult(success=good, handled=False)


async def serve(folder: Path, ports: list[int]) -> None:
    certificate(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    handler = Handler(folder)
    loop = asyncio.get_running_loop()
    login: dict[str, Any] = {"authenticator": authenticate, "auth_required": True}

    def plain() -> SMTP:
        return SMTP(handler, hostname="localhost", authenticator=authenticate, auth_require_tls=False)

    def starttls() -> SMTP:
        return SMTP(handler, hostname="localhost", tls_context=context, require_starttls=True, **login)

    def implicit() -> SMTP:
        return SMTP(handler, hostname="localhost", auth_require_tls=False, **login)

    class Silent(asyncio.Protocol):
        """Takes the connection and says nothing."""

    await loop.create_server(plain, "127.0.0.1", ports[0])
    await loop.create_server(starttls, "127.0.0.1", ports[1])
    await loop.create_server(implicit, "127.0.0.1", ports[2], ssl=context)
    await loop.create_server(Silent, "127.0.0.1", ports[3])
    (folder / "ready").touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
