"""Names of this project's own metrics, and how families are made (metrics.md 15)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from openems.common.histogram import Histogram

PREFIX = "openems_backend_"
Labels = Sequence[str]

_LOWER_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_NAME = re.compile(r"[^a-zA-Z0-9]+")
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_.\-]")


def snake(name: str) -> str:
    """``DroppedStopped`` as part of a metric's name; "" if nothing is left of it.

    >>> snake("DroppedStopped"), snake("Queries/Pending!"), snake("P95Ms")
    ('dropped_stopped', 'queries_pending', 'p95_ms')
    """
    return _NO_NAME.sub("_", _LOWER_UPPER.sub("_", name)).strip("_").lower()[:60]


def clean_label(text: str) -> str:
    """A component's id as a label: short, and of harmless characters.

    >>> clean_label('ed"ges 0')
    'ed_ges_0'
    """
    return _NO_LABEL.sub("_", text)[:60]


def gauge(name: str, about: str, values: Mapping[Any, float] | float, labels: Labels = ()) -> Metric:
    """``values``: label values -> value, or the one value of a family without labels."""
    family = GaugeMetricFamily(name, about, labels=labels)
    _fill(family, values)
    return family


def counter(name: str, about: str, values: Mapping[Any, float] | float, labels: Labels = ()) -> Metric:
    """``name`` without ``_total``."""
    family = CounterMetricFamily(name, about, labels=labels)
    _fill(family, values)
    return family


def _fill(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Any, float] | float) -> None:
    if isinstance(values, Mapping):
        for labels, value in values.items():
            family.add_metric(labels, value)
    else:
        family.add_metric((), values)


def histogram(
    name: str, about: str, children: Iterable[tuple[Labels, Histogram]], labels: Labels = ()
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, about, labels=labels)
    for values, child in children:
        family.add_metric(values, child.cumulative(), child.sum)
    return family
