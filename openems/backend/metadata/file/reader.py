"""Reads the text of a metadata file: strict JSON, or the lenient dialect that Java's reader takes (metadata.md 13.3).

The dialect: unquoted names and words, single quotes, ``;`` for ``,``, ``=`` or ``=>`` for ``:``, line breaks inside
strings, ``/* */`` comments. Beyond Java, with a warning: ``//`` and ``#`` comments, trailing commas. An unquoted
number or ``true``, ``false``, ``null`` in any letter case keeps its type; any other word is a string, as is ``007``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

#: Larger files are refused unread (metadata.md 20.6).
MAX_SIZE = 16 << 20
#: Objects and arrays nested deeper are refused.
MAX_DEPTH = 16

#: Names from the root to a member; array indices as text.
Path = tuple[str, ...]

_BLANK = re.compile(r"[ \t\r\n\f]+")
_WORD = re.compile(r"[^ \t\r\n\f{}\[\]:,;=/\\#\"'][^ \t\r\n\f{}\[\]:,;=/\\#]*")
_SPECIAL = {'"': re.compile(r'["\\]'), "'": re.compile(r"['\\]")}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {
    "t": "\t",
    "b": "\b",
    "n": "\n",
    "r": "\r",
    "f": "\f",
    "'": "'",
    '"': '"',
    "\\": "\\",
    "/": "/",
    "\n": "\n",
}
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {"true": True, "false": False, "null": None}


class Unreadable(ValueError):
    """The text is not of the dialect. ``line`` counts from 1; ``path`` names the member that could not be read."""

    def __init__(self, line: int, path: Path, reason: str) -> None:
        super().__init__(f"line {line}{_in(path)}: {reason}")
        self.line = line
        self.path = path
        self.reason = reason


class Document:
    """A read text: ``value``, and ``warnings`` as (line, text) about what Java's reader would refuse."""

    def __init__(self, text: str) -> None:
        """Raises :class:`Unreadable`."""
        if len(text) > MAX_SIZE:
            raise Unreadable(1, (), f"the file is larger than {MAX_SIZE >> 20} MiB")
        self._text = text.removeprefix("\ufeff")
        self._lines: dict[Path, int] | None = None
        self.warnings: list[tuple[int, str]] = []
        try:
            self.value: Any = json.loads(self._text, parse_constant=lambda name: name)
            strict = True
        except (ValueError, RecursionError):
            strict = False
        if not strict:
            parser = _Parser(self._text)
            self.value = parser.document()
            self._lines = parser.lines
            self.warnings = parser.warnings
        elif _too_deep(self.value):
            # The own reader tells where.
            _Parser(self._text).document()
        if _SURROGATE_ESCAPE.search(self._text):
            self.value = _without_surrogates(self.value)

    def line(self, path: Path) -> int:
        """The line of the member at ``path``, or of its nearest parent."""
        if self._lines is None:
            parser = _Parser(self._text)
            try:
                parser.document()
            except Unreadable:
                pass
            self._lines = parser.lines
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def read(data: bytes) -> Document:
    """The document of a file's bytes: UTF-8, malformed bytes replaced, with or without a byte order mark."""
    if len(data) > MAX_SIZE:
        raise Unreadable(1, (), f"the file is larger than {MAX_SIZE >> 20} MiB")
    return Document(data.decode("utf-8", "replace"))


def dotted(path: Path) -> str:
    return ".".join(path)


def _in(path: Path) -> str:
    return f", {dotted(path)}" if path else ""


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _without_surrogates(value: Any) -> Any:
    """Half characters of ``\\uD800`` escapes could never be written again."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(element) for element in value]
    return value


class _Parser:
    """Recursive descent; the depth is bounded, so is the recursion."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted_at = 0
        self._line = 1
        self._path: list[str] = []
        self.lines: dict[Path, int] = {}
        self.warnings: list[tuple[int, str]] = []

    def document(self) -> Any:
        self._skip()
        value = self._value()
        self._skip()
        if self._at < len(self._text):
            raise self._error("text after the end of the document")
        return value

    # Positions

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_at, self._at)
        self._counted_at = self._at
        return self._line

    def _error(self, reason: str) -> Unreadable:
        line = 1 + self._text.count("\n", 0, self._at)
        return Unreadable(line, tuple(self._path), reason)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _found(self) -> str:
        """What stands here, for a message; never more than the first character, it may begin a secret."""
        character = self._peek()
        return f"found {character!r}" if character else "found the end of the file"

    def _skip(self) -> None:
        text = self._text
        while True:
            blank = _BLANK.match(text, self._at)
            if blank:
                self._at = blank.end()
            if text.startswith("/*", self._at):
                end = text.find("*/", self._at + 2)
                if end < 0:
                    raise self._error("a comment is not closed")
                self._at = end + 2
            elif text.startswith(("//", "#"), self._at):
                # After the closing brace only whoever reads the file with Java notices.
                self._warn("Java cannot read comments that begin with // or #")
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif not blank:
                return

    def _warn(self, text: str) -> None:
        if len(self.warnings) < 100:
            self.warnings.append((self._line_here(), text))

    # Values

    def _value(self) -> Any:
        self.lines[tuple(self._path)] = self._line_here()
        character = self._peek()
        if character in ("{", "["):
            if len(self._path) >= MAX_DEPTH:
                raise self._error(f"nested deeper than {MAX_DEPTH}")
            return self._object() if character == "{" else self._array()
        if character in ('"', "'"):
            return self._quoted()
        word = self._word()
        lower = word.lower()
        if lower in _WORDS:
            return _WORDS[lower]
        if _NUMBER.match(word):
            return json.loads(word) if len(word) < 4000 else word
        return word

    def _object(self) -> dict[str, Any]:
        self._at += 1
        value: dict[str, Any] = {}
        self._skip()
        while self._peek() != "}":
            name = self._quoted() if self._peek() in ('"', "'") else self._word()
            self._path.append(name)
            self._skip()
            if self._peek() not in (":", "="):
                raise self._error(f"expected ':' after the name, {self._found()}")
            self._at += 2 if self._text.startswith("=>", self._at) else 1
            self._skip()
            value[name] = self._value()
            self._path.pop()
            self._skip()
            if self._peek() in (",", ";"):
                self._at += 1
                self._skip()
                if self._peek() == "}":
                    self._warn("Java cannot read a comma before }")
            elif self._peek() != "}":
                raise self._error(f"expected ',' or '}}' after member {name!r}, {self._found()}")
        self._at += 1
        return value

    def _array(self) -> list[Any]:
        self._at += 1
        value: list[Any] = []
        self._skip()
        while self._peek() != "]":
            if self._peek() in (",", ";"):
                # Java's lenient reader takes a missing element as null.
                value.append(None)
            else:
                self._path.append(str(len(value)))
                value.append(self._value())
                self._path.pop()
                self._skip()
            if self._peek() in (",", ";"):
                self._at += 1
                self._skip()
                if self._peek() == "]":
                    self._warn("Java reads a comma before ] as one more element, null")
            elif self._peek() != "]":
                raise self._error(f"expected ',' or ']', {self._found()}")
        self._at += 1
        return value

    def _word(self) -> str:
        match = _WORD.match(self._text, self._at)
        if match is None:
            raise self._error(f"expected a name or a value, {self._found()}")
        self._at = match.end()
        return match.group()

    def _quoted(self) -> str:
        text = self._text
        quote = text[self._at]
        start, self._at = self._at, self._at + 1
        parts: list[str] = []
        while True:
            end = _SPECIAL[quote].search(text, self._at)
            if end is None:
                self._at = start
                raise self._error("a string is not closed")
            parts.append(text[self._at : end.start()])
            self._at = end.start()
            if text[self._at] == quote:
                self._at += 1
                return "".join(parts) if "\\" not in text[start : self._at] else _joined(parts)
            parts.append(self._escape())

    def _escape(self) -> str:
        letter = self._text[self._at + 1 : self._at + 2]
        if letter == "u":
            digits = _HEX.match(self._text, self._at + 2)
            if digits is None:
                raise self._error("\\u without four hexadecimal digits")
            self._at = digits.end()
            return chr(int(digits.group(), 16))
        if letter not in _ESCAPES or not letter:
            raise self._error("unknown escape after \\")
        self._at += 2
        return _ESCAPES[letter]


def _joined(parts: list[str]) -> str:
    """Parts with ``\\u`` escapes: two halves become one character, as in JSON."""
    text = "".join(parts)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
