"""Builds alerting and the mailer of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThreadPool

from openems.application.config import BadConfiguration, Configuration
from openems.application.config.alerting import MailSmtp
from openems.backend.alerting.rules import MassGuard
from openems.backend.alerting.service import AlertingService
from openems.backend.alerting.store import FileStore
from openems.backend.events import EventBus
from openems.backend.interfaces import IAlertingStore, IMailer, INotificationStamps
from openems.backend.mail.delivery import Delivery, Server
from openems.backend.mail.directory import directory_of
from openems.backend.mail.message import Sender, address
from openems.backend.mail.render import BadTemplates, Oem, Templates
from openems.backend.mail.simulator import SimulatorMailer
from openems.backend.mail.smtp import SmtpMailer
from openems.backend.mail.spool import Spool
from openems.common.role import Language


def sender_of(section: MailSmtp) -> Sender:
    return Sender(
        address=address(section.from_address),
        name=section.from_name or section.oem,
        reply_to=address(section.reply_to) if section.reply_to else "",
        envelope=address(section.envelope_sender) if section.envelope_sender else "",
    )


def templates_of(section: MailSmtp) -> Templates:
    """Raises :class:`BadConfiguration`."""
    oem = Oem(
        name=section.oem,
        signature=section.signature,
        imprint=section.imprint,
        base_url=section.base_url,
        timezone=section.timezone,
        language=Language.parse(section.language),
    )
    try:
        return Templates(oem, section.templates)
    except BadTemplates as e:
        raise BadConfiguration("", [f"[mail.smtp] templates: {e}"]) from None


def server_of(section: MailSmtp) -> Server:
    return Server(
        host=section.host,
        port=section.port,
        security=section.security,
        username=section.username,
        password=section.password,
        helo=section.helo or address(section.from_address).rpartition("@")[2],
        ca=section.ca,
        timeout=section.timeout,
    )


def delivery_of(section: MailSmtp, reactor: Any) -> Delivery:
    """Raises :class:`BadConfiguration`."""
    try:
        return Delivery(server_of(section), reactor=reactor)
    except Exception as e:
        # The library that reads certificates has errors of its own.
        raise BadConfiguration("", [f"[mail.smtp] ca: is no certificate in PEM: {type(e).__name__}"]) from None


def mailer_of(
    configuration: Configuration, metadata: Any, state_dir: Path, *, reactor: Any, now: Callable[[], int]
) -> Any:
    """An IMailer; None if there is none. Metadata that mails itself does so unless another mailer is configured."""
    section = configuration.mail_smtp
    if section is not None:
        spool = Spool(
            section.spool or str(state_dir / "mail"),
            now=now,
            in_thread=lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work),
        )
        return SmtpMailer(
            spool,
            delivery_of(section, reactor),
            templates_of(section),
            sender_of(section),
            directory_of(metadata),
            metadata.get_edge,
            reactor=reactor,
            now=now,
            operators=[address(operator) for operator in section.operators],
            per_minute=section.max_per_minute,
            parallel=section.max_connections,
            per_hour=section.max_per_hour,
            max_age=section.give_up_after * 60,
            dry_run=section.dry_run,
        )
    if configuration.simulator_mailer is not None:
        return SimulatorMailer(configuration.simulator_mailer.id)
    return metadata if IMailer.providedBy(metadata) else None


def alerting_of(
    configuration: Configuration,
    metadata: Any,
    mailer: Any,
    events: EventBus,
    state_dir: Path,
    *,
    reactor: Any,
    now: Callable[[], int],
) -> AlertingService | None:
    section = configuration.alerting
    if section is None:
        return None
    store = metadata
    if not IAlertingStore.providedBy(metadata):
        # Metadata that mails by itself notes by itself what it sent.
        keeps = isinstance(mailer, SmtpMailer) and INotificationStamps.providedBy(metadata)
        store = FileStore(str(state_dir / "alerting.json"), reactor=reactor, stamps=metadata if keeps else None)
    service = AlertingService(
        metadata,
        mailer,
        store,
        events,
        reactor=reactor,
        now=now,
        initial_delay=section.initial_delay,
        notify_on_offline=section.notify_on_offline,
        notify_on_sum_state_change=section.notify_on_sum_state_change,
        guard=MassGuard(
            percent=section.mass_outage_percent, minimum=section.mass_outage_minimum, hold=section.mass_outage_hold
        ),
        on_mass_outage=mailer.mass_outage if isinstance(mailer, SmtpMailer) else lambda gone, known, until: None,
    )
    if isinstance(mailer, SmtpMailer):
        mailer.is_wanted = service.is_wanted
        mailer.on_delivered = service.delivered
    return service
