"""Mails to users."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from openems.application.config.section import Port, Section, Text


class Alerting(Section, frozen=True):
    """Mails to users about edges that are offline, or in WARNING or FAULT (component `Alerting`). It needs a mailer:
    `[mail.smtp]`, or `[simulator.mailer]` for development. See [Alerting](alerting.md)."""

    initial_delay: Annotated[
        int,
        Meta(description="Minutes after the start before edges that are offline are looked for; 0 or less: at once."),
    ] = 15
    notify_on_offline: Annotated[bool, Meta(description="Mails when an edge stays offline.")] = True
    notify_on_sum_state_change: Annotated[bool, Meta(description="Mails when an edge stays in WARNING or FAULT.")] = (
        True
    )
    mass_outage_minimum: Annotated[
        int,
        Meta(ge=0, le=1000000, description="Edges that go offline together are a mass outage from this number on; 0:"
             " never."),
    ] = 20  # fmt: skip
    mass_outage_percent: Annotated[
        int, Meta(ge=1, le=100, description="And from this share of the edges that were online.")
    ] = 30
    mass_outage_hold: Annotated[
        int, Meta(ge=1, le=10080, description="Minutes that users are not told of a mass outage.")
    ] = 60


class SimulatorMailer(Section, frozen=True):
    """Mails become lines of the log (component `Simulator.Mailer`), for development."""

    id: Annotated[Text, Meta(description="Stands in those lines.")] = "SimulatorMail"


class MailSmtp(Section, frozen=True):
    """Mails to users over a mail server of one's own. What waits for the server is kept on disk."""

    host: Annotated[Text, Meta(description="The mail server; its certificate must be for this name.")]
    from_address: Annotated[Text, Meta(description="Sender of all mails.")]
    port: Annotated[Port, Meta(description="587 for `starttls`, 465 for `tls`.")] = 587
    security: Annotated[
        Literal["starttls", "tls", "none"],
        Meta(description="TLS after the greeting, from the first byte, or not at all."),
    ] = "starttls"
    username: Annotated[str, Meta(description="Login; empty: none.")] = ""
    password: Annotated[str, Meta(description="Its password.")] = ""
    ca: Annotated[
        str, Meta(description='Authority to trust instead of the machine\'s own, PEM: `{ file = "ca.pem" }`.')
    ] = ""
    helo: Annotated[str, Meta(description="Name said to the server; empty: the domain of `fromAddress`.")] = ""
    timeout: Annotated[
        int,
        Meta(ge=5, le=600, description="Seconds until the server has a mail; for its word on it another ten minutes."),
    ] = 60
    from_name: Annotated[str, Meta(description="Name of the sender; empty: `oem`.")] = ""
    reply_to: Annotated[str, Meta(description="Where replies go; empty: the sender.")] = ""
    envelope_sender: Annotated[str, Meta(description="Where bounces go; empty: the sender.")] = ""
    oem: Annotated[Text, Meta(description="Name that stands in the mails.")] = "OpenEMS"
    signature: Annotated[str, Meta(description="At the end of each mail.")] = ""
    imprint: Annotated[str, Meta(description="In the foot of each mail.")] = ""
    base_url: Annotated[str, Meta(description="Of the UI, for links to edges and settings; empty: no links.")] = ""
    language: Annotated[
        Literal["EN", "DE", "CZ", "NL", "ES", "FR"], Meta(description="For readers whose language is not known.")
    ] = "EN"
    timezone: Annotated[Text, Meta(description="For readers whose time zone is not known.")] = "UTC"
    templates: Annotated[Text | None, Meta(description="Directory of texts and layouts of one's own.")] = None
    spool: Annotated[
        Text | None, Meta(description="Directory of waiting mails; absent: `mail` in the state directory.")
    ] = None
    max_per_minute: Annotated[int, Meta(ge=1, le=100000, description="Mails a minute.")] = 60
    max_connections: Annotated[int, Meta(ge=1, le=20, description="Mails at the same time.")] = 2
    max_per_hour: Annotated[
        int, Meta(ge=1, le=10000, description="Mails one user gets an hour; if there are more, one tells of all.")
    ] = 20
    give_up_after: Annotated[int, Meta(ge=1, le=720, description="Hours after which a mail is given up.")] = 48
    operators: Annotated[list[str], Meta(description="Addresses that are told of mass outages.")] = []
    dry_run: Annotated[bool, Meta(description="Everything but the sending.")] = False
