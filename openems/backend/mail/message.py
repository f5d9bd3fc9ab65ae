"""Addresses and the bytes of one mail (metrics.md 20, 21). Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256

import msgspec

from openems.backend.mail.render import Rendered, clean

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LOCAL = re.compile(rf"{_ATEXT}+(\.{_ATEXT}+)*\Z")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z")
#: What may stand in a header as it is: no encoded words, nothing that cannot be folded; a name has no specials either.
_PLAIN = re.compile(r"(?!.*=\?)[!-~]{1,60}( [!-~]{1,60})*\Z")
_PHRASE = re.compile(rf"(?!.*=\?){_ATEXT}{{1,60}}( {_ATEXT}{{1,60}})*\Z")
_TOKEN = re.compile(r"[^A-Za-z0-9._:@-]")
MAX_SIZE = 100_000
#: Characters of a link in a header: the line must stay below 998.
MAX_LINK = 900


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
    headers = [
        ("Date", format_datetime(datetime.fromtimestamp(date / 1000, UTC))),
        ("Message-ID", f"<{key}@{sender.domain}>"),
        ("From", _mailbox("From", sender.name, sender.address)),
        ("To", _mailbox("To", recipient_name, recipient)),
        ("Subject", _words("Subject", clean(rendered.subject), _PLAIN)),
        ("Auto-Submitted", "auto-generated"),
        ("Precedence", "bulk"),
        ("X-OpenEMS-Template", _TOKEN.sub("_", template)),
    ]
    if sender.reply_to:
        headers.append(("Reply-To", sender.reply_to))
    if thread:
        reference = f"<{sha256(thread.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.thread@{sender.domain}>"
        headers += [("In-Reply-To", reference), ("References", reference)]
    if rendered.settings_link and len(rendered.settings_link) <= MAX_LINK:
        headers.append(("List-Unsubscribe", f"<{rendered.settings_link}>"))
    if edge_id:
        headers.append(("X-OpenEMS-Edge", _TOKEN.sub("_", edge_id)[:100]))
    body = EmailMessage(policy=SMTP)
    body.set_content(rendered.text, subtype="plain", charset="utf-8", cte="quoted-printable")
    body.add_alternative(rendered.html, subtype="html", charset="utf-8", cte="quoted-printable")
    body.set_boundary(f"=_{key}")
    # The library folds ids and links into words nobody takes for ids and links, and forgets the quotes of long names.
    data = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("ascii") + body.as_bytes()
    if len(data) > MAX_SIZE:
        raise ValueError(f"the mail has {len(data)} bytes, more than {MAX_SIZE}")
    return data


def _words(header: str, text: str, plain: re.Pattern[str]) -> str:
    """A text in a header, folded; in encoded words (RFC 2047) if it is not plain."""
    charset = "us-ascii" if plain.match(text) else "utf-8"
    return Header(text, charset, header_name=header).encode(linesep="\r\n")


def _mailbox(header: str, name: str, address: str) -> str:
    name = clean(name)
    if not name:
        return address
    words = _words(header, name, _PHRASE)
    return f"{words}\r\n <{address}>" if len(words) + len(address) > 60 else f"{words} <{address}>"
