"""Mails through Odoo (metadata-odoo.md 11.9, alerting.md 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IMailer
from openems.backend.metadata.odoo.replies import OdooError, text_of
from openems.backend.metadata.odoo.rpc import SLOW_SECONDS, OdooRpc
from openems.backend.metadata.odoo.times import odoo_time
from openems.common.errors import generic

BASE = "/openems_backend/mail/"
#: Contexts of one request: Odoo sends while the backend waits.
CHUNK = 50


@implementer(IMailer)
class OdooMailer:
    """Odoo's templates know what a mail says, and Odoo notes with the settings when it left."""

    _log = Logger()

    def __init__(self, rpc: OdooRpc) -> None:
        self._rpc = rpc

    async def send_mail(self, send_at: int, template_id: str, contexts: Sequence[dict[str, Any]]) -> int:
        if not template_id.replace("_", "").isalnum():
            raise generic(f"There is no mail template [{template_id[:40]}]")
        sent = 0
        for start in range(0, len(contexts), CHUNK):
            part = [dict(context) for context in contexts[start : start + CHUNK]]
            params = {"sentAt": odoo_time(send_at), "params": part}
            answer = await self._rpc.call(BASE + template_id, params, timeout=SLOW_SECONDS)
            sent += mails_sent(answer, template_id, len(part))
        if not sent:
            self._log.warn("[sendMail] No mails sent for template [{template}]", template=template_id)
        return sent


def mails_sent(answer: Any, template_id: str, contexts: int) -> int:
    """The number of mails an answer tells of. An older addon answers ``{}``: then one a context is believed.

    >>> mails_sent({"status": "success", "mails_sent": 2}, "t", 3), mails_sent({}, "t", 3)
    (2, 3)
    """
    status = text_of(answer.get("status")) if isinstance(answer, dict) else None
    if status == "success":
        number = answer.get("mails_sent", 0)
        return number if isinstance(number, int) and not isinstance(number, bool) else 0
    if status == "error":
        reason = text_of(answer.get("message")) or "Failed to send mail!"
        raise OdooError(f"Failed to send mail for template [{template_id}]: {reason}")
    return contexts
