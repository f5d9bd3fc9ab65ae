"""A section ``[metadata.odoo]`` as a provider. The driver is looked for only where there is such a section."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openems.application import drivers
from openems.application.config.metadata import MetadataOdoo
from openems.backend.events import EventBus

if TYPE_CHECKING:
    from openems.backend.metadata.odoo.provider import OdooMetadata
    from openems.backend.metadata.odoo.settings import OdooSettings


def settings_of(section: MetadataOdoo) -> OdooSettings:
    from openems.backend.metadata.odoo.settings import OdooSettings

    return OdooSettings(
        url=f"{section.odoo_protocol.lower()}://{section.odoo_host}:{section.odoo_port}",
        login=section.odoo_login,
        uid=section.odoo_uid,
        password=section.odoo_password,
        pg_host=section.pg_host,
        pg_port=section.pg_port,
        pg_user=section.pg_user,
        pg_password=section.pg_password,
        pg_ssl_mode=section.pg_sslmode or None,
        database=section.database,
        request_pool_size=section.request_pool_size,
        pg_connection_pool_size=section.pg_connection_pool_size,
        write_interval=section.write_interval,
        poll_interval=section.poll_interval,
        mark_offline_at_start=section.mark_offline_at_start,
        enable_password_authentication=section.enable_password_authentication,
        registration=section.registration,
        auth_oauth_provider_name=section.auth_o_auth_provider_name,
        category_module=section.category_module,
        customer_login_suffix=section.customer_login_suffix,
        app_center_master_key=section.app_center_master_key,
    )


def odoo_of(
    section: MetadataOdoo,
    events: EventBus,
    *,
    reactor: Any,
    now: Callable[[], int],
    observe: Callable[[str, str, float], None] | None = None,
) -> OdooMetadata:
    """Raises :class:`openems.application.config.BadConfiguration` where the PostgreSQL driver is not installed."""
    try:
        from openems.backend.metadata.odoo.provider import OdooMetadata
    except ImportError as error:
        raise drivers.refusal("[metadata.odoo]", error) from None
    return OdooMetadata(settings_of(section), events, reactor=reactor, now=now, observe=observe)
