"""Checks a metadata file for the command line (metadata.md 20.4, 20.6)."""

from __future__ import annotations

import os

from openems.backend.metadata.file.builder import Problem, build
from openems.backend.metadata.file.model import Model
from openems.backend.metadata.file.reader import MAX_SIZE, Unreadable, read


class BadFile(Exception):
    """The file cannot be used; the text says where and why, without a secret of the file in it."""

    def __init__(self, path: str, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{path}: {problems[0]}{more}")
        self.problems = problems


def read_model(path: str, *, allow_empty: bool = False) -> tuple[Model, list[Problem]]:
    """The model and warnings. Raises :class:`BadFile`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        raise BadFile(path, ["the file does not exist"]) from None
    except OSError as e:
        raise BadFile(path, [f"cannot be read: {e.strerror or e}"]) from None
    try:
        document = read(data)
    except Unreadable as e:
        raise BadFile(path, [str(e)]) from None
    model, problems = build(document, allow_empty=allow_empty)
    if model is None:
        raise BadFile(path, [str(problem) for problem in problems if problem.is_error])
    if model.version >= 2 and mode & 0o044:
        text = f"may be read by others (mode {mode & 0o777:o}) and holds apikeys; better 600"
        problems = [Problem((), 1, text, is_error=False), *problems]
    return model, problems


def check_metadata(path: str) -> list[str]:
    """Everything that is wrong or doubtful in the file at ``path``, one line each; empty if all is well."""
    try:
        _, warnings = read_model(path)
    except BadFile as e:
        return [f"error: {path}: {problem}" for problem in e.problems]
    return [f"warning: {path}: {problem}" for problem in warnings]
