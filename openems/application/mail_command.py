"""``openems-backend send-test-mail``: one mail by the configured mail server, to see whether it arrives."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from typing import Any

from msgspec.structs import replace

from openems.application import config
from openems.application.alerting import delivery_of, sender_of, templates_of
from openems.application.running import in_reactor
from openems.backend.mail.delivery import Refused, Unreachable
from openems.backend.mail.message import BadAddress, address, compose
from openems.backend.mail.render import NAMES, TEST, sample_facts
from openems.common.role import Language


def add_to(commands: Any) -> None:
    text = "Send one mail by the mail server of a configuration; say what the server said."
    sub: argparse.ArgumentParser = commands.add_parser("send-test-mail", help=text, description=text)
    sub.add_argument("address", metavar="ADDRESS", help="who gets it")
    sub.add_argument("--config", required=True, metavar="FILE", help="a TOML file with [mail.smtp]")
    sub.add_argument("--template", choices=NAMES, default=TEST, help="with made-up values (test)")
    sub.add_argument("--language", choices=[language.value for language in Language], help="else that of the file")
    sub.set_defaults(run=_send_test_mail)


def _send_test_mail(options: argparse.Namespace) -> int:
    section = config.load(options.config).mail_smtp
    if section is None:
        print(f"{options.config}: there is no [mail.smtp]", file=sys.stderr)
        return 1
    try:
        to = address(options.address)
    except BadAddress as e:
        print(f"{options.address!r} {e}", file=sys.stderr)
        return 1
    sender, templates = sender_of(section), templates_of(section)
    now = time.time_ns() // 1_000_000
    language = Language.parse(options.language or section.language)
    sample = sample_facts()
    facts = replace(
        sample,
        now=now,
        login=to,
        firstname="",
        lastname="",
        language=language,
        timezone=section.timezone,
        lastmessage=now - (sample.now - (sample.lastmessage or 0)),
        since=now - (sample.now - (sample.since or 0)),
        until=now + 3_600_000,
    )
    message = compose(
        templates.render(options.template, facts),
        sender,
        to,
        key=secrets.token_hex(16),
        template=options.template,
        edge_id=facts.edge_id,
        date=now,
    )

    async def deliver(reactor: Any) -> int:
        server = f"{section.host}:{section.port}"
        try:
            await delivery_of(section, reactor).deliver(sender.envelope or sender.address, to, message)
        except (Refused, Unreachable) as e:
            print(f"{server}: the mail to {to} was not taken: {e}", file=sys.stderr)
            return 1
        print(f"{server} took the mail to {to}")
        return 0

    return in_reactor(deliver)
