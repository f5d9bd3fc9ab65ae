"""Which edges and users there are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from openems.application.config.section import Port, Section, Text


class MetadataFile(Section, frozen=True):
    """Edges and users from a JSON file (component `Metadata.File`). It is never written; changes of users go to a state
    file. A changed file is read again by itself."""

    path: Annotated[Text, Meta(description="The JSON file.")]
    state: Annotated[
        Text | None, Meta(description="The state file; absent: beside the file, `<name without extension>-state.json`.")
    ] = None
    language: Annotated[
        Literal["EN", "DE", "CZ", "NL", "ES", "FR"], Meta(description="Language of users who chose none.")
    ] = "DE"
    allow_empty: Annotated[bool, Meta(description="A file without edges is meant.")] = False
    single_user: Annotated[
        bool,
        Meta(description="Development only: without users in the file any login is an administrator. Loopback only."),
    ] = False


class MetadataDummy(Section, frozen=True):
    """Edges made up as they come, for development (component `Metadata.Dummy`): any login is an administrator.
    Loopback only."""

    edge_id_template: Annotated[Text, Meta(description="Format of an edge's id, with one `%d`.")] = "edge%d"
    edge_id_max: Annotated[int, Meta(ge=0, le=100000, description="Highest number that exists from the start.")] = 10


class MetadataOdoo(Section, frozen=True):
    """Edges and users in Odoo (component `Metadata.Odoo`), by its web interface and its PostgreSQL; see
    [odoo.md](odoo.md). Needs the PostgreSQL driver, `openems-backend[postgres]`."""

    database: Annotated[Text, Meta(description="Odoo's database, for both.")]
    odoo_password: Annotated[Text, Meta(description="Password of `odooLogin`.")]
    odoo_protocol: Annotated[Literal["HTTP", "HTTPS"], Meta(description="Of Odoo's web interface.")] = "HTTP"
    odoo_host: Annotated[Text, Meta(description="Where it is.")] = "localhost"
    odoo_port: Annotated[Port, Meta(description="Its port.")] = 8069
    odoo_login: Annotated[Text, Meta(description="Login of a user in the group OpenEMS / Manager.")] = "admin"
    odoo_uid: Annotated[
        int, Meta(ge=1, le=2147483647, description="Its id; 1, which cannot log in, means: ask Odoo for it.")
    ] = 1
    pg_host: Annotated[Text, Meta(description="Where Odoo's PostgreSQL is.")] = "localhost"
    pg_port: Annotated[Port, Meta(description="Its port.")] = 5432
    pg_user: Annotated[Text, Meta(description="User there.")] = "odoo"
    pg_password: Annotated[str, Meta(description="His password.")] = ""
    pg_sslmode: Annotated[
        Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
        Meta(description="TLS as libpq knows it; empty: libpq's default, prefer."),
    ] = ""
    pg_connection_pool_size: Annotated[int, Meta(ge=2, le=500, description="Most sessions; opened as needed.")] = 40
    request_pool_size: Annotated[int, Meta(ge=1, le=1000, description="Requests to Odoo at the same time.")] = 30
    write_interval: Annotated[
        float, Meta(ge=0.1, le=600, description="Seconds between two writes of what edges report.")
    ] = 5.0
    poll_interval: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="Seconds between two looks for new edges, where no trigger tells of them."),
    ] = 10.0
    mark_offline_at_start: Annotated[
        bool, Meta(description="Whether all edges count as offline at the start; false where several share Odoo.")
    ] = True
    enable_password_authentication: Annotated[
        bool, Meta(description="Users may log in with passwords of Odoo, and register with one.")
    ] = True
    registration: Annotated[
        bool,
        Meta(
            description="Whether strangers may register in Odoo, where no identity provider is configured; installers"
            " register their customers in any case."
        ),
    ] = True
    auth_o_auth_provider_name: Annotated[
        Text | None, Meta(description="Name of the auth.oauth.provider of users who log in elsewhere.")
    ] = None
    category_module: Annotated[Text, Meta(description="Module of the external ids of partner categories.")] = "fems"
    customer_login_suffix: Annotated[
        str, Meta(description="An end of a customer's e-mail address that is no part of his login.")
    ] = "@fenecon.de"
    app_center_master_key: Annotated[Text, Meta(description="The key installers install apps with.")] = (
        "DUMMY_MASTER_KEY"
    )
