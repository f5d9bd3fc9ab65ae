"""Builds what knows edges and users."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from openems.application.config import Configuration
from openems.application.config.metadata import MetadataDummy, MetadataFile
from openems.application.odoo import odoo_of
from openems.backend.events import EventBus
from openems.backend.metadata.appcenter import AppCenterMetadata
from openems.backend.metadata.dummy import DummyLogins, DummyMetadata
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.password import PasswordService
from openems.backend.metrics.requests import Requests
from openems.common.role import Language


class Metadata(NamedTuple):
    """``provider``: IMetadata; ``passwords``: who takes the passwords of its users, or None; ``app_center``:
    IAppCenterMetadata or None."""

    provider: Any
    passwords: Any
    app_center: Any


def metadata_of(
    configuration: Configuration,
    events: EventBus,
    *,
    reactor: Any,
    now: Callable[[], int],
    requests: Requests | None,
) -> Metadata:
    """Raises :class:`openems.application.config.BadConfiguration` where Odoo's driver is not installed."""
    if configuration.metadata_file is not None:
        file = file_of(configuration.metadata_file, events, reactor=reactor, now=now)
        return Metadata(file, PasswordService(file, reactor=reactor, now=now), None)
    if configuration.metadata_odoo is not None:
        observe = None if requests is None else requests.http("metadata0")
        odoo = odoo_of(configuration.metadata_odoo, events, reactor=reactor, now=now, observe=observe)
        return Metadata(odoo, odoo.logins, odoo.app_center)
    assert configuration.metadata_dummy is not None  # noqa: S101 - the configuration is checked
    dummy = dummy_of(configuration.metadata_dummy, events, reactor=reactor)
    return Metadata(dummy, DummyLogins(dummy), AppCenterMetadata())


def file_of(section: MetadataFile, events: EventBus, *, reactor: Any, now: Callable[[], int]) -> FileMetadata:
    return FileMetadata(
        section.path,
        section.state or f"{os.path.splitext(section.path)[0]}-state.json",
        events,
        reactor=reactor,
        now=now,
        allow_any_login=section.single_user,
        allow_empty=section.allow_empty,
        default_language=Language.parse(section.language),
    )


def dummy_of(section: MetadataDummy, events: EventBus, *, reactor: Any) -> DummyMetadata:
    return DummyMetadata(
        events, reactor=reactor, edge_id_template=section.edge_id_template, edge_id_max=section.edge_id_max
    )
