"""docs/configuration.md, made of the types that read the file: both cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from openems.application.config.files import KNOWN, toml_value
from openems.application.config.reader import Known


def documentation() -> str:
    """docs/configuration.md."""
    parts = [
        "# Configuration\n\n"
        "Made by `openems-backend config-docs` from the types that read the file; do not edit.\n\n"
        "One TOML file. Section names are OpenEMS's component names in lower case, keys are its property names. "
        "A section that is absent is a component that does not run, unless it says otherwise. Anything unknown or of "
        "a wrong type is refused at start, with file, section, key and reason; `openems-backend check-config FILE` "
        "does the same without starting.\n\n"
        'A text may be kept elsewhere: `key = { env = "NAME" }` takes it from the environment, '
        '`key = { file = "path" }` from a file '
        "(relative to the configuration file; the line end at its end is not part of it).\n\n"
        "A Felix configuration folder is read as it is (`--felix DIR`), or converted by "
        "`openems-backend convert-felix DIR`.\n"
    ]
    parts += documented_sections(KNOWN)
    parts.append("\n## Example\n\n```toml\n" + EXAMPLE + "```\n")
    return "".join(parts)


def documented_sections(known_sections: Mapping[str, Known]) -> list[str]:
    """Markdown of each section with its keys."""
    parts: list[str] = []
    for known in known_sections.values():
        brackets = f"[[{known.name}]]" if known.many else f"[{known.name}]"
        parts.append(f"\n## `{brackets}`\n\n{' '.join((known.section.__doc__ or '').split())}")
        if known.many:
            parts.append(" May be there several times.")
        parts.append("\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n")
        for field in msgspec.structs.fields(known.section):
            type_, meaning = _documented(field.type)
            if field.required:
                default = "required"
            elif field.default is not msgspec.NODEFAULT:
                default = "absent" if field.default is None else f"`{toml_value(field.default)}`"
            else:
                default = f"`{toml_value(field.default_factory())}`" if callable(field.default_factory) else ""
            parts.append(f"| `{field.encode_name}` | {type_} | {default} | {meaning} |\n")
    return parts


def _documented(type_: Any) -> tuple[str, str]:
    meaning, limits = "", []
    while get_origin(type_) is Annotated:
        type_, *metas = get_args(type_)
        for meta in metas:
            meaning = meaning or meta.description or ""
            limits += [f"{meta.ge} to {meta.le}"] if meta.ge is not None else []
    if get_origin(type_) in (Union, UnionType):
        inner = [_documented(t)[0] for t in get_args(type_) if t is not NoneType]
        text = ", ".join(inner)
    elif get_origin(type_) is Literal:
        text = ", ".join(f"`{value}`" for value in get_args(type_))
    elif get_origin(type_) is list:
        text = "list of texts"
    else:
        text = {str: "text", int: "integer", float: "number", bool: "true, false"}[type_]
    return f"{text}, {limits[0]}" if limits else text, meaning


EXAMPLE = """\
[backend]
stateDir = "/var/lib/openems-backend"

[edge]

[edge.manager]

[ui.websocket]
interface = "127.0.0.1"

[metadata.file]
path = "/etc/openems-backend/metadata.json"

[[timedata.sqlite]]
retentionDaysRaw = 60
"""
