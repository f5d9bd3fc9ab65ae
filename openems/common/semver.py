"""SemanticVersion: ``major.minor.patch[-additional]`` (wire.md 4.9)."""

from __future__ import annotations

import re
from typing import NamedTuple

_PART = re.compile(r"-?[0-9]+\Z")


class SemanticVersion(NamedTuple):
    major: int = 0
    minor: int = 0
    patch: int = 0
    additional: str = ""

    @classmethod
    def parse(cls, text: str) -> SemanticVersion:
        """Missing parts are 0. Raises ValueError."""
        parts = text.split(".", 2)
        additional = ""
        if len(parts) == 3:
            parts[2], _, additional = parts[2].partition("-")
        numbers = [0, 0, 0]
        for index, part in enumerate(parts):
            if part == "" and len(parts) == 1:
                continue
            if not _PART.match(part) or not -32768 <= int(part) <= 32767:
                raise ValueError(f"not a version: {text[:40]!r}")
            numbers[index] = int(part)
        return cls(numbers[0], numbers[1], numbers[2], additional)

    @classmethod
    def parse_or_zero(cls, text: str | None) -> SemanticVersion:
        try:
            return cls.parse(text or "")
        except ValueError:
            return ZERO

    def is_at_least(self, other: SemanticVersion) -> bool:
        """A release is at least its own snapshot; otherwise additional texts compare as strings."""
        if self[:3] != other[:3]:
            return self[:3] > other[:3]
        if not self.additional and other.additional:
            return True
        return self.additional >= other.additional

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        return f"{text}-{self.additional}" if self.additional else text


ZERO = SemanticVersion()
