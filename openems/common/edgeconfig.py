"""EdgeConfig: what an edge says it is made of (wire.md 4.13), and the difference of two of them (4.14). Pure.

A configuration is kept and passed on verbatim; this reads it where the content is needed, and takes what it can get: a
part that is not as it should be counts as not there.
"""

from __future__ import annotations

import html
from typing import Any

import msgspec
from msgspec import Raw

from openems.common import jsonrpc
from openems.common.errors import short

EMPTY_CONFIG = Raw(b'{"components":{},"factories":{}}')
_DROPPED_PROPERTIES = frozenset(
    {
        "id",
        "component.id",
        "component.name",
        "service.factoryPid",
        "service.pid",
        "webconsole.configurationFactory.nameHint",
        "event.topics",
    }
)
CHANGE_BY = "_lastChangeBy"
CHANGE_AT = "_lastChangeAt"
_NOT_LISTED = frozenset({CHANGE_BY, CHANGE_AT, "org.ops4j.pax.logging.appender.name"})
DEFAULT_CHANGE_BY = "Apache Felix Webconsole"


class Component(msgspec.Struct, frozen=True):
    id: str
    alias: str
    factory_id: str
    properties: dict[str, Any]


class Factory(msgspec.Struct, frozen=True):
    id: str
    name: str
    description: str
    nature_ids: tuple[str, ...]


class EdgeConfig:
    """``components`` and ``factories`` by id, in ascending order of it."""

    def __init__(self, source: Raw | bytes) -> None:
        try:
            value = jsonrpc.loads(bytes(source))
        except ValueError:
            value = None
        config = value if isinstance(value, dict) else {}
        self.components: dict[str, Component] = {}
        for component_id, body in _sorted_objects(config.get("components")):
            value = body.get("properties")
            properties = value if isinstance(value, dict) else {}
            self.components[component_id] = Component(
                component_id,
                _text(body.get("alias"), component_id),
                _text(body.get("factoryId"), "NO_FACTORY_ID"),
                {name: properties[name] for name in sorted(properties) if name not in _DROPPED_PROPERTIES},
            )
        self.factories: dict[str, Factory] = {}
        for factory_id, body in _sorted_objects(config.get("factories")):
            natures = body.get("natureIds", body.get("natures"))
            self.factories[factory_id] = Factory(
                factory_id,
                _text(body.get("name"), "Undefined"),
                _text(body.get("description"), ""),
                tuple(n for n in natures if isinstance(n, str)) if isinstance(natures, list) else (),
            )

    def natures(self, component: Component) -> tuple[str, ...]:
        factory = self.factories.get(component.factory_id)
        return () if factory is None else factory.nature_ids

    def first_of_factory(self, factory_id: str) -> Component | None:
        return next((c for c in self.components.values() if c.factory_id == factory_id), None)


def _sorted_objects(value: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict):
        return []
    return sorted((name, body) for name, body in value.items() if isinstance(body, dict))


def _text(value: Any, default: str) -> str:
    return value if isinstance(value, str) else default


class Change(msgspec.Struct, frozen=True):
    """``kind``: Created, Updated, Deleted. ``properties``: name -> (new, old), ``_lastChange*`` apart."""

    kind: str
    component_id: str
    factory_id: str
    properties: dict[str, tuple[Any, Any]]
    change_by: tuple[str | None, str | None]
    change_at: tuple[Any, Any]


def diff(new: EdgeConfig, old: EdgeConfig) -> list[Change]:
    """What changed, by component id. Empty: not different."""
    changes = []
    for component_id in sorted(new.components.keys() | old.components.keys()):
        now, before = new.components.get(component_id), old.components.get(component_id)
        if before is None and now is not None:
            changes.append(_change("Created", now, {n: (v, None) for n, v in now.properties.items()}, now, None))
        elif now is None and before is not None:
            changes.append(
                _change("Deleted", before, {n: (None, v) for n, v in before.properties.items()}, None, before)
            )
        elif now is not None and before is not None:
            properties = {
                name: (value, before.properties.get(name))
                for name, value in now.properties.items()
                if (value is not None if name not in before.properties else not same(value, before.properties[name]))
            }
            if properties:
                changes.append(_change("Updated", now, properties, now, before))
    return changes


def _change(
    kind: str,
    component: Component,
    properties: dict[str, tuple[Any, Any]],
    now: Component | None,
    before: Component | None,
) -> Change:
    def by(one: Component | None) -> str | None:
        return None if one is None else str(one.properties.get(CHANGE_BY) or DEFAULT_CHANGE_BY)

    return Change(
        kind,
        component.id,
        component.factory_id,
        {name: values for name, values in sorted(properties.items()) if name not in (CHANGE_BY, CHANGE_AT)},
        (by(now), by(before)),
        properties.get(CHANGE_AT, (None, None)),
    )


def same(one: Any, other: Any) -> bool:
    """Equal as JSON; numbers by value; a value and its text are equal, because an edge sends a default as text and the
    same value typed once it was set (reality.md R4)."""
    if isinstance(one, bool) is isinstance(other, bool) and one == other:
        return True
    if isinstance(one, str) is not isinstance(other, str):
        text, value = (one, other) if isinstance(one, str) else (other, one)
        try:
            return value is not None and same(jsonrpc.loads(text), value)
        except ValueError:
            return False
    return False


def as_text(changes: list[Change]) -> str:
    """One line a component that has a property to show."""
    lines = []
    for change in changes:
        shown = []
        for name, (new, old) in change.properties.items():
            if name in _NOT_LISTED:
                continue
            if change.kind == "Created":
                shown.append(f"{name}={_value(new)}")
            elif change.kind == "Deleted":
                shown.append(f"{name} [was:{_value(old)}]")
            else:
                shown.append(f"{name}={_value(new)} [was:{_value(old)}]")
        if shown:
            factory = f" ({change.factory_id})" if change.factory_id else ""
            lines.append(f"{change.kind} {change.component_id}{factory}: {', '.join(shown)}\n")
    return "".join(lines)


def _value(value: Any) -> str:
    return short(jsonrpc.dumps(value).decode(), 20)


def as_html(changes: list[Change]) -> str:
    """The table that is stored or mailed; valid, and escaped: the values come from the edge."""
    rows = []
    for change in changes:
        span = len(change.properties) + 2
        title = f"{html.escape(change.component_id)}<br/>({html.escape(change.factory_id)})"
        rows.append(
            f'<tr><td rowspan="{span}">{change.kind}</td><td rowspan="{span}">{title}</td>'
            f"{_cells(CHANGE_BY, change.change_by[1], change.change_by[0])}</tr>"
        )
        rows.append(f"<tr>{_cells(CHANGE_AT, change.change_at[1], change.change_at[0])}</tr>")
        rows += [f"<tr>{_cells(name, old, new)}</tr>" for name, (new, old) in change.properties.items()]
    head = "".join(f"<th>{name}</th>" for name in ("Change", "Component", "Name", "Old Value", "New Value"))
    return f'<table border="1"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _cells(name: str, old: Any, new: Any) -> str:
    def cell(value: Any) -> str:
        return "" if value is None else html.escape(jsonrpc.dumps(value).decode())

    return f"<td>{html.escape(name)}</td><td>{cell(old)}</td><td>{cell(new)}</td>"
