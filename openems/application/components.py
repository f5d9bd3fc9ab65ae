"""What works and what does not, for the page for monitoring and for the metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from openems.application.config import listeners
from openems.application.health import Component
from openems.backend.alerting.service import AlertingService
from openems.backend.interfaces import IDebugLoggable
from openems.backend.mail.smtp import SmtpMailer

if TYPE_CHECKING:
    from openems.application.backend import Backend


def history_components(providers: Iterable[Any]) -> dict[str, Component]:
    components: dict[str, Component] = {}
    for provider in providers:
        text = provider.debug_log() if IDebugLoggable.providedBy(provider) else ""
        components[f"Timedata {provider.id}"] = Component("CANNOT " not in (text or ""), text or "")
    return components


def components_of(backend: Backend) -> dict[str, Component]:
    problems: list[str] = backend.metadata.health()
    state = f"{len(backend.metadata.edges())} edges"
    components = {
        "Metadata": Component(bool(backend.metadata.initialized) and not problems, "; ".join(problems) or state)
    }
    components |= history_components(backend.timedata)
    if backend.oauth is not None:
        wrong = backend.oauth.problems()
        components["Authentication.OAuth"] = Component(not wrong, "; ".join(wrong) or backend.oauth.realm.issuer)
    for name, part in (("Alerting", backend.alerting), ("Mail.Smtp", backend.mailer)):
        if isinstance(part, AlertingService | SmtpMailer):
            wrong = part.health()
            components[name] = Component(not wrong, "; ".join(wrong) or part.debug_log() or "idle")
    for name in listeners(backend.configuration):
        port = backend.ports.get(name)
        components[name] = Component(port is not None, f"port {port}" if port else "not open")
    if backend.edge_processes is not None and "edge" in backend.ports:
        components["edge"] = Component(backend.edge_processes.healthy(), backend.edge_processes.summary())
    return components
