"""What a section of the file is."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from openems.common.redact import HIDDEN, is_secret

Port = Annotated[int, Meta(ge=1, le=65535)]


Text = Annotated[str, Meta(min_length=1)]


class Section(msgspec.Struct, rename="camel", kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A section of the file; the docstring of each is its documentation."""

    def __repr__(self) -> str:
        """Without secrets: for logs, and tracebacks that show variables."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, HIDDEN if is_secret(name) else getattr(self, name)) for name in self.__struct_fields__]
