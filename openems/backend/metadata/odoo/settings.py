"""What Metadata.Odoo is told, in OpenEMS's names where there are such (metadata-odoo.md 2)."""

from __future__ import annotations

import msgspec


class OdooSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``write_interval`` and ``poll_interval`` in seconds."""

    url: str
    login: str = "admin"
    uid: int = 1
    password: str
    pg_host: str = "localhost"
    pg_port: int = 5432
    pg_user: str = "odoo"
    pg_password: str = ""
    pg_ssl_mode: str | None = None
    database: str
    request_pool_size: int = 30
    pg_connection_pool_size: int = 40
    write_interval: float = 5.0
    poll_interval: float = 10.0
    mark_offline_at_start: bool = True
    enable_password_authentication: bool = True
    registration: bool = True
    auth_oauth_provider_name: str | None = None
    category_module: str = "fems"
    customer_login_suffix: str = "@fenecon.de"
    app_center_master_key: str = "DUMMY_MASTER_KEY"

    def __repr__(self) -> str:
        return f"OdooSettings(url={self.url!r}, database={self.database!r})"
