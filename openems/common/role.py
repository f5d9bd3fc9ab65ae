"""Roles, levels and languages (wire.md 4.5 to 4.7)."""

from __future__ import annotations

import enum


class Role(enum.IntEnum):
    """A lower level means more rights."""

    ADMIN = 0
    INSTALLER = 1
    OWNER = 2
    GUEST = 3

    @property
    def json(self) -> str:
        return self.name.lower()

    def is_at_least(self, required: Role) -> bool:
        return self <= required

    @classmethod
    def parse(cls, text: str | None) -> Role:
        """Any letter case; unknown text is GUEST."""
        return cls.__members__.get((text or "").upper(), cls.GUEST)


class Level(enum.IntEnum):
    """Severity of an edge or component; higher is worse. JSON form is the name."""

    OK = 0
    INFO = 1
    WARNING = 2
    FAULT = 3

    @property
    def display(self) -> str:
        return self.name.capitalize()


class Language(enum.StrEnum):
    EN = "EN"
    DE = "DE"
    CZ = "CZ"
    NL = "NL"
    ES = "ES"
    FR = "FR"

    @classmethod
    def parse(cls, text: str | None) -> Language:
        """Trimmed, any letter case; ``cs`` is what the UI calls ``CZ`` (ui.md 19, 42); unknown or absent is DE."""
        key = (text or "").strip().upper()
        return cls.__members__.get("CZ" if key == "CS" else key, cls.DE)
