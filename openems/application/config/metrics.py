"""What monitoring may ask."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from openems.application.config.section import Port, Section


class MetricsPrometheus(Section, frozen=True):
    """Metrics for Prometheus at `/metrics`, and `/-/healthy`, `/-/ready` (component `Metrics.Prometheus`). The page
    about metrics lists them."""

    port: Annotated[Port, Meta(description="HTTP port.")] = 9400
    interface: Annotated[str | None, Meta(description="Address to bind to; absent: the one of `[backend]`.")] = None
    bearer_token: Annotated[
        str, Meta(description="Whoever asks must send it, `Authorization: Bearer <token>`; empty: nobody must.")
    ] = ""
    next_bearer_token: Annotated[
        str, Meta(description="Another token that is good, too: for a change without a gap.")
    ] = ""
    open_health: Annotated[
        bool, Meta(description="`/-/healthy` and `/-/ready` without a token: for probes that can send none.")
    ] = False
