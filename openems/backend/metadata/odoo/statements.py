"""Every SQL statement at Odoo's own tables (metadata-odoo.md 5.2), and how rows are read. Pure.

Rights that ``pgUser`` needs: SELECT on openems_device, UPDATE on what is set here, INSERT on
openems_openemsconfigupdate and USAGE on its sequence. Columns have no defaults in the database, Odoo's ORM fills them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg2

from openems.backend.metadata.odoo.times import milliseconds
from openems.common.role import Level

#: P1. With a condition: nothing is written, and nothing locked, for edges that are offline already.
MARK_OFFLINE = (
    "UPDATE openems_device SET openems_is_connected = FALSE WHERE openems_is_connected IS DISTINCT FROM FALSE"
)
#: P2 and one column more. The order of a row's fields is that of :class:`Row`.
EDGES = (
    "SELECT id,apikey,setup_password,name,comment,openems_version,lastmessage,producttype,openems_sum_state_level"
    " FROM openems_device"
)
EDGES_BY_ID = EDGES + " WHERE id = ANY(%s)"
#: One value that changes whenever a column that only Odoo writes does, or an edge comes or goes.
FINGERPRINT = (
    "SELECT count(*), coalesce(sum(hashtext(ROW(id,apikey,setup_password,name,comment,producttype)::text)::bigint), 0)"
    " FROM openems_device"
)
#: P3, P4, P5 and P6.
CONFIG = "SELECT openems_config FROM openems_device WHERE name = %s LIMIT 1"
CONFIG_FOR_UPDATE = "SELECT id, openems_config FROM openems_device WHERE name = %s LIMIT 1 FOR NO KEY UPDATE"
STORE_CONFIG = "UPDATE openems_device SET openems_config = %s, openems_config_components = %s WHERE id = %s"
LOG = "INSERT INTO openems_openemsconfigupdate (create_date, device_id, teaser, details) VALUES(%s, %s, %s, %s)"
#: P7 to P10 and the version, for any number of edges at once. NULL leaves a column alone.
STATUS = (
    "UPDATE openems_device d SET"
    " openems_is_connected = coalesce(v.online, d.openems_is_connected),"
    " lastmessage = coalesce(v.lastmessage, d.lastmessage),"
    " openems_sum_state_level = coalesce(v.sum_state, d.openems_sum_state_level),"
    " openems_version = coalesce(v.version, d.openems_version),"
    " producttype = coalesce(v.producttype, d.producttype)"
    " FROM unnest(%s::int[], %s::bool[], %s::timestamp[], %s::varchar[], %s::varchar[], %s::varchar[])"
    " AS v(id, online, lastmessage, sum_state, version, producttype) WHERE d.id = v.id"
)
#: The channel of deploy/odoo/notify.sql, and whether its triggers are there.
CHANNEL = "openems_backend"
HAS_TRIGGER = (
    "SELECT count(*) FROM pg_trigger WHERE tgname = 'openems_backend_device'"
    " AND tgrelid = to_regclass('openems_device') AND tgenabled <> 'D'"
)


class Row(msgspec.Struct, frozen=True):
    """An edge as the database has it; ``lastmessage`` in epoch milliseconds."""

    odoo_id: int
    apikey: str
    setup_password: str
    name: str
    comment: str
    version: str
    lastmessage: int | None
    producttype: str
    sum_state: Level | None


def row(values: Sequence[Any]) -> Row:
    """Raises ValueError for a row that is no edge.

    >>> row((1, "key0", None, "edge0", None, None, "2026-04-20 11:22:33.456789", None, None)).comment
    ''
    """
    odoo_id, apikey, setup_password, name, comment, version, lastmessage, producttype, state = values
    if not name:
        raise ValueError("Value of field [NAME] is null.")
    if not apikey:
        raise ValueError("Value of field [APIKEY] is null.")
    return Row(
        odoo_id,
        apikey,
        setup_password or "",
        name,
        comment or "",
        version or "",
        milliseconds(lastmessage),
        producttype or "",
        level(state),
    )


def is_refused(error: Exception) -> bool:
    """Whether the values are what the database does not take: data, constraints, limits, or what the driver cannot
    send. All else passes: a deadlock, a full disk, a standby that is read only, rights that somebody will grant."""
    code = error.pgcode if isinstance(error, psycopg2.Error) else None
    return code is None or code[:2] in ("22", "23", "54")


def reason_of(error: Exception) -> str:
    """One line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def level(text: Any) -> Level | None:
    return Level.__members__.get(text.upper()) if isinstance(text, str) else None


def utc(epoch_milliseconds: int) -> datetime:
    """A column of Odoo's type Datetime: without zone, UTC."""
    return datetime.fromtimestamp(epoch_milliseconds / 1000, UTC).replace(tzinfo=None)
