"""Addresses and the bytes of one mail (metrics.md 20, 21). Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from hashlib import sha256

import msgspec

from openems.backend.mail.render import Rendered, clean

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*\Z")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z")
_TOKEN = re.compile(r"[^A-Za-z0-9._:@-]")
MAX_SIZE = 100_000


class BadAddress(ValueError):
    """Not an address a mail can be sent to."""


def address(text: str) -> str:
    """``Mia@Bücher.example`` -> ``Mia@xn--bcher-kva.example``: as it goes to a mail server. Raises :class:`BadAddress`.

    Only plain addresses: no display names, no quoted local parts, no literals; nothing that could end a header or a
    command.
    """
    local, at, domain = text.strip().rpartition("@")
    if not at or len(local) > 64 or not _LOCAL.match(local):
        raise BadAddress("is no mail address")
    try:
        domain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise BadAddress("its domain is no domain") from None
    labels = domain.split(".")
    if len(domain) > 253 or not all(_LABEL.match(label) for label in labels):
        raise BadAddress("its domain is no domain")
    return f"{local}@{domain}"


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """``address``: of the header From; ``envelope``: where bounces go."""

    address: str
    name: str = ""
    reply_to: str = ""
    envelope: str = ""

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


def key_of(template: str, edge_id: str, login: str, since: int) -> str:
    """Names one mail: the same over restarts and tries."""
    return sha256("\0".join((template, edge_id, login, str(since))).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def compose(
    rendered: Rendered,
    sender: Sender,
    recipient: str,
    *,
    recipient_name: str = "",
    key: str,
    template: str,
    edge_id: str = "",
    thread: str = "",
    date: int,
) -> bytes:
    """The whole mail, lines ended by CRLF, ASCII only. The same arguments give the same bytes. ``thread``: mails with
    the same one belong together. Raises ValueError if it grew too large."""
    message = EmailMessage(policy=SMTP)
    message["Date"] = datetime.fromtimestamp(date / 1000, UTC)
    message["Message-ID"] = f"<{key}@{sender.domain}>"
    message["From"] = _mailbox(sender.name, sender.address)
    message["To"] = _mailbox(recipient_name, recipient)
    if sender.reply_to:
        message["Reply-To"] = sender.reply_to
    message["Subject"] = rendered.subject
    message["Auto-Submitted"] = "auto-generated"
    message["Precedence"] = "bulk"
    if thread:
        reference = f"<{sha256(thread.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.thread@{sender.domain}>"
        message["In-Reply-To"] = reference
        message["References"] = reference
    if rendered.settings_link:
        message["List-Unsubscribe"] = f"<{rendered.settings_link}>"
    message["X-OpenEMS-Template"] = _TOKEN.sub("_", template)
    if edge_id:
        message["X-OpenEMS-Edge"] = _TOKEN.sub("_", edge_id)[:100]
    message.set_content(rendered.text, subtype="plain", charset="utf-8", cte="quoted-printable")
    message.add_alternative(rendered.html, subtype="html", charset="utf-8", cte="quoted-printable")
    message.set_boundary(f"=_{key}")
    data = message.as_bytes()
    if len(data) > MAX_SIZE:
        raise ValueError(f"the mail has {len(data)} bytes, more than {MAX_SIZE}")
    return data


def _mailbox(name: str, address: str) -> Address:
    try:
        return Address(clean(name), addr_spec=address)
    except (ValueError, HeaderParseError):
        return Address(addr_spec=address)
