"""Alerting and mail as they are configured, and the command that tries them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.application import config, felix
from openems.application.alerting import alerting_of, delivery_of, mailer_of, sender_of
from openems.application.backend import Backend
from openems.application.config import BadConfiguration, Configuration
from openems.application.odoo import odoo_of
from openems.backend.alerting.service import AlertingService
from openems.backend.alerting.store import FileStore
from openems.backend.events import EventBus
from openems.backend.mail.message import key_of
from openems.backend.mail.simulator import SimulatorMailer
from openems.backend.mail.smtp import SmtpMailer
from openems.backend.mail.spool import Envelope
from openems.backend.metadata.dummy import DummyMetadata
from services.smtpd import forget, mails
from tests.backend.mail.post import START
from tests.real import real

reactor: Any = _reactor
ROOT = Path(__file__).parents[2]
MINIMAL = 'host = "mail.example.org"\nfromAddress = "ems@example.org"\n'


def parse(text: str) -> Configuration:
    return config.parse("[metadata.dummy]\n" + text, "file.toml")


class Configured(SynchronousTestCase):
    def problems(self, text: str) -> str:
        with self.assertRaises(BadConfiguration) as raised:
            parse(text)
        return "\n".join(raised.exception.problems)

    def test_keys_of_the_java_programs(self) -> None:
        made = parse('[alerting]\ninitialDelay = 5\nnotifyOnOffline = false\nnotifyOnSumStateChange = true\n'
                     '[simulator.mailer]\nid = "M"\n')  # fmt: skip
        assert made.alerting is not None
        assert made.simulator_mailer is not None
        self.assertEqual((made.alerting.initial_delay, made.alerting.notify_on_offline), (5, False))
        self.assertEqual(made.simulator_mailer.id, "M")
        defaults = parse("[alerting]\n").alerting
        assert defaults is not None
        self.assertEqual(
            (defaults.initial_delay, defaults.notify_on_offline, defaults.notify_on_sum_state_change), (15, True, True)
        )

    def test_felix(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "Alerting.config").write_text('initialDelay=I"20"\nnotifyOnOffline=B"true"\n')
        (folder / "Simulator.Mailer.config").write_text('id="SimulatorMail"\n')
        (folder / "Metadata.Dummy.config").write_text("")
        made, notes = felix.load(folder)
        assert made.alerting is not None
        self.assertEqual((made.alerting.initial_delay, notes), (20, []))
        self.assertIsNotNone(made.simulator_mailer)

    def test_what_is_wrong_is_named(self) -> None:
        for text, said in (
            ("[mail.smtp]\n", "host: is required"),
            ('[mail.smtp]\nhost = "h"\nfromAddress = "nobody"\n', 'fromAddress: "nobody" is no mail address'),
            (f"[mail.smtp]\n{MINIMAL}replyTo = 'a@b@c'\n", "replyTo"),
            (f"[mail.smtp]\n{MINIMAL}operators = ['x\\ny@example.org']\n", "operators"),
            (f"[mail.smtp]\n{MINIMAL}username = 'u'\n", "belong together"),
            (f"[mail.smtp]\n{MINIMAL}username = 'u'\npassword = 'p'\nsecurity = 'none'\n", "readable on its way"),
            (f"[mail.smtp]\n{MINIMAL}timezone = 'Europe/Nowhere'\n", "Europe/Nowhere"),
            (f"[mail.smtp]\n{MINIMAL}baseUrl = 'javascript:alert(1)'\n", "baseUrl"),
            (f"[mail.smtp]\n{MINIMAL}helo = 'a b'\n", "helo"),
            (f"[mail.smtp]\n{MINIMAL}templates = '/nowhere'\n", "templates: /nowhere"),
            (f"[mail.smtp]\n{MINIMAL}ca = 'ca.pem'\n", "PEM"),
            (f"[mail.smtp]\n{MINIMAL}[simulator.mailer]\n", "exclude each other"),
            (f"[mail.smtp]\n{MINIMAL}language = 'XX'\n", "language"),
        ):
            self.assertIn(said, self.problems(text))

    def test_a_certificate_that_is_none(self) -> None:
        made = parse(f"[mail.smtp]\n{MINIMAL}ca = '-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----'\n").mail_smtp
        assert made is not None
        with self.assertRaises(BadConfiguration):
            delivery_of(made, Clock())

    def test_no_secret_is_shown(self) -> None:
        made = parse(f"[mail.smtp]\n{MINIMAL}username = 'u'\npassword = 'geheim'\n")
        self.assertNotIn("geheim", repr(made))

    def test_the_sender(self) -> None:
        made = parse('[mail.smtp]\nhost = "h"\nfromAddress = "ems@bücher.example"\noem = "ACME"\n').mail_smtp
        assert made is not None
        self.assertEqual(sender_of(made).address, "ems@xn--bcher-kva.example")
        self.assertEqual(sender_of(made).name, "ACME")

    def made(self, text: str) -> tuple[Any, Any]:
        configuration = parse(text)
        clock = Clock()
        metadata = DummyMetadata(EventBus(), reactor=clock)
        clocks: dict[str, Any] = {"reactor": clock, "now": lambda: START}
        mailer = mailer_of(configuration, metadata, Path(self.mktemp()), **clocks)
        return mailer, alerting_of(configuration, metadata, mailer, EventBus(), Path(self.mktemp()), **clocks)

    def test_which_mailer(self) -> None:
        self.assertEqual(self.made(""), (None, None))
        mailer, alerting = self.made("[alerting]\n")
        self.assertIsNone(mailer)
        self.assertEqual(len(alerting.health()), 1)
        mailer, alerting = self.made("[alerting]\n[simulator.mailer]\n")
        self.assertIsInstance(mailer, SimulatorMailer)
        self.assertEqual(alerting.health(), [])
        mailer, alerting = self.made(f"[alerting]\n[mail.smtp]\n{MINIMAL}")
        self.assertIsInstance(mailer, SmtpMailer)
        self.assertEqual(mailer.is_wanted, alerting.is_wanted)
        self.assertEqual(mailer.on_delivered, alerting.delivered)


class OwnFile(SynchronousTestCase):
    """For metadata that keeps nothing for alerting."""

    def store(self, path: str, clock: Clock) -> FileStore:
        made = FileStore(path, reactor=clock, in_thread=maybeDeferred)
        made.open()
        return made

    def test_it_survives(self) -> None:
        path, clock = self.mktemp(), Clock()
        store = self.store(path, clock)
        store.keep_pending_alert("edge0", msgspec.Raw(b'{"a":1}'))
        store.keep_pending_alert("edge1", msgspec.Raw(b"{}"))
        store.keep_pending_alert("edge1", None)
        clock.advance(1.1)
        self.assertEqual(bytes(self.store(path, clock).pending_alerts()["edge0"]), b'{"a":1}')
        store.keep_pending_alert("edge0", None)
        self.successResultOf(Deferred.fromCoroutine(store.flush()))
        self.assertEqual(self.store(path, clock).pending_alerts(), {})
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_last_notifications_go_where_the_settings_are(self) -> None:
        told: list[tuple[Any, ...]] = []
        stamps = SimpleNamespace(set_last_notification=lambda *where, **when: told.append((*where, when)))
        FileStore(self.mktemp(), reactor=Clock(), stamps=stamps).set_last_notification("edge0", "mia", offline=5)
        self.assertEqual(told, [("edge0", "mia", {"offline": 5, "sum_state": None})])
        FileStore(self.mktemp(), reactor=Clock()).set_last_notification("edge0", "mia", offline=5)

    def test_only_of_a_mailer_of_our_own(self) -> None:
        """Odoo's addon notes what Odoo sent."""
        for sections, keeps in ((f"[alerting]\n[mail.smtp]\n{MINIMAL}", True), ("[alerting]\n", False)):
            configuration = config.parse(
                f"[metadata.odoo]\nodooPassword = 'a'\npgPassword = 'b'\ndatabase = 'c'\n{sections}", "f.toml"
            )
            metadata = odoo_of(configuration.metadata_odoo, EventBus(), reactor=Clock(), now=lambda: 0)
            clocks: Any = {"reactor": Clock(), "now": lambda: 0}
            mailer = mailer_of(configuration, metadata, Path(self.mktemp()), **clocks)
            service = alerting_of(configuration, metadata, mailer, EventBus(), Path(self.mktemp()), **clocks)
            assert service is not None
            service._store.set_last_notification("edge0", "mia", offline=5)
            self.assertIs(service._store._stamps, metadata if keeps else None)

    def test_a_disk_that_is_full(self) -> None:
        """Said once and shown, tried again, and fine as soon as there is room."""
        path, clock = Path(self.mktemp()), Clock()
        store = self.store(str(path / "alerting.json"), clock)
        store.keep_pending_alert("edge0", msgspec.Raw(b"{}"))
        clock.pump([1.0] * 600)
        self.assertEqual(len(self.flushLoggedErrors(FileNotFoundError)), 1)
        service = AlertingService(
            DummyMetadata(EventBus(), reactor=clock), object(), store, EventBus(), reactor=clock, now=lambda: START
        )
        self.assertIn("alerting.json cannot be written: [Errno 2]", service.health()[0])
        path.mkdir()
        clock.pump([1.0] * 11)
        self.assertEqual(service.health(), [])
        self.assertEqual(list(self.store(str(path / "alerting.json"), clock).pending_alerts()), ["edge0"])

    def test_a_broken_file_is_set_aside(self) -> None:
        path = self.mktemp()
        Path(path).write_text("{")
        self.assertEqual(self.store(path, Clock()).pending_alerts(), {})
        self.assertTrue(Path(path + ".corrupt").exists())


class BeforeMetadata(TestCase):
    timeout = 30

    async def test_mails_wait_until_users_are_known(self) -> None:
        """A metadata file that comes later: until then nobody is known, and nobody's mail may be dropped for that."""
        real("smtpd")
        folder = Path(self.mktemp())
        queue = folder / "mail" / "queue"
        queue.mkdir(parents=True)
        key = key_of("alerting_offline", "edge0", "mia@example.org", START)
        envelope = Envelope(
            key=key, template="alerting_offline", sent_at=START, since=START, edge_id="edge0", login="mia@example.org"
        )
        (queue / f"{key}.json").write_bytes(msgspec.json.encode(envelope))
        pending = {"edge0": {"offline": {"since": START - START % 60_000, "due": START}}}
        state = {"version": 1, "edges": {"edge0": {"lastmessage": START - START % 60_000}}, "pending": pending}
        (folder / "metadata-state.json").write_text(json.dumps(state))
        configuration = config.parse(
            config.to_toml(
                {
                    "backend": {"stateDir": str(folder)},
                    "health": {"enabled": False},
                    "metadata.file": {"path": str(folder / "metadata.json")},
                    "timedata.dummy": [{}],
                    "alerting": {},
                    "mail.smtp": {"host": "127.0.0.1", "fromAddress": "ems@example.org", "dryRun": True},
                }
            ),
            "file.toml",
        )
        backend = Backend(configuration, reactor=reactor, now=lambda: START + 3_600_000)
        await backend.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        await deferLater(reactor, 0.5)
        self.assertEqual(set(backend.mailer.counts.values()), {0})
        self.assertIn("alerting0/HasMailer", backend.alerting.debug_metrics() if backend.alerting else {})
        (folder / "metadata.json").write_text(
            json.dumps(
                {
                    "edges": {"edge0": {"comment": "Tal", "apikey": "key0"}},
                    "users": {"mia@example.org": {"roles": {"edge0": "owner"}, "alerting": {"edge0": {"offline": 5}}}},
                }
            )
        )
        while not any(backend.mailer.counts.values()):
            await deferLater(reactor, 0.05)
        # The outage it was about began at another minute than what is pending: looked at with all that is known.
        self.assertEqual(backend.mailer.counts["Dropped"], 0)
        self.assertEqual(backend.health()["Mail.Smtp"].ok, True)
        self.assertEqual(backend.health()["Alerting"].ok, True)


class TestMail(SynchronousTestCase):
    def run_command(self, smtp: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
        path = Path(self.mktemp())
        sections = {"metadata.dummy": {}, "mail.smtp": {"fromAddress": "ems@example.org", "timeout": 5, **smtp}}
        path.write_text(config.to_toml(sections if smtp else {"metadata.dummy": {}}))
        command = [sys.executable, "-W", "error", "-m", "openems.application", "send-test-mail"]
        return subprocess.run(
            [*command, "--config", str(path.absolute()), *words], cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    def test_it_arrives(self) -> None:
        smtpd = real("smtpd")
        forget(smtpd)
        server = {"host": "127.0.0.1", "port": smtpd.port, "security": "none", "language": "FR", "oem": "ACME"}
        done = self.run_command(server, "ops@example.org")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, f"127.0.0.1:{smtpd.port} took the mail to ops@example.org\n")
        (mail,) = mails(smtpd)
        self.assertEqual((mail.to, mail.subject), (["ops@example.org"], "Message de test de ACME"))
        done = self.run_command(server, "ops@example.org", "--template", "alerting_sum_state", "--language", "CZ")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(mails(smtpd)[1].subject, "edge0 (Tal, Graz): Porucha")

    def test_it_says_why_not(self) -> None:
        smtpd = real("smtpd")
        forget(smtpd)
        server = {"host": "127.0.0.1", "port": smtpd.port, "security": "none"}
        done = self.run_command(server, "nobody@example.org")
        self.assertEqual(done.returncode, 1)
        self.assertIn("550 5.1.1 no such user", done.stderr)
        for smtp, words, said in (
            ({}, ["a@example.org"], "no [mail.smtp]"),
            (server, ["a b@example.org"], "is no mail address"),
            ({**server, "port": smtpd.info["silent"]}, ["a@example.org"], "no end after 5 s"),
            ({**server, "security": "starttls"}, ["a@example.org"], "TLS"),
        ):
            done = self.run_command(smtp, *words)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(said, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(json.dumps([m.to for m in mails(smtpd)]), "[]")
