"""From envelopes to the bytes of a mail: about one edge, or about many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from openems.backend.mail.message import Sender, compose
from openems.backend.mail.render import DIGEST, EdgeFacts, Facts, Templates
from openems.backend.mail.spool import Envelope
from openems.backend.models import MailRecipient

#: Edges in one mail.
MAX_EDGES = 100


class Letters:
    """``edge``: edge id -> Edge or None."""

    def __init__(self, templates: Templates, sender: Sender, edge: Callable[[str], Any]) -> None:
        self.sender = sender
        self._templates = templates
        self._edge = edge

    def write(self, envelopes: Sequence[Envelope], recipient: MailRecipient, to: str) -> bytes:
        """One mail for all of them, which have the same reader. Raises ValueError if it grew too large."""
        return (
            self._single(envelopes[0], recipient, to) if len(envelopes) == 1 else self._digest(envelopes, recipient, to)
        )

    def _single(self, envelope: Envelope, recipient: MailRecipient, to: str) -> bytes:
        edge = self._edge(envelope.edge_id) if envelope.edge_id else None
        version = "" if edge is None else str(edge.version)
        facts = Facts(
            now=envelope.sent_at,
            login=recipient.login,
            firstname=recipient.firstname,
            lastname=recipient.lastname,
            language=recipient.language,
            timezone=recipient.timezone,
            edge_id=envelope.edge_id,
            edge_name="" if edge is None else edge.comment or "",
            producttype="" if edge is None else edge.producttype,
            version="" if version == "0.0.0" else version,
            lastmessage=None if edge is None else edge.lastmessage,
            since=envelope.since,
            delay=envelope.delay,
            state=envelope.state,
            gone=envelope.facts.get("gone", 0),
            known=envelope.facts.get("known", 0),
            until=envelope.facts.get("until", 0),
        )
        return compose(
            self._templates.render(envelope.template, facts),
            self.sender,
            to,
            recipient_name=f"{recipient.firstname} {recipient.lastname}",
            key=envelope.key,
            template=envelope.template,
            edge_id=envelope.edge_id,
            thread=f"{envelope.template} {envelope.edge_id} {envelope.since}",
            date=envelope.sent_at,
        )

    def _digest(self, envelopes: Sequence[Envelope], recipient: MailRecipient, to: str) -> bytes:
        newest = max(envelope.sent_at for envelope in envelopes)
        lines = []
        for envelope in envelopes:
            edge = self._edge(envelope.edge_id)
            lines.append(
                EdgeFacts(
                    edge_id=envelope.edge_id,
                    edge_name="" if edge is None else edge.comment or "",
                    state=envelope.state or "Offline",
                    since=envelope.since,
                )
            )
        facts = Facts(
            now=newest,
            login=recipient.login,
            firstname=recipient.firstname,
            lastname=recipient.lastname,
            language=recipient.language,
            timezone=recipient.timezone,
            edges=lines,
        )
        return compose(
            self._templates.render(DIGEST, facts),
            self.sender,
            to,
            recipient_name=f"{recipient.firstname} {recipient.lastname}",
            key=sha256("".join(sorted(envelope.key for envelope in envelopes)).encode()).hexdigest()[:32],
            template=DIGEST,
            date=newest,
        )
