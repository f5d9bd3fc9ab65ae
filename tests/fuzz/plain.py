"""Inputs without a fuzzing engine: those of the corpus, spoiled. Seeded: the same seed, the same inputs."""

from __future__ import annotations

import random
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
_LONGEST = 4096
_TOKENS = tuple(
    b'{ } [ ] , : " \\ null true NaN Infinity 1e999 -0 18446744073709551616 "\\ud800" \\u0000 \r\n \n \r \0 \xff \xc3'
    b' \xf5OSR "id" "method" "params" "payload" "result" "error" "timeout" "edgeId" '
    b'"84217850-f492-48f3-ac01-e07ef178a59f"'
    b' "1764000000000" 1764000000000 for= ;  = # I" [" (" \\u \x81 \x82 \x88 \x7e'.split(b" ")
)  # fmt: skip


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


class Spoiler:
    def __init__(self, seed: int, inputs: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._inputs = inputs or [b""]

    def input(self) -> bytes:
        r = self._random
        text = bytearray(r.choice(self._inputs))
        for _ in range(r.choice((1, 1, 2, 3, 8))):
            at = r.randrange(len(text) + 1)
            way = r.random()
            if way < 0.2:
                text[at:at] = r.choice(_TOKENS)
            elif way < 0.4:
                del text[at : at + r.choice((1, 1, 2, 8, 50))]
            elif way < 0.6 and at < len(text):
                text[at] = r.choice((r.randrange(256), text[at] ^ (1 << r.randrange(8))))
            elif way < 0.75:
                other = r.choice(self._inputs)
                begin = r.randrange(len(other) + 1)
                text[at : at + r.choice((0, 5, 1000))] = other[begin : begin + r.choice((1, 10, 200))]
            elif way < 0.9:
                piece = text[at : at + r.choice((1, 4, 30))]
                text[at:at] = piece * r.choice((1, 2, 200))
            else:
                text[at:at] = r.randbytes(r.choice((1, 2, 4)))
        return bytes(text[:_LONGEST])
