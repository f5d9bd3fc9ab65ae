"""What became of mails, by template (metrics.md 17)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import Metric

from openems.backend.mail.render import NAMES
from openems.backend.metrics.families import PREFIX, counter

RESULTS = {"Sent": "sent", "Failed": "failed", "Dropped": "dropped", "Outdated": "outdated", "Expired": "expired"}
#: Handed in by nobody: what becomes of a test mail is on the screen of who sends it.
_TEMPLATES = tuple(name for name in NAMES if name != "test")


class Mails:
    """``mailer``: SmtpMailer. Templates are the program's own, and each begins with nought."""

    def __init__(self, mailer: Any) -> None:
        self._mailer = mailer

    def collect(self) -> Iterator[Metric]:
        counts = {(template, result): 0 for template in _TEMPLATES for result in RESULTS.values()}
        for (template, result), count in self._mailer.ended.items():
            counts[(template, RESULTS[result])] = count
        yield counter(f"{PREFIX}mails", "Mails, by what became of them.", counts, ("template", "result"))
