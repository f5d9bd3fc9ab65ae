"""Alerting and waiting mails under names of their own (metrics.md 17); out of the numbers that those components
tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from openems.backend.metrics.families import PREFIX, Labels, gauge
from openems.backend.metrics.mails import RESULTS

MAILER = "Mail.Smtp"
HANDLERS = ("alerting_offline", "alerting_sumstate")
_SPOOL = {
    "Waiting": ("mail_spool_messages", "Mails that wait."),
    "OldestAge": ("mail_spool_oldest_age_seconds", "Age of the oldest mail that waits."),
}


def claims(component: str, name: str) -> bool:
    if component == MAILER:
        return name in RESULTS or name in _SPOOL
    return component in HANDLERS and name == "OldestDueAge"


def families(numbers: Mapping[str, float]) -> Iterator[Metric]:
    """``numbers``: ``<component>/<name>`` -> value. Nothing of what is not there."""
    for name, (metric, about) in _SPOOL.items():
        value = numbers.get(f"{MAILER}/{name}")
        yield gauge(PREFIX + metric, about, {} if value is None else {(): value})
    due: dict[Labels, float] = {
        (handler,): numbers[f"{handler}/OldestDueAge"] for handler in HANDLERS if f"{handler}/OldestDueAge" in numbers
    }
    yield gauge(f"{PREFIX}alerting_oldest_due_age_seconds", "Age of what is due and not sent.", due, ("handler",))
