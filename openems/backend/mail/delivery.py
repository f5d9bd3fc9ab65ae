"""One mail to one mail server: a connection, TLS, login, the mail, and what the server said.

Everything has its end. Never are passwords or texts of mails in an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.mail.smtp import (
    CramMD5ClientAuthenticator,
    ESMTPClient,
    LOGINAuthenticator,
    PLAINAuthenticator,
)

from openems.common.errors import short

Security = Literal["none", "starttls", "tls"]
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
#: Lines of one reply, seconds for the good-bye.
MAX_REPLY = 200
LEAVE = 2.0
#: Seconds for the server's word on a text it has (RFC 5321, 4.5.3.2.6): whoever gives up sooner sends it again, and
#: servers that look at mails for a minute deliver both.
WORD_SECONDS = 600.0
#: Whatever command they answer: the server closes, or wants a login.
ABOUT_THE_SERVER = (421, 530)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """``ca``: PEM text of the authorities to trust instead of the machine's own. ``timeout``: seconds until the server
    has the whole text."""

    host: str
    port: int
    security: Security = "starttls"
    username: str = ""
    password: str = ""
    helo: str = ""
    ca: str = ""
    timeout: float = 60.0

    def __repr__(self) -> str:
        return f"<{self.host}:{self.port} {self.security}>"


class Refused(Exception):
    """The server said no to this mail. ``permanent``: it will say so again."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.permanent = 500 <= code < 600
        super().__init__(f"{code} {text}")


class Unreachable(Exception):
    """No word about this mail: the server, the way to it, the login, or the sender of all mails is at fault. All mails
    will fare so. ``in_doubt``: the server had the whole text and said nothing; it may have taken it."""

    def __init__(self, text: str, *, in_doubt: bool = False) -> None:
        self.in_doubt = in_doubt
        super().__init__(text)


class _Client(ESMTPClient):
    # The log of a session would hold the password.
    debug = False

    transport: Any

    def __init__(
        self,
        server: Server,
        tls: Any,
        sender: str,
        recipient: str,
        message: bytes,
        accepted: Callable[[], None],
    ) -> None:
        super().__init__(server.password.encode() or None, tls, identity=server.helo or "localhost")  # type: ignore[no-untyped-call]
        self.requireTransportSecurity = server.security != "none"
        self.requireAuthentication = bool(server.username)
        self._sender = sender
        self._recipient = recipient
        self._message = message
        self._accepted = accepted
        self._begun = False
        #: The server has the whole text, or it is on its way; called at that moment.
        self.has_text = False
        self.on_text: Callable[[], None] = lambda: None
        self._lost: Deferred[None] | None = None
        self.result: Deferred[None] = Deferred()
        if server.username:
            name = server.username.encode()
            for authenticator in (PLAINAuthenticator, LOGINAuthenticator, CramMD5ClientAuthenticator):
                self.registerAuthenticator(authenticator(name))  # type: ignore[no-untyped-call]

    def esmtpState_starttls(self, code: int, resp: bytes) -> None:
        if self.clearLineBuffer():  # type: ignore[no-untyped-call]
            # Someone in between put it there before TLS began.
            self._gives_no_word("data before the TLS handshake")
            self.abort()
            return
        super().esmtpState_starttls(code, resp)  # type: ignore[no-untyped-call]

    def getMailFrom(self) -> str | None:
        if self._begun:
            return None
        self._begun = True
        return self._sender

    def getMailTo(self) -> list[str]:
        return [self._recipient]

    def smtpState_data(self, code: int, resp: bytes) -> None:
        # At once and whole: the library's own way forgets a dot at the border of two pieces.
        body = self._message.replace(b"\r\n.", b"\r\n..")
        self.transport.write((b"." if body.startswith(b".") else b"") + body + b".\r\n")
        self._expected: Any = range(200, 300)
        self._okresponse = self.smtpState_msgSent
        self.has_text = True
        self.on_text()

    def sentMail(self, code: int, resp: Any, numOk: int, addresses: Any, log: Any) -> None:
        if 200 <= code < 300 and numOk:
            if not self.result.called:
                self._accepted()
                self.result.callback(None)
            return
        if addresses and not numOk:
            _, code, resp = addresses[0]
        refused = Refused(code, _text(resp))
        # Without addresses it did not even take the sender, who is that of all mails.
        self._fail(refused if addresses and code not in ABOUT_THE_SERVER else Unreachable(str(refused)))

    def sendError(self, exc: Any) -> None:
        text = _text(getattr(exc, "resp", b"")) or type(exc).__name__
        code = getattr(exc, "code", -1)
        self._gives_no_word(f"{code} {text}" if code > 0 else text)
        super().sendError(exc)  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        self._lost = Deferred()
        super().connectionMade()  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        if len(self.resp) >= MAX_REPLY:
            self._gives_no_word("the server's reply has no end")
            self.abort()
            return
        super().lineReceived(line)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._gives_no_word(f"the connection was lost: {short(reason.getErrorMessage(), 200)}")
        if self._lost is not None and not self._lost.called:
            self._lost.callback(None)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()

    async def leave(self, reactor: Any) -> None:
        """The server may say good-bye, but not for long."""
        if self._lost is not None and not self._lost.called:
            patience = reactor.callLater(LEAVE, self.abort)
            try:
                await self._lost
            finally:
                if patience.active():
                    patience.cancel()

    def _gives_no_word(self, why: str) -> None:
        self._fail(Unreachable(why, in_doubt=self.has_text))

    def _fail(self, exc: Exception) -> None:
        if not self.result.called:
            self.result.errback(exc)


def _text(resp: Any) -> str:
    text = resp.decode("utf-8", "replace") if isinstance(resp, bytes) else str(resp)
    return short(" ".join(text.split()), 300)


class _ClientFactory(Factory):
    noisy = False

    def __init__(self, client: _Client) -> None:
        self._client = client

    def buildProtocol(self, addr: Any) -> Any:
        self._client.factory = self
        return self._client


class Delivery:
    """``await deliver(..)``: returns when the server has taken the mail. Raises :class:`Refused` or
    :class:`Unreachable`."""

    def __init__(self, server: Server, *, reactor: Any) -> None:
        self.server = server
        self._reactor = reactor
        self._tls: Any = None
        if server.security != "none":
            trust = platformTrust()
            if server.ca:
                trust = trustRootFromCertificates(
                    [Certificate.loadPEM(pem.encode()) for pem in _CERTIFICATE.findall(server.ca)]  # type: ignore[no-untyped-call]
                )
            self._tls = optionsForClientTLS(server.host, trustRoot=trust)

    async def deliver(
        self, sender: str, recipient: str, message: bytes, accepted: Callable[[], None] = lambda: None
    ) -> None:
        """``accepted`` is called in the very moment the server says so."""
        server = self.server
        endpoint: Any = HostnameEndpoint(self._reactor, server.host, server.port, timeout=server.timeout)
        if server.security == "tls":
            endpoint = wrapClientTLS(self._tls, endpoint)
        in_band = self._tls if server.security == "starttls" else None
        client = _Client(server, in_band, sender, recipient, message, accepted)

        async def exchange() -> None:
            await endpoint.connect(_ClientFactory(client))
            await client.result

        exchanging = Deferred.fromCoroutine(exchange())
        deadline = self._reactor.callLater(server.timeout, exchanging.cancel)
        client.on_text = lambda: deadline.reset(WORD_SECONDS)
        try:
            await exchanging
        except (Refused, Unreachable):
            deadline.cancel()
            await client.leave(self._reactor)
            raise
        except Exception as e:
            # How a connection cannot be made has many names in Twisted.
            client.abort()
            if not deadline.active():
                seconds = WORD_SECONDS if client.has_text else server.timeout
                raise Unreachable(f"no end after {seconds:.0f} s", in_doubt=client.has_text) from None
            deadline.cancel()
            if isinstance(e, CancelledError):
                raise
            raise Unreachable(short(f"{type(e).__name__}: {e}", 300)) from None
        deadline.cancel()
        await client.leave(self._reactor)
