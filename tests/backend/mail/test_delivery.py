"""One mail to a real mail server, in each of its moods."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from openems.backend.mail import delivery as delivery_module
from openems.backend.mail.delivery import Delivery, Refused, Server, Unreachable
from services.smtpd import attempts, behave, forget, mails
from tests.real import real

reactor: Any = _reactor
MESSAGE = b"Subject: x\r\nFrom: a@example.org\r\n\r\n.\r\n..two\r\nend\r\n"


class WithServer(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.smtpd = real("smtpd")
        forget(self.smtpd)
        self.ca = Path(self.smtpd.info["ca"]).read_text()

    async def send(self, to: str = "b@example.org", **server: Any) -> list[str]:
        accepted: list[str] = []
        options = {"host": "127.0.0.1", "port": self.smtpd.port, "security": "none", "timeout": 10.0, **server}
        delivery = Delivery(Server(**options), reactor=reactor)
        await delivery.deliver("a@example.org", to, options.pop("message", MESSAGE), lambda: accepted.append(to))
        return accepted

    async def refused(self, kind: type[Exception], **server: Any) -> str:
        with self.assertRaises(kind) as raised:
            await self.send(**server)
        self.assertEqual(mails(self.smtpd), [])
        return str(raised.exception)

    def login(self, **more: Any) -> dict[str, Any]:
        info = self.smtpd.info
        return {"username": info["user"], "password": info["password"], "ca": self.ca, **more}

    # What works

    async def test_plain(self) -> None:
        self.assertEqual(await self.send(helo="ems.example.org"), ["b@example.org"])
        (mail,) = mails(self.smtpd)
        self.assertEqual((mail.sender, mail.to, mail.helo), ("a@example.org", ["b@example.org"], "ems.example.org"))
        self.assertEqual((mail.tls, mail.login), (False, False))
        self.assertEqual(mail.message.get_payload(), ".\r\n..two\r\nend\r\n")

    async def test_dots_at_any_place_of_a_long_mail(self) -> None:
        body = b"".join(b"." * (n % 7) + b"x" * (n % 70) + b"\r\n" for n in range(3000))
        delivery = Delivery(Server(host="127.0.0.1", port=self.smtpd.port, security="none"), reactor=reactor)
        await delivery.deliver("a@example.org", "b@example.org", b"Subject: x\r\n\r\n" + body)
        (mail,) = mails(self.smtpd)
        self.assertEqual(mail.message.get_payload(), body.decode())

    async def test_starttls_with_login(self) -> None:
        port = self.smtpd.info["starttls"]
        await self.send(**self.login(host="localhost", port=port, security="starttls"))
        (mail,) = mails(self.smtpd)
        self.assertEqual((mail.tls, mail.login), (True, True))

    async def test_tls_with_login(self) -> None:
        await self.send(**self.login(host="localhost", port=self.smtpd.info["tls"], security="tls"))
        (mail,) = mails(self.smtpd)
        self.assertTrue(mail.login)

    async def test_slow(self) -> None:
        behave(self.smtpd, "slow")
        self.assertEqual(len(await self.send()), 1)

    async def test_a_server_that_looks_at_the_text_for_longer_than_all_the_rest_may_take(self) -> None:
        """RFC 5321, 4.5.3.2.6: whoever loses patience then has the mail delivered again and again."""
        behave(self.smtpd, "slow")
        self.assertEqual(len(await self.send(timeout=1.9)), 1)
        self.assertEqual(len(mails(self.smtpd)), 1)

    # What does not

    async def test_no_tls_where_it_must_be(self) -> None:
        self.assertIn("TLS", await self.refused(Unreachable, security="starttls"))
        self.assertEqual(attempts(self.smtpd), [])

    async def test_a_certificate_of_somebody_else(self) -> None:
        for port, security in ((self.smtpd.info["starttls"], "starttls"), (self.smtpd.info["tls"], "tls")):
            text = await self.refused(Unreachable, **self.login(host="localhost", port=port, security=security, ca=""))
            self.assertIn("certificate verify failed", text)

    async def test_a_certificate_of_another_name(self) -> None:
        server = Server(**self.login(host="mail.example.org", port=self.smtpd.info["tls"], security="tls"))
        delivery = Delivery(server, reactor=reactor)
        # What the name is in the network is not asked.
        delivery.server = msgspec.structs.replace(server, host="127.0.0.1")
        with self.assertRaises(Unreachable) as raised:
            await delivery.deliver("a@example.org", "b@example.org", MESSAGE)
        self.assertIn("mail.example.org", str(raised.exception))

    async def test_a_wrong_password(self) -> None:
        port = self.smtpd.info["starttls"]
        login = self.login(host="localhost", port=port, security="starttls", password="wrong one")
        text = await self.refused(Unreachable, **login)
        self.assertIn("535", text)
        self.assertNotIn("wrong", text)
        self.assertNotIn("wrong", repr(Server(**login)))

    async def test_a_login_nobody_asks_for(self) -> None:
        """A server without AUTH, a configuration with a password: it is not sent without."""
        text = await self.refused(Unreachable, **self.login(host="localhost", port=self.silent_about_auth()))
        self.assertIn("Authentication", text)

    def silent_about_auth(self) -> int:
        from twisted.internet.protocol import Factory
        from twisted.protocols.basic import LineReceiver

        class Old(LineReceiver):
            def connectionMade(self) -> None:
                self.sendLine(b"220 old")

            def lineReceived(self, line: bytes) -> None:
                if line == b"QUIT":
                    self.transport.loseConnection()
                self.sendLine(b"250 old" if line.startswith((b"EHLO", b"HELO")) else b"500 what")

        listening = reactor.listenTCP(0, Factory.forProtocol(Old), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        return listening.getHost().port

    async def test_temporary(self) -> None:
        behave(self.smtpd, "temporary")
        with self.assertRaises(Refused) as raised:
            await self.send()
        self.assertEqual((raised.exception.code, raised.exception.permanent), (450, False))

    async def test_permanent(self) -> None:
        for mode, code in (("permanent", 550), ("refuse-data", 554)):
            behave(self.smtpd, mode)
            with self.assertRaises(Refused) as raised:
                await self.send()
            self.assertEqual((raised.exception.code, raised.exception.permanent), (code, True))

    async def test_a_server_that_takes_mails_from_known_senders_only(self) -> None:
        """530 to the sender: no other mail would fare better, so this one is not given up."""
        server = self.login(host="localhost", port=self.smtpd.info["starttls"], security="starttls")
        text = await self.refused(Unreachable, **{**server, "username": "", "password": ""})
        self.assertIn("530", text)

    async def test_words_about_the_server_are_none_about_the_mail(self) -> None:
        for command, code in (
            (b"MAIL", 550), (b"MAIL", 451), (b"RCPT", 421), (b"RCPT", 530), (b"DATA", 421), (b".", 421)
        ):  # fmt: skip
            port = self.scripted({command: b"%d no" % code})
            with self.assertRaises(Unreachable) as raised:
                await self.send(port=port)
            self.assertIn(str(code), str(raised.exception))
            self.assertFalse(raised.exception.in_doubt)
        for command, code in ((b"RCPT", 550), (b"RCPT", 450), (b"DATA", 554), (b".", 552), (b".", 451)):
            with self.assertRaises(Refused) as refused:
                await self.send(port=self.scripted({command: b"%d no" % code}))
            self.assertEqual((refused.exception.code, refused.exception.permanent), (code, code >= 500))

    def scripted(self, replies: dict[bytes, bytes]) -> int:
        """A server that says 250 to all other commands."""
        from twisted.internet.protocol import Factory
        from twisted.protocols.basic import LineReceiver

        class Scripted(LineReceiver):
            in_text = False

            def connectionMade(self) -> None:
                self.sendLine(b"220 hello")

            def lineReceived(self, line: bytes) -> None:
                if self.in_text and line != b".":
                    return
                word = line[:4]
                self.in_text = word == b"DATA" and word not in replies
                self.sendLine(replies.get(word, b"354 go" if self.in_text else b"250 ok"))
                if word == b"QUIT":
                    self.transport.loseConnection()

        listening = reactor.listenTCP(0, Factory.forProtocol(Scripted), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        return listening.getHost().port

    async def test_it_closes_in_the_middle(self) -> None:
        behave(self.smtpd, "drop")
        self.assertIn("lost", await self.refused(Unreachable))

    async def test_it_is_silent(self) -> None:
        self.patch(delivery_module, "WORD_SECONDS", 0.5)
        for port, mode in ((self.smtpd.info["silent"], "ok"), (self.smtpd.port, "hang")):
            behave(self.smtpd, mode)
            began = time.monotonic()
            with self.assertRaises(Unreachable) as raised:
                await self.send(port=port, timeout=0.5)
            self.assertIn("no end", str(raised.exception))
            # What was not handed over cannot have been taken.
            self.assertEqual(raised.exception.in_doubt, mode == "hang")
            self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(mails(self.smtpd), [])

    async def test_nobody_listens(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.assertIn("refused", await self.refused(Unreachable, port=port))

    async def test_a_reply_without_end(self) -> None:
        from twisted.internet.protocol import Factory, Protocol

        class Endless(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"220-more\r\n" * 1000)

        listening = reactor.listenTCP(0, Factory.forProtocol(Endless), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.assertIn("no end", await self.refused(Unreachable, port=listening.getHost().port))

    async def test_text_before_tls_is_not_believed(self) -> None:
        from twisted.internet.protocol import Factory
        from twisted.protocols.basic import LineReceiver

        class Injected(LineReceiver):
            def connectionMade(self) -> None:
                self.sendLine(b"220 hello")

            def lineReceived(self, line: bytes) -> None:
                if line.startswith(b"EHLO"):
                    self.sendLine(b"250-localhost\r\n250 STARTTLS")
                else:
                    self.sendLine(b"220 go\r\n250 injected")

        listening = reactor.listenTCP(0, Factory.forProtocol(Injected), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        text = await self.refused(Unreachable, port=listening.getHost().port, security="starttls")
        self.assertIn("before the TLS", text)

    async def test_cancelled(self) -> None:
        behave(self.smtpd, "hang")
        waiting = Deferred.fromCoroutine(self.send())
        reactor.callLater(0.3, waiting.cancel)
        await self.assertFailure(waiting, CancelledError)
