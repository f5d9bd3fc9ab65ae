"""The configuration: one TOML file, every section and key of it (core.md 9).

Section names are OpenEMS's component names in lower case, keys are its property names. The fields of
:class:`Configuration` are the sections, its docstrings and descriptions are docs/configuration.md: what is read and
what is documented cannot differ. Everything wrong is found at once and named with file, section, key, reason and, where
a name is misspelt, the nearest known one.
"""

from __future__ import annotations

from openems.application.config.configuration import Configuration, listeners
from openems.application.config.documentation import (
    EXAMPLE,
    documentation,
    documented_sections,
)
from openems.application.config.files import (
    KNOWN,
    BadConfiguration,
    from_document,
    load,
    parse,
    read_text,
    sections,
    to_toml,
)
from openems.application.config.reader import WITHOUT_EFFECT, known_sections

__all__ = [
    "EXAMPLE", "KNOWN", "WITHOUT_EFFECT", "BadConfiguration", "Configuration", "documentation", "documented_sections",
    "from_document", "known_sections", "listeners", "load", "parse", "read_text", "sections", "to_toml",
]  # fmt: skip
