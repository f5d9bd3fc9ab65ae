"""Families as text, a piece at a time, so that a scrape never holds the reactor for long (metrics.md 4, 18).

The formats are those of prometheus_client, OpenMetrics 1.0.0 and text 0.0.4; protobuf is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

#: Samples that are written in one go: a millisecond or two.
PIECE = 400
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = CONTENT_TYPE_PLAIN_0_0_4
_END = b"# EOF\n"
_SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_info", "_created")


def content_type(accept: str) -> str:
    """What a scraper prefers; a quality of 0 is a refusal. Version 0.0.1 of OpenMetrics is read by nobody any more.

    >>> content_type("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2") == OPENMETRICS
    True
    >>> content_type("text/plain;q=1, application/openmetrics-text;q=0") == TEXT
    True
    """
    qualities = {OPENMETRICS: 0.0, TEXT: 0.0}
    for element in accept.split(","):
        media, *parameters = (part.strip() for part in element.lower().split(";"))
        values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        try:
            quality = min(1.0, max(0.0, float(values.get("q", "1"))))
        except ValueError:
            quality = 0.0
        if media == "application/openmetrics-text" and values.get("version", "1.0.0") == "1.0.0":
            qualities[OPENMETRICS] = max(qualities[OPENMETRICS], quality)
        elif media in ("text/plain", "text/*", "*/*"):
            qualities[TEXT] = max(qualities[TEXT], quality)
    return OPENMETRICS if qualities[OPENMETRICS] > 0 and qualities[OPENMETRICS] >= qualities[TEXT] else TEXT


def wanted(name: str, names: Collection[str]) -> bool:
    """Whether a family is among those asked for with ``name[]``, by its own or by a sample's name; all if none is."""
    return not names or name in names or any(name + suffix in names for suffix in _SUFFIXES)


def pieces(families: Iterable[Metric], content_type: str) -> Iterator[bytes]:
    """The text in parts, each a few milliseconds of work. Families without samples are left out.

    The heads are prometheus_client's. The lines of samples, the same in both formats, are made here: several times as
    fast, and there are thousands of them.
    """
    is_open = content_type == OPENMETRICS
    encode: Callable[[Any], bytes] = openmetrics.generate_latest if is_open else generate_latest
    for family in families:
        samples = family.samples
        for start in range(0, len(samples), PIECE):
            text = "".join(map(_line, samples[start : start + PIECE])).encode()
            if not start:
                head = Metric(family.name, family.documentation, family.type, family.unit)
                text = encode(_One(head)).removesuffix(_END) + text
            yield text
    if is_open:
        yield _END


def _line(sample: Sample) -> str:
    labels = ",".join([f'{name}="{_escaped(sample.labels[name])}"' for name in sorted(sample.labels)])
    value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
    return f"{sample.name}{{{labels}}} {value}\n" if labels else f"{sample.name} {value}\n"


def _escaped(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return text


class _One:
    """What an encoder takes for a registry."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]
