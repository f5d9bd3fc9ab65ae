"""Packages of the extra ``postgres``: needed only by those who configure what is kept there."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from openems.application.config import BadConfiguration, Configuration

POSTGRES = ("psycopg2", "txpostgres")


def missing(configuration: Configuration, find: Callable[[str], object | None] = find_spec) -> list[str]:
    """What a start with this configuration would be refused for in this installation; one line for each section."""
    absent = [module for module in POSTGRES if find(module) is None]
    needing = ["[[timedata.timescaledb]]"] if configuration.timedata_timescaledb else []
    needing += ["[metadata.odoo]"] if configuration.metadata_odoo else []
    if not absent:
        return []
    detail = f"{', '.join(absent)} missing"
    return [_text(section, detail) for section in needing]


def refusal(section: str, error: ImportError) -> BadConfiguration:
    return BadConfiguration("configuration", [_text(section, str(error))])


def _text(section: str, detail: str) -> str:
    return f"{section} needs the PostgreSQL driver: pip install 'openems-backend[postgres]' ({detail})"
