"""Parameters of the UI's own requests as typed values (ui.md 6 to 9, 13). Pure; bad input is an OpenemsError that
names what is wrong and never repeats a password."""

from __future__ import annotations

import re
from typing import Any

from openems.backend.models import OrderItem, PageRequest, SetupProtocolCoreInfo, UserAlertingSettings
from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError, generic, json_text, short
from openems.common.instant import instant
from openems.common.jsonrpc import Members, Notification
from openems.common.role import Level, Role

MAX_LIMIT = 100
MAX_FILTERS = 100
MAX_TEXT = 255
MAX_RECORDS = 1_000
#: Characters of a generated password (ui.md 20, T20): 0-9, A-Z, a-y.
GENERATED_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxy"
GENERATED_LENGTH = 8

_PERSON = ("firstname", "lastname", "phone", "email")
_ADDRESS = ("street", "zip", "city", "country")
_LOG_LEVELS = frozenset({"ALL", "TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "OFF"})
_TIME = re.compile(r"(\d{4,}-\d\d-\d\dT\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?(Z|[+-]\d\d(?::?\d\d){0,2})\Z")


def page_request(members: Members) -> PageRequest:
    """getEdges (ui.md 7.1, 20 T5): ``page`` is required, ``limit`` 1 to 100, unknown names of states are code 1."""
    page = members.integer("page")
    if page < 0:
        raise generic("Page is negative")
    limit = members.optional_integer("limit")
    if limit is None:
        limit = 20
    if not 1 <= limit <= MAX_LIMIT:
        raise generic(f"Limit is not in range [1:{MAX_LIMIT}]")
    query = members.optional_string("query")
    if query is not None and len(query) > MAX_TEXT:
        raise generic(f"Query is longer than {MAX_TEXT} characters")
    search = members.value("searchParams")
    if search is None:
        return PageRequest(page=page, limit=limit, query=query)
    params = Members(members.object("searchParams"))
    return PageRequest(
        page=page,
        limit=limit,
        query=query,
        producttype=_names(params, "producttype"),
        sum_state=_levels(_names(params, "sumState")),
        is_online=params.optional_boolean("isOnline"),
        order=_order(params),
    )


def _names(params: Members, name: str) -> list[str] | None:
    if params.value(name) is None:
        return None
    names = params.strings(name)
    if len(names) > MAX_FILTERS:
        raise generic(f"More than {MAX_FILTERS} entries in [{name}]")
    return names


def _levels(names: list[str] | None) -> list[Level] | None:
    if names is None:
        return None
    levels = []
    for name in names:
        level = Level.__members__.get(name.upper())
        if level is None:
            raise generic(f"No enum constant io.openems.common.channel.Level.{short(name.upper(), 40)}")
        levels.append(level)
    return levels


def _order(params: Members) -> list[OrderItem] | None:
    if params.value("orderState") is None:
        return None
    elements = params.array("orderState")
    if len(elements) > MAX_FILTERS:
        raise generic(f"More than {MAX_FILTERS} entries in [orderState]")
    items = []
    for element in elements:
        if not isinstance(element, dict):
            raise OpenemsError(errors.JSON_NO_OBJECT, short(json_text(element), 100))
        item = Members(element)
        direction = item.string("sortOrder").upper()
        if direction not in ("ASC", "DESC"):
            raise generic(f"Sort order [{short(direction, 40)}] is neither ASC nor DESC")
        items.append(OrderItem(item.string("field"), direction == "DESC"))
    return items


def registration_record(user: dict[str, Any]) -> dict[str, Any]:
    """The ``user`` of registerUser, strictly read (ui.md 6, wire.md 4.3).

    ``firstname``, ``lastname``, ``phone``, ``email``, ``address`` {``street``, ``zip``, ``city``, ``country``},
    ``role`` in upper case, ``includePasswordInRegistrationEmail``, and where given ``password`` and ``company``
    (ui.md 19, 49). Failures are code 1.
    """
    record: dict[str, Any] = {name: _text(user, name) for name in _PERSON}
    if user.get("password") is not None:
        record["password"] = _text(user, "password")
    include = user.get("includePasswordInRegistrationEmail")
    if include is not None and not isinstance(include, bool):
        raise generic("Member [includePasswordInRegistrationEmail] is not a boolean")
    record["includePasswordInRegistrationEmail"] = bool(include)
    address = user.get("address")
    if not isinstance(address, dict):
        raise _missing(user, "address", "an object")
    record["address"] = {name: _text(address, name) for name in _ADDRESS}
    role = Role.__members__.get(_text(user, "role").upper())
    if role is None:
        raise generic(f"No such Role [{short(user['role'], 40)}]")
    record["role"] = role.name
    company = user.get("company")
    if isinstance(company, dict) and isinstance(company.get("name"), str):
        record["company"] = {"name": _text(company, "name")}
    return record


def _text(source: dict[str, Any], name: str) -> str:
    value = source.get(name)
    if not isinstance(value, str):
        raise _missing(source, name, "a String")
    if len(value) > MAX_TEXT:
        raise generic(f"Member [{name}] is longer than {MAX_TEXT} characters")
    return value


def _missing(source: dict[str, Any], name: str, kind: str) -> OpenemsError:
    # Java prints the whole object here, password included (auth.md 7.8): the names are enough.
    if name not in source:
        return generic(f"Member [{name}] was not part of {{{short(', '.join(source), 200)}}}")
    return generic(f"Member [{name}] is not {kind}")


def alerting_settings(members: Members) -> list[UserAlertingSettings]:
    """setUserAlertingConfigs (ui.md 8.2): all four members of each record are required, else 5016. Delays below zero
    mean off, as zero does."""
    edge_id = members.string("edgeId")
    elements = members.array("userSettings")
    if len(elements) > MAX_RECORDS:
        raise generic(f"More than {MAX_RECORDS} entries in [userSettings]")
    settings = []
    for element in elements:
        if not isinstance(element, dict):
            raise generic(f"Not a JSON Object: {short(json_text(element), 100)}")
        record = Members(element)
        try:
            settings.append(
                UserAlertingSettings(
                    edge_id=edge_id,
                    user_login=record.string("userLogin"),
                    offline_delay=max(0, record.integer("offlineEdgeDelay")),
                    fault_delay=max(0, record.integer("faultEdgeDelay")),
                    warning_delay=max(0, record.integer("warningEdgeDelay")),
                )
            )
        except OpenemsError as e:
            raise OpenemsError(
                errors.JSON_PARSE_FAILED, "Error parsing SetUserAlertingConfigsRequest", e.message
            ) from None
    return settings


def alerting_json(settings: UserAlertingSettings) -> dict[str, Any]:
    """One record of ui.md 8."""
    return {
        "userLogin": settings.user_login,
        "offlineEdgeDelay": settings.offline_delay,
        "faultEdgeDelay": settings.fault_delay,
        "warningEdgeDelay": settings.warning_delay,
    }


def core_info_json(info: SetupProtocolCoreInfo) -> dict[str, Any]:
    """One setup protocol of ui.md 9; ``createDate`` is left out where unknown."""
    shape: dict[str, Any] = {"setupProtocolId": info.id}
    if info.create_date is not None:
        shape["createDate"] = instant(info.create_date)
    shape["setupProtocolType"] = info.type
    return shape


def log_message(members: Members) -> tuple[str, str]:
    """logMessage (ui.md 13): level in upper case, and the text on one line, cut to 1,000 characters."""
    level = members.string("level").upper()
    if level not in _LOG_LEVELS:
        raise OpenemsError(errors.JSON_NO_ENUM_MEMBER, "level", short(level, 40))
    text = "".join(char if char.isprintable() else " " for char in members.string("msg")[:1_000])
    return level, text


def with_milliseconds(time: str) -> str:
    """``time`` of a system-log line with exactly three digits after the second, as the UI wants (ui.md 15.9); a text
    of another form is left alone.

    >>> with_milliseconds("2026-04-01T10:15:30.12+02:00")
    '2026-04-01T10:15:30.120+02:00'
    """
    match = _TIME.match(time)
    if match is None:
        return time
    minutes, seconds, fraction, offset = match.groups()
    return f"{minutes}{seconds or ':00'}.{(fraction or '').ljust(3, '0')[:3]}{offset}"


def with_exact_time(notification: Notification) -> Notification:
    """The line's time with milliseconds (ui.md 15.9); everything else verbatim."""
    try:
        params = jsonrpc.loads(notification.params)
    except ValueError:
        return notification
    line = params.get("line") if isinstance(params, dict) else None
    time = line.get("time") if isinstance(line, dict) else None
    if not isinstance(line, dict) or not isinstance(time, str):
        return notification
    exact = with_milliseconds(time)
    if exact == time:
        return notification
    line["time"] = exact
    return Notification(notification.method, jsonrpc.raw(params))
