"""The configuration: one TOML file, every section and key of it (core.md 9).

Section names are OpenEMS's component names in lower case, keys are its property names. The fields of
:class:`Configuration` are the sections, its docstrings and descriptions are docs/configuration.md: what is read and
what is documented cannot differ. Everything wrong is found at once and named with file, section, key, reason and, where
a name is misspelt, the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from openems.websocket.proxies import LOOPBACK, TrustedProxies

_HEADER = re.compile(r"^[ \t]*\[([^\[\]\n]+)\]", re.MULTILINE)

Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(min_length=1)]

#: Sections that OpenEMS knows and this version does not have yet: a better answer than "unknown".
LATER = (
    "alerting",
    "authentication.oauth",
    "backend2backend.rest",
    "backend2backend.websocket",
    "metadata.odoo",
    "metrics.prometheus",
    "oauthregistry.client",
    "simulator.mailer",
    "timedata.aggregatedinfluxdb",
    "timedata.influxdb",
    "timedata.timescaledb",
)
#: Keys of OpenEMS without a meaning here: there are no message threads.
WITHOUT_EFFECT = (
    "poolSize",
    "clientPoolSize",
    "serverPoolSize",
    "debugMode",
    "webconsole.configurationFactory.nameHint",
)


class Section(msgspec.Struct, rename="camel", kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A section of the file; the docstring of each is its documentation."""


class Backend(Section, frozen=True):
    """The process as a whole."""

    state_dir: Annotated[
        Text, Meta(description="Directory of everything the backend stores, unless a path says otherwise.")
    ] = "var"
    offset: Annotated[
        int, Meta(ge=0, le=50000, description="Added to every port: several backends on one machine.")
    ] = 0
    interface: Annotated[
        str, Meta(description="Address that listeners bind to which name none of their own; empty: all addresses.")
    ] = ""
    max_message_size: Annotated[
        int,
        Meta(ge=65536, le=1 << 30, description="Bytes of one message; a longer one closes its connection with 1009."),
    ] = 16 * 1024 * 1024
    trusted_proxies: Annotated[
        list[str],
        Meta(
            description="Addresses or networks of reverse proxies: only from these a forwarding header"
            " (`X-Forwarded-For`, `Forwarded`, `X-Real-IP`) tells who the peer is, for limits and logs."
        ),
    ] = msgspec.field(default_factory=lambda: list(LOOPBACK))


class Health(Section, frozen=True):
    """A page for monitoring: 200 when everything works, else 503, with the state of each component as JSON. Always
    there, unless switched off."""

    enabled: bool = True
    port: Annotated[Port, Meta(description="HTTP port.")] = 8079
    interface: Annotated[str, Meta(description="Address to bind to.")] = "127.0.0.1"


class EdgeWebsocket(Section, frozen=True):
    """Listener for OpenEMS Edges themselves (`Controller.Api.Backend`, header `apikey`). Takes the place of the program
    Backend.Edge.App for one machine; both ways may be open at once."""

    port: Annotated[Port, Meta(description="WebSocket port for edges.")] = 8081
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    processes: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Edge applications that the backend starts and watches behind this port, each a process on a "
            "core of its own; 0: the backend takes the edges itself.",
        ),
    ] = 0


class EdgeManager(Section, frozen=True):
    """Listener for Backend.Edge.App programs (component `Edge.Manager`)."""

    port: Annotated[Port, Meta(description="WebSocket port for edge applications.")] = 8083
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None


class UiWebsocket(Section, frozen=True):
    """Listener for the OpenEMS UI (component `Ui.Websocket`)."""

    port: Annotated[Port, Meta(description="WebSocket port for the UI.")] = 8082
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    request_limit: Annotated[int, Meta(ge=1, le=100000, description="Requests a second and connection.")] = 20


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


class TimedataSqlite(Section, frozen=True):
    """History in an SQLite database of the backend's own: needs no service."""

    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
    path: Annotated[Text | None, Meta(description="The database; absent: `<id>.sqlite` in the state directory.")] = None
    retention_days_raw: Annotated[int, Meta(ge=1, le=36500, description="Days that values are kept as they came.")] = 31
    retention_days_rollup: Annotated[
        int, Meta(ge=1, le=36500, description="Days that 5-minute values are kept; at least `retentionDaysRaw`.")
    ] = 3660


class TimedataDummy(Section, frozen=True):
    """Keeps nothing and answers nothing (component `Timedata.Dummy`)."""

    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"


class CoreJsonRpcRequestHandler(Section, frozen=True):
    """Queries of users (component `Core.JsonRpcRequestHandler`)."""

    query_thread_pool_size: Annotated[int, Meta(ge=1, le=1000, description="Queries of history at the same time.")] = 20
    query_thread_pool_max_queue_size: Annotated[
        int, Meta(ge=0, le=1000000, description="Queries that may wait; further ones are refused.")
    ] = 1000


class CoreTimedataManager(Section, frozen=True):
    """The order of history providers (component `Core.TimedataManager`)."""

    ids: Annotated[
        list[str],
        Meta(description="Ids of providers; the first is asked first. `timedata.ids`, the full name, is the same."),
    ] = []


class Configuration(msgspec.Struct, kw_only=True, frozen=True):
    """All sections. One that is absent is a component that does not run, except those with a default here."""

    backend: Backend = Backend()
    health: Health = Health()
    edge: EdgeWebsocket | None = None
    edge_manager: EdgeManager | None = None
    ui_websocket: UiWebsocket | None = None
    metadata_file: MetadataFile | None = None
    metadata_dummy: MetadataDummy | None = None
    timedata_sqlite: list[TimedataSqlite] = []
    timedata_dummy: list[TimedataDummy] = []
    core_jsonrpcrequesthandler: CoreJsonRpcRequestHandler = CoreJsonRpcRequestHandler()
    core_timedatamanager: CoreTimedataManager = CoreTimedataManager()

    def port(self, port: int) -> int:
        """The port to bind, the offset added."""
        return port + self.backend.offset

    def interface(self, own: str | None) -> str:
        return self.backend.interface if own is None else own


class BadConfiguration(Exception):
    """What is wrong with a file: ``problems`` are complete lines for a human."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(problems))


class Known(msgspec.Struct, frozen=True):
    """One section as the reader and the documentation see it."""

    name: str
    field: str
    section: type[Section]
    many: bool


def known_sections(configuration: type[msgspec.Struct]) -> dict[str, Known]:
    """Section name -> what the reader knows of it, of a struct whose fields are sections."""
    table: dict[str, Known] = {}
    for field in msgspec.structs.fields(configuration):
        many = get_origin(field.type) is list
        types = get_args(field.type) if many or get_origin(field.type) in (Union, UnionType) else (field.type,)
        section = next(t for t in types if t is not NoneType)
        name = field.name.replace("_", ".")
        table[name] = Known(name, field.name, section, many)
    return table


KNOWN = known_sections(Configuration)


def _nearest(name: str, known: list[str]) -> str:
    lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f'; the nearest known is "{lower[found[0]]}"' if found else ""


class _Reader:
    """Turns a decoded document into sections, collecting problems."""

    def __init__(
        self,
        source: str,
        strict: bool,
        environ: Mapping[str, str],
        directory: Path,
        headers: frozenset[str],
        known: Mapping[str, Known] = KNOWN,
    ) -> None:
        self.source = source
        self.known = known
        self.headers = headers
        self.strict = strict
        self.environ = environ
        self.directory = directory
        self.problems: list[str] = []
        self.found: dict[str, Any] = {}

    def problem(self, section: str, key: str, reason: str) -> None:
        where = f"[{section}] {key}" if key else f"[{section}]"
        self.problems.append(f"{self.source}: {where if section else key}: {reason}")

    def walk(self, table: dict[str, Any], path: str) -> None:
        """``table`` is the content of ``[path]``: its own keys, and sections below."""
        own: dict[str, Any] = {}
        for key, value in table.items():
            name = f"{path}.{key}" if path else key
            below = any(known == name or known.startswith(name + ".") for known in self.known)
            if below:
                self.section(name, value)
            else:
                own[key] = value
        if path in self.known:
            known = self.known[path]
            # [edge.manager] alone makes no [edge]; an empty [edge] does, which only the header tells.
            if own or path in self.headers or len(own) == len(table):
                self.read(known, own)
        else:
            for key, value in own.items():
                self.unknown(path, key, value)

    def section(self, name: str, value: Any) -> None:
        known = self.known.get(name)
        if isinstance(value, dict):
            self.walk(value, name)
        elif isinstance(value, list) and known is not None and value and all(isinstance(v, dict) for v in value):
            if not known.many:
                self.problem(name, "", f"may be there only once: [{name}], not [[{name}]]")
                return
            for entry in value:
                self.walk(entry, name)
        else:
            self.problem("", name, f"is a section: [{name}]")

    def unknown(self, path: str, key: str, value: Any) -> None:
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict | list):
            full = self._deepest(name, value)
            later = next((x for x in LATER if full == x or full.startswith(x + ".") or x.startswith(name + ".")), None)
            if later is not None and self.known is KNOWN:
                self.problem(full, "", "is not available in this version")
                return
            self.problem(full, "", f"unknown section{_nearest(full, list(self.known))}")
        else:
            self.problem(path, key, f"unknown key{_nearest(name, list(self.known)) or '; no section has it'}")

    @staticmethod
    def _deepest(name: str, value: Any) -> str:
        """``[a.b]`` with an unknown ``a`` is reported as a.b."""
        while isinstance(value, dict) and len(value) == 1:
            key, inner = next(iter(value.items()))
            if not isinstance(inner, dict | list):
                break
            name, value = f"{name}.{key}", inner
        return name

    def read(self, known: Known, table: dict[str, Any]) -> None:
        values: dict[str, Any] = {}
        if known.field == "core_timedatamanager" and isinstance(table.get("timedata"), dict):
            table = {**table, **table["timedata"]}
            del table["timedata"]
        fields = {field.encode_name: field for field in msgspec.structs.fields(known.section)}
        before = len(self.problems)
        for key, raw in table.items():
            if key not in fields:
                if key in WITHOUT_EFFECT:
                    self.problem(known.name, key, "has no effect here, there are no message threads; leave it out")
                else:
                    self.problem(known.name, key, f"unknown key{_nearest(key, list(fields))}")
                continue
            value = self.indirect(known.name, key, raw)
            try:
                values[fields[key].name] = msgspec.convert(value, fields[key].type, strict=self.strict)
            except msgspec.ValidationError as e:
                self.problem(known.name, key, str(e).replace("`", ""))
        for key, field in fields.items():
            if field.required and key not in table:
                self.problem(known.name, key, "is required")
        if len(self.problems) > before:
            return
        section = known.section(**values)
        if known.many:
            self.found.setdefault(known.field, []).append(section)
        elif known.field in self.found:
            self.problem(known.name, "", "is there twice")
        else:
            self.found[known.field] = section

    def indirect(self, section: str, key: str, value: Any) -> Any:
        """``{ env = "NAME" }`` and ``{ file = "path" }`` stand for a text that is kept elsewhere."""
        if not isinstance(value, dict) or len(value) != 1:
            return value
        way, name = next(iter(value.items()))
        if not isinstance(name, str) or way not in ("env", "file"):
            return value
        if way == "env":
            if name not in self.environ:
                self.problem(section, key, f"the environment has no {name}")
            return self.environ.get(name, "-")
        try:
            return (self.directory / name).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            self.problem(section, key, f"cannot read {name}: {getattr(e, 'strerror', None) or 'no text'}")
            return "-"


def _contradictions(configuration: Configuration) -> list[str]:
    """What is wrong between sections."""
    problems: list[str] = []
    for network in configuration.backend.trusted_proxies:
        try:
            TrustedProxies([network])
        except ValueError as e:
            problems.append(f"[backend] trustedProxies: {e}")
    if configuration.metadata_file is None and configuration.metadata_dummy is None:
        problems.append("nothing says which edges exist: one of [metadata.file], [metadata.dummy] is needed")
    if configuration.metadata_file is not None and configuration.metadata_dummy is not None:
        problems.append("[metadata.file] and [metadata.dummy] exclude each other")
    ports: dict[int, str] = {}
    for name, listener in listeners(configuration).items():
        if configuration.port(listener) > 65535:
            problems.append(f"[{name}] port: {listener} plus the offset {configuration.backend.offset} is above 65535")
        if listener in ports:
            problems.append(f"[{name}] port: {listener} is the port of [{ports[listener]}] already")
        ports[listener] = name
    ids: set[str] = set()
    for id_ in [p.id for p in configuration.timedata_sqlite] + [p.id for p in configuration.timedata_dummy]:
        if id_ in ids:
            problems.append(f'[[timedata]] id: two providers have the id "{id_}"')
        ids.add(id_)
    for provider in configuration.timedata_sqlite:
        if provider.retention_days_raw > provider.retention_days_rollup:
            problems.append(
                f"[timedata.sqlite] retentionDaysRaw: {provider.retention_days_raw} is more than retentionDaysRollup"
            )
    for id_ in configuration.core_timedatamanager.ids:
        if id_ not in ids:
            problems.append(f'[core.timedatamanager] ids: there is no provider "{id_}"{_nearest(id_, sorted(ids))}')
    return problems


def listeners(configuration: Configuration) -> dict[str, int]:
    """Section name -> port without offset, of everything that listens."""
    ports: dict[str, int] = {}
    if configuration.health.enabled:
        ports["health"] = configuration.health.port
    if configuration.edge is not None:
        ports["edge"] = configuration.edge.port
    if configuration.edge_manager is not None:
        ports["edge.manager"] = configuration.edge_manager.port
    if configuration.ui_websocket is not None:
        ports["ui.websocket"] = configuration.ui_websocket.port
    return ports


def from_document(
    document: dict[str, Any],
    source: str,
    *,
    strict: bool = True,
    environ: Mapping[str, str] = os.environ,
    directory: Path = Path("."),
    headers: frozenset[str] = frozenset(),
) -> Configuration:
    """Check and convert a decoded document. ``strict`` False also takes numbers written as text (Felix files);
    ``headers`` are sections that are there although nothing is in them.

    Raises :class:`BadConfiguration` with every problem found.
    """
    reader = _Reader(source, strict, environ, directory, headers)
    reader.walk(document, "")
    if reader.problems:
        raise BadConfiguration(source, reader.problems)
    configuration = Configuration(**reader.found)
    problems = _contradictions(configuration)
    if problems:
        raise BadConfiguration(source, [f"{source}: {problem}" for problem in problems])
    return configuration


def sections(text: str, source: str, known: Mapping[str, Known], **options: Any) -> dict[str, Any]:
    """Field -> section, for a program with a configuration of its own. Raises :class:`BadConfiguration`."""
    document, headers = _document(text, source)
    reader = _Reader(
        source, True, options.get("environ", os.environ), options.get("directory", Path(".")), headers, known
    )
    reader.walk(document, "")
    if reader.problems:
        raise BadConfiguration(source, reader.problems)
    return reader.found


def parse(text: str, source: str, **options: Any) -> Configuration:
    document, headers = _document(text, source)
    return from_document(document, source, headers=headers, **options)


def _document(text: str, source: str) -> tuple[dict[str, Any], frozenset[str]]:
    """And the headers that are in it, which a section without keys leaves no other trace of."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise BadConfiguration(source, [f"{source}: no valid TOML: {e}"]) from None
    return document, frozenset(name.strip() for name in _HEADER.findall(text))


def load(path: str | Path, *, environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read a TOML file. Raises :class:`BadConfiguration`; a file that cannot be read, too."""
    text = read_text(Path(path))
    return parse(text, str(path), environ=environ, directory=Path(path).parent)


def read_text(path: Path) -> str:
    """UTF-8, with or without byte order mark. Raises :class:`BadConfiguration` that says what permission is wanted."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except PermissionError:
        raise BadConfiguration(str(path), [_unreadable(path)]) from None
    except OSError as e:
        raise BadConfiguration(str(path), [f"{path}: cannot be read: {e.strerror}"]) from None
    except UnicodeDecodeError as e:
        raise BadConfiguration(str(path), [f"{path}: is no UTF-8 text (byte {e.start})"]) from None


def _unreadable(path: Path) -> str:
    wanted = f"user {_user_name(os.geteuid())} needs read permission"
    try:
        stat = path.stat()
    except OSError:
        return f"{path}: permission denied, a directory above it is closed; {wanted}"
    owner = _user_name(stat.st_uid)
    return f"{path}: permission denied, it belongs to {owner} with mode {stat.st_mode & 0o7777:04o}; {wanted}"


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def to_toml(document: Mapping[str, Any]) -> str:
    """``{section: {key: value}}`` or ``{section: [{..}, ..]}`` as TOML text."""
    parts: list[str] = []
    for section, tables in document.items():
        many = isinstance(tables, list)
        for table in tables if many else [tables]:
            lines = [f"[[{section}]]" if many else f"[{section}]"]
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items()]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON's texts, numbers and booleans are TOML's, except for DEL.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


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
                default = "absent" if field.default is None else f"`{_toml_value(field.default)}`"
            else:
                default = f"`{_toml_value(field.default_factory())}`" if callable(field.default_factory) else ""
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
