"""What is wrong between sections, and with values that no type describes."""

from __future__ import annotations

import os
import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from openems.application.config.configuration import Configuration, listeners
from openems.application.config.history import (
    TimedataAggregatedInfluxdb,
    TimedataInfluxdb,
)
from openems.application.config.logins import oauth_realm, oems
from openems.application.config.reader import nearest
from openems.backend.authentication.keycloak.keyset import ALGORITHMS
from openems.backend.authentication.keycloak.settings import problems_of
from openems.backend.mail.message import BadAddress, address
from openems.backend.timedata.aggregatedinflux.allowed import AllowedChannels
from openems.backend.timedata.aggregatedinflux.zones import zones_of
from openems.backend.timedata.influx.period import Period
from openems.websocket.proxies import TrustedProxies


def contradictions(configuration: Configuration) -> list[str]:
    """What is wrong between sections."""
    problems: list[str] = []
    for network in configuration.backend.trusted_proxies:
        try:
            TrustedProxies([network])
        except ValueError as e:
            problems.append(f"[backend] trustedProxies: {e}")
    sources = {
        "[metadata.file]": configuration.metadata_file,
        "[metadata.dummy]": configuration.metadata_dummy,
        "[metadata.odoo]": configuration.metadata_odoo,
    }
    if all(section is None for section in sources.values()):
        problems.append(f"nothing says which edges exist: one of {', '.join(sources)} is needed")
    given = [name for name, section in sources.items() if section is not None]
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} exclude each other")
    problems += _oauth(configuration)
    problems += _b2b(configuration)
    problems += _mail(configuration)
    ports: dict[int, str] = {}
    for name, listener in listeners(configuration).items():
        if configuration.port(listener) > 65535:
            problems.append(f"[{name}] port: {listener} plus the offset {configuration.backend.offset} is above 65535")
        if listener in ports:
            problems.append(f"[{name}] port: {listener} is the port of [{ports[listener]}] already")
        ports[listener] = name
    ids: set[str] = set()
    for id_ in [
        *(p.id for p in configuration.timedata_sqlite),
        *(p.id for p in configuration.timedata_timescaledb),
        *(p.id for p in configuration.timedata_influxdb),
        *(p.id for p in (configuration.timedata_aggregatedinfluxdb,) if p is not None),
        *(p.id for p in configuration.timedata_dummy),
    ]:
        if id_ in ids:
            problems.append(f'[[timedata]] id: two providers have the id "{id_}"')
        ids.add(id_)
    files: set[str] = set()
    for provider in configuration.timedata_sqlite:
        file = os.path.normpath(provider.path or f"{provider.id}.sqlite")
        if provider.path is not None and file in files:
            problems.append(f"[timedata.sqlite] path: {provider.path} is the file of two providers")
        files.add(file)
        if provider.retention_days_raw > provider.retention_days_rollup:
            problems.append(
                f"[timedata.sqlite] retentionDaysRaw: {provider.retention_days_raw} is more than retentionDaysRollup"
            )
    for database in configuration.timedata_timescaledb:
        if 0 < database.rollup_retention_days < (database.raw_retention_days or 1 << 30):
            problems.append(
                "[timedata.timescaledb] rollupRetentionDays: less than rawRetentionDays: as long as values are kept"
                " as they came, so must be their 5-minute values"
            )
    problems += _influx(configuration)
    for id_ in configuration.core_timedatamanager.ids:
        if id_ not in ids:
            problems.append(f'[core.timedatamanager] ids: there is no provider "{id_}"{nearest(id_, sorted(ids))}')
    return problems


def _b2b(configuration: Configuration) -> list[str]:
    """Other systems log in by password; without anybody who takes one the servers would refuse everyone."""
    if configuration.backend2backend_rest is None and not configuration.backend2backend_websocket:
        return []
    ways = configuration.authentication.passwords
    clients = configuration.authentication_oauth_clientconfig
    if "metadata" in ways or ("oauth" in ways and any(client.service_account for client in clients)):
        return []
    return ["[backend2backend] needs passwords, and [authentication] passwords names nobody who takes any"]


def _oauth(configuration: Configuration) -> list[str]:
    section, clients = configuration.authentication_oauth, configuration.authentication_oauth_clientconfig
    problems: list[str] = []
    if section is None:
        if clients:
            problems.append("[[authentication.oauth.clientconfig]] is there, [authentication.oauth] is not")
    else:
        if not clients:
            problems.append("[authentication.oauth] needs an [[authentication.oauth.clientconfig]] for each OEM")
        problems += [
            f"[authentication.oauth] {problem}" for problem in problems_of(oauth_realm(section), oems(clients))
        ]
        problems += [
            f'[authentication.oauth] algorithms: "{name}" is not known{nearest(name, list(ALGORITHMS))}'
            for name in section.algorithms
            if name not in ALGORITHMS
        ]
    seen: set[str] = set()
    for client in configuration.oauthregistry_client:
        if client.identifier in seen:
            problems.append(f'[[oauthregistry.client]] identifier: "{client.identifier}" is there twice')
        seen.add(client.identifier)
    return problems


def _influx(configuration: Configuration) -> list[str]:
    problems: list[str] = []
    aggregated = configuration.timedata_aggregatedinfluxdb
    servers: list[TimedataInfluxdb | TimedataAggregatedInfluxdb] = [*configuration.timedata_influxdb]
    for server in [*servers, *([] if aggregated is None else [aggregated])]:
        if server.query_language == "FLUX" and server.org == "-":
            problems.append(f'[[timedata]] org: "{server.id}" is asked in FLUX, and InfluxDB 2 has organisations')
    for provider in configuration.timedata_influxdb:
        try:
            period = Period.of(provider.start_date, provider.end_date)
        except ValueError as error:
            problems.append(f"[timedata.influxdb] startDate, endDate: a day looks like 2026-01-31: {error}")
        else:
            if period.begin is not None and period.end is not None and period.begin >= period.end:
                problems.append(f"[timedata.influxdb] endDate: {provider.end_date} is before {provider.start_date}")
    if aggregated is not None:
        try:
            zones_of(aggregated.measurements_max)
        except ValueError as error:
            problems.append(f"[timedata.aggregatedinfluxdb] measurementsMax: {error}")
        try:
            AllowedChannels(aggregated.allowed_channels_avg, aggregated.allowed_channels_max)
        except ValueError as error:
            problems.append(f"[timedata.aggregatedinfluxdb] allowedChannelsAvg, allowedChannelsMax: {error}")
    return problems


def _mail(configuration: Configuration) -> list[str]:
    section = configuration.mail_smtp
    if section is None:
        return []
    problems: list[str] = []
    if configuration.simulator_mailer is not None:
        problems.append("[mail.smtp] and [simulator.mailer] exclude each other")
    addresses = {"fromAddress": section.from_address, "replyTo": section.reply_to}
    addresses["envelopeSender"] = section.envelope_sender
    for key, text in [*addresses.items(), *(("operators", operator) for operator in section.operators)]:
        try:
            if text or key in ("fromAddress", "operators"):
                address(text)
        except BadAddress as e:
            problems.append(f'[mail.smtp] {key}: "{text}" {e}')
    if bool(section.username) != bool(section.password):
        problems.append("[mail.smtp] username and password belong together")
    if section.password and section.security == "none" and section.host not in ("127.0.0.1", "::1", "localhost"):
        problems.append("[mail.smtp] security: without TLS the password would be readable on its way")
    if section.base_url and not re.match(r"https?://[^\s<>\"]+\Z", section.base_url):
        problems.append(f'[mail.smtp] baseUrl: "{section.base_url}" is no address of a page')
    if section.helo and not re.match(r"[A-Za-z0-9.:\[\]-]{1,255}\Z", section.helo):
        problems.append(f'[mail.smtp] helo: "{section.helo}" is no host name')
    try:
        ZoneInfo(section.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problems.append(f'[mail.smtp] timezone: there is no "{section.timezone}", such as Europe/Berlin')
    if section.templates is not None:
        # Imported late: few have templates of their own.
        from openems.backend.mail.render import BadTemplates, Templates
        from openems.backend.mail.render import Oem as MailOem

        try:
            Templates(MailOem(), section.templates)
        except BadTemplates as e:
            problems.append(f"[mail.smtp] templates: {e}")
    if section.ca and "-----END CERTIFICATE-----" not in section.ca:
        problems.append('[mail.smtp] ca: is no certificate in PEM; a file is given as { file = "ca.pem" }')
    return problems
