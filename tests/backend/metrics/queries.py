"""The queries of the rules and of the dashboard in deploy/, and what they select."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "openems-backend.json"
#: What Grafana would put in.
_VARIABLES = {"$__rate_interval": "10s", "$instance": ".*"}
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\bgroup_(?:left|right)\b")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?(?!\s*\()")
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "on", "inf", "nan"}


def rules() -> Iterator[tuple[str, str]]:
    """(name, query)."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def dashboard() -> Iterator[tuple[str, str]]:
    """(panel, query)."""
    for panel in panels():
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in _VARIABLES.items():
                query = query.replace(name, value)
            yield panel["title"], query


def selectors(query: str) -> set[str]:
    """Each selection of series in it, ``name{label="value"}``.

    >>> sorted(selectors('sum by (x) (rate(a_total{b=~"c|d"}[5m])) / on (x) c > 0.8 * c offset 10m'))
    ['a_total{b=~"c|d"}', 'c']
    """
    query = _GROUPING.sub(" ", query)
    query = re.sub(r"\[[^\]]*\]", " ", query)
    query = re.sub(r"\boffset\s+\w+", " ", query)
    return {
        name + (matchers or "")
        for name, matchers in _SELECTOR.findall(query)
        if name not in _WORDS and not _inside_text(query, name)
    }


def _inside_text(query: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", _TEXT.sub('""', query)) is None
