"""A real SMTP server that keeps what it gets."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

from twisted.internet import defer
from twisted.internet.protocol import Factory
from twisted.mail import smtp
from zope.interface import implementer


@implementer(smtp.IMessage)
class _Message:
    def __init__(self, mails: list[tuple[str, EmailMessage]], to: str) -> None:
        self._mails = mails
        self._to = to
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Any:
        message = email.message_from_bytes(b"\r\n".join(self._lines), policy=email.policy.default)
        self._mails.append((self._to, message))
        return defer.succeed(None)

    def connectionLost(self) -> None:
        self._lines.clear()


class Sink(Factory):
    """``mails``: recipient, message. ``refuse``: every recipient gets 550."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, Any]] = []
        self.refuse = False

    def buildProtocol(self, addr: Any) -> smtp.ESMTP:
        protocol = smtp.ESMTP()
        protocol.factory = self
        protocol.host = b"localhost"
        protocol.receivedHeader = lambda helo, origin, recipients: b""
        protocol.validateFrom = lambda helo, origin: origin

        def validate_to(user: Any) -> Any:
            if self.refuse:
                raise smtp.SMTPBadRcpt(user)
            return lambda: _Message(self.mails, str(user.dest))

        protocol.validateTo = validate_to
        return protocol

    def of(self, address: str) -> list[Any]:
        return [message for to, message in self.mails if to == address]
