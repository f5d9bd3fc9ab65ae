"""Subject, text and HTML of a mail, in six languages (metrics.md 21). No clock; no I/O once :class:`Templates` is made.

A language is a catalogue ``<language>.toml`` of short texts; ``layout.txt`` and ``layout.html`` say where they stand.
A directory of one's own may hold files of the same names: a layout takes the place of the one here, a catalogue may
give any part of the texts. Values (names of edges and users) are only ever inserted, never taken for a template, and
are escaped in HTML.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jinja2
import msgspec
from jinja2.sandbox import SandboxedEnvironment

from openems.common.role import Language

OWN = Path(__file__).parent / "templates"
OFFLINE, SUM_STATE, DIGEST, TEST, MASS_OUTAGE = NAMES = (
    "alerting_offline",
    "alerting_sum_state",
    "alerting_digest",
    "test",
    "mass_outage",
)
#: Level -> text colour, background; at least 7 to 1.
BADGES = {"Warning": ("#1c2733", "#ffcf33"), "Fault": ("#ffffff", "#a3121f")}
MAX_VALUE = 200
#: Characters of the overridden catalogues together.
MAX_CATALOGUE = 256 << 10
_BLANK_LINES = re.compile(r"\n{3,}")


class BadTemplates(Exception):
    """A catalogue or layout cannot be used; the text names file and place."""


class Oem(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends the mails. ``base_url``: of the UI, empty if there is none."""

    name: str = "OpenEMS"
    signature: str = ""
    imprint: str = ""
    base_url: str = ""
    timezone: str = "UTC"
    language: Language = Language.EN


class EdgeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a mail about many edges. ``state``: Offline, Warning or Fault."""

    edge_id: str
    edge_name: str
    state: str
    since: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a mail is about. Times in epoch milliseconds, ``delay`` in minutes."""

    now: int
    login: str = ""
    firstname: str = ""
    lastname: str = ""
    language: Language | None = None
    timezone: str | None = None
    edge_id: str = ""
    edge_name: str = ""
    producttype: str = ""
    version: str = ""
    lastmessage: int | None = None
    since: int | None = None
    delay: int = 0
    state: str = ""
    gone: int = 0
    known: int = 0
    until: int = 0
    edges: list[EdgeFacts] = []


class Rendered(msgspec.Struct, frozen=True):
    subject: str
    text: str
    html: str
    settings_link: str


def clean(value: str) -> str:
    """One line without control and direction characters: what edges and users are called, as it may stand in a mail."""
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in value)
    text = " ".join(text.split())
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"


class Templates:
    """Raises :class:`BadTemplates`: everything is read, compiled and tried here."""

    def __init__(self, oem: Oem, directory: str | None = None) -> None:
        self.oem = oem
        folders = [OWN] if directory is None else [Path(directory), OWN]
        if directory is not None and not Path(directory).is_dir():
            raise BadTemplates(f"{directory}: no such directory")
        loader = jinja2.FileSystemLoader([str(folder) for folder in folders])
        options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
        self._plain = SandboxedEnvironment(loader=loader, autoescape=False, **options)
        html = SandboxedEnvironment(loader=loader, autoescape=True, **options)
        try:
            self._text = self._plain.get_template("layout.txt")
            self._html = html.get_template("layout.html")
        except (jinja2.TemplateError, ValueError, OSError) as e:
            raise BadTemplates(f"{e.__class__.__name__}: {e}") from None
        self._catalogues = {language: self._catalogue(language, folders) for language in Language}
        self._compiled: dict[str, jinja2.Template] = {}
        self._try()

    def _catalogue(self, language: Language, folders: list[Path]) -> dict[str, Any]:
        catalogue: dict[str, Any] = {}
        for folder in reversed(folders):
            path = folder / f"{language.value.lower()}.toml"
            try:
                text = path.read_text(encoding="utf-8")
                if len(text) > MAX_CATALOGUE:
                    raise ValueError("is too large")
                given = tomllib.loads(text)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as e:
                raise BadTemplates(f"{path}: {e}") from None
            for name, value in given.items():
                known = catalogue.get(name)
                if folder is not OWN and known is None:
                    raise BadTemplates(f"{path}: {name}: is no known part of a catalogue")
                if folder is not OWN:
                    # Mails that have no such lists may get some; a layout of one's own may have words of its own.
                    parts = {"meaning": [], "todo": [], **(known or {})} if name in NAMES else known
                    _check(f"{path}: {name}", value, parts, may_have_more=name == "common")
                catalogue[name] = {**known, **value} if isinstance(known, dict) else value
        return catalogue

    def _try(self) -> None:
        """With all there is to say, and with nothing: a name that is wrong may stand where only one of them comes."""
        for language, name, sample in product(Language, NAMES, (sample_facts(), Facts(now=sample_facts().now))):
            try:
                self.render(name, msgspec.structs.replace(sample, language=language))
            except Exception as e:
                # A template can do whatever an expression can.
                reason = f"{type(e).__name__}: {e}"
                raise BadTemplates(f"template {name} in language {language.value}: {reason}") from None

    def zone(self, facts: Facts) -> ZoneInfo:
        for name in (facts.timezone, self.oem.timezone):
            if name:
                try:
                    return ZoneInfo(name)
                except (ZoneInfoNotFoundError, ValueError, OSError):
                    continue
        return ZoneInfo("UTC")

    def render(self, name: str, facts: Facts) -> Rendered:
        """Raises KeyError for an unknown template."""
        if name not in NAMES:
            raise KeyError(f"there is no template {name!r}")
        catalogue = self._catalogues[facts.language or self.oem.language]
        part, common = catalogue[name], catalogue["common"]
        zone = self.zone(facts)

        def at(milliseconds: int, zone: ZoneInfo = zone) -> str:
            moment = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone(zone)
            return f"{moment.strftime(catalogue['datetime'])} ({zone.key})"

        since = facts.since if facts.since is not None else facts.now
        values = {
            "edge": label(facts.edge_id, facts.edge_name),
            "edge_id": clean(facts.edge_id),
            "edge_name": clean(facts.edge_name),
            "count": len(facts.edges),
            "producttype": clean(facts.producttype),
            "version": clean(facts.version),
            "login": clean(facts.login),
            "name": clean(f"{facts.firstname} {facts.lastname}"),
            "firstname": clean(facts.firstname),
            "lastname": clean(facts.lastname),
            "oem": self.oem.name,
            "state": catalogue["states"].get(facts.state, clean(facts.state)),
            "since": at(since),
            "duration": in_words((facts.now - since) // 60_000, catalogue["duration"]),
            "delay": in_words(facts.delay, catalogue["delay"]),
            "now": at(facts.now),
            "gone": facts.gone,
            "known": facts.known,
            "until": at(facts.until),
        }

        def say(text: str) -> str:
            return self._template(text).render(values)

        link, settings_link = self._links(facts.edge_id)
        about_edge = name in (OFFLINE, SUM_STATE)
        said: dict[str, Any] = {
            **values,
            "locale": catalogue["locale"],
            "words": {key: say(text) for key, text in common.items()},
            "subject": say(part["subject"]),
            "headline": say(part["headline"]),
            "salutation": say(common["salutation_named"] if values["name"] else common["salutation"]),
            "fact": say(part["fact"]),
            "delay": say(common["delay"]) if about_edge and facts.delay > 0 else "",
            "meaning": [say(line) for line in part.get("meaning", ())],
            "todo": [say(line) for line in part.get("todo", ())],
            "rows": self._rows(name, facts, catalogue, values, at),
            "badge": None,
            "why": say(common["why"]) if about_edge else "",
            "link": link if about_edge else "",
            "settings_link": settings_link if about_edge else "",
            "signature": self.oem.signature,
            "imprint": self.oem.imprint,
        }
        if name == SUM_STATE and facts.state in BADGES:
            color, background = BADGES[facts.state]
            said["badge"] = {"text": values["state"], "color": color, "background": background}
        text = _BLANK_LINES.sub("\n\n", self._text.render(said)).strip("\n") + "\n"
        return Rendered(clean(said["subject"]), text, self._html.render(said) + "\n", said["settings_link"])

    def _template(self, text: str) -> jinja2.Template:
        """Texts of the catalogues only, so this is bounded."""
        made = self._compiled.get(text)
        if made is None:
            made = self._compiled[text] = self._plain.from_string(text)
        return made

    def _links(self, edge_id: str) -> tuple[str, str]:
        if not self.oem.base_url:
            return "", ""
        edge = f"{self.oem.base_url.rstrip('/')}/device/{quote(edge_id, safe='', errors='replace')}"
        return f"{edge}/live", f"{edge}/settings/alerting"

    def _rows(
        self, name: str, facts: Facts, catalogue: Mapping[str, Any], values: Mapping[str, Any], at: Any
    ) -> list[tuple[str, str]]:
        common = catalogue["common"]
        if name == DIGEST:
            return _lines(facts, catalogue, at)
        if name not in (OFFLINE, SUM_STATE):
            return []

        def both(milliseconds: int) -> str:
            local, utc = at(milliseconds), at(milliseconds, ZoneInfo("UTC"))
            return local if local == utc else f"{local} = {utc}"

        rows = [
            (common["edge"], values["edge_id"]),
            (common["name"], values["edge_name"]),
            (common["producttype"], values["producttype"]),
            (common["version"], values["version"]),
            (common["lastmessage"], both(facts.lastmessage) if facts.lastmessage is not None else ""),
        ]
        if name == SUM_STATE:
            rows.append((common["state"], values["state"]))
            if facts.since is not None:
                rows.append((common["since"], both(facts.since)))
        return [(label, value) for label, value in rows if value]


def _check(where: str, value: Any, known: Any, *, may_have_more: bool = False) -> None:
    """A text, a list, or a table of those, like the one that is known. Raises :class:`BadTemplates`."""
    if type(value) is not type(known):
        raise BadTemplates(f"{where}: is no {type(known).__name__}")
    if isinstance(known, dict):
        for name, part in value.items():
            if name in known:
                _check(f"{where}.{name}", part, known[name])
            elif not may_have_more:
                raise BadTemplates(f"{where}.{name}: is no known part of a catalogue")


def label(edge_id: str, edge_name: str) -> str:
    edge_id, edge_name = clean(edge_id), clean(edge_name)
    return f"{edge_id} ({edge_name})" if edge_name and edge_name != edge_id else edge_id


def _lines(facts: Facts, catalogue: Mapping[str, Any], at: Any) -> list[tuple[str, str]]:
    return [
        (
            label(edge.edge_id, edge.edge_name),
            f"{catalogue['states'].get(edge.state, clean(edge.state))} · {at(edge.since)}",
        )
        for edge in facts.edges
    ]


def in_words(minutes: int, forms: Mapping[str, list[str]]) -> str:
    """``1500`` -> ``1 day 1 hour``: the two largest units. Each has two forms, or three where 2 to 4 are apart."""
    minutes = max(0, minutes)
    parts = []
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        number, minutes = divmod(minutes, size)
        if number:
            parts.append(f"{number} {_form(number, forms[unit])}")
    return " ".join(parts[:2]) or f"0 {_form(0, forms['minute'])}"


def _form(number: int, forms: list[str]) -> str:
    if number == 1:
        return forms[0]
    return forms[1] if len(forms) == 2 or 2 <= number <= 4 else forms[2]


def sample_facts() -> Facts:
    """For tries: a made-up edge and user."""
    now = 1_776_680_730_000
    return Facts(
        now=now,
        login="mia@example.org",
        firstname="Mia",
        lastname="Berg",
        timezone="Europe/Berlin",
        edge_id="edge0",
        edge_name="Tal, Graz",
        producttype="Home 10",
        version="2026.4.0",
        lastmessage=now - 930_000,
        since=now - 930_000,
        delay=15,
        state="Fault",
        gone=120,
        known=150,
        until=now + 3_600_000,
        edges=[
            EdgeFacts(edge_id=f"edge{n}", edge_name=f"Haus {n}", state=state, since=now - n * 60_000)
            for n, state in enumerate(("Offline", "Fault", "Warning", "Offline"))
        ],
    )
