"""How far a long work is, for a human at a terminal or for a log."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import TextIO


class Bar:
    """How far a copy is: one line that is written over on a terminal, else a line now and then."""

    EVERY, LINE_EVERY = 0.2, 10.0
    WIDTH = 30

    def __init__(self, stream: TextIO, edges: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._edges = edges
        self._clock = clock
        self._began = clock()
        self._told = -self.LINE_EVERY
        self._last_edge = ""
        self._samples = 0
        self._index = 0

    def __call__(self, edge: str, part: float, samples: int) -> None:
        if edge != self._last_edge:
            self._last_edge = edge
            self._index += 1
        self._samples += samples
        now = self._clock()
        live = self._stream.isatty()
        if now - self._told < (self.EVERY if live else self.LINE_EVERY) and part < 1:
            return
        self._told = now
        seconds = max(now - self._began, 0.001)
        whole = min(1.0, (self._index - 1 + part) / max(1, self._edges))
        filled = round(self.WIDTH * whole)
        left = f", {datetime.timedelta(seconds=round(seconds / whole - seconds))} left" if whole > 0.01 else ""
        text = (
            f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] {whole:4.0%} {edge} ({self._index}/{self._edges})"
            f" {self._samples:,} values, {self._samples / seconds:,.0f}/s{left}"
        )
        self._stream.write(f"\r{text}\x1b[K" if live else f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        if self._stream.isatty():
            self._stream.write("\n")
