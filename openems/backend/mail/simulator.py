"""``[simulator.mailer]``: mails as lines of the log, for development (alerting.md 14)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IMailer
from openems.common.instant import instant
from openems.common.jsonrpc import dumps


@implementer(IMailer)
class SimulatorMailer:
    """``id`` is only used in the log."""

    _log = Logger()

    def __init__(self, id: str = "SimulatorMail") -> None:
        self.id = id

    async def send_mail(self, send_at: int, template_id: str, contexts: Sequence[dict[str, Any]]) -> int:
        params = ", ".join(f"MailContext{dumps(context).decode()}" for context in contexts)
        self._log.info(
            "[{id}]: Mail(sendAt: {send_at}, templateId: {template_id}, params: [{params}])",
            id=self.id,
            send_at=instant(send_at),
            template_id=template_id,
            params=params,
        )
        return len(contexts)
