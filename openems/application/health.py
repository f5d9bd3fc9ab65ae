"""The page for monitoring: what works and what does not, as JSON (``[health]``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from twisted.web.http import Request
from twisted.web.resource import Resource

from openems.backend.metrics.pages import PageSite


class Component(msgspec.Struct, frozen=True):
    """``state`` is for a human and without secrets."""

    ok: bool
    state: str


class HealthPage(Resource):
    """``GET /``: ``{"status": "ok" or "failing", "components": {"Metadata.File": {"ok": true, "state": ".."}}}``;
    200 or 503."""

    isLeaf = True

    def __init__(self, components: Callable[[], Mapping[str, Component]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._components = components

    def render(self, request: Request) -> bytes:
        if request.method not in (b"GET", b"HEAD"):
            request.setResponseCode(405)
            request.setHeader(b"allow", b"GET, HEAD")
            return b""
        components = self._components()
        ok = all(component.ok for component in components.values())
        if not ok:
            request.setResponseCode(503)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        body = {"status": "ok" if ok else "failing", "components": components}
        return msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"


def site(components: Callable[[], Mapping[str, Component]]) -> PageSite:
    return PageSite(HealthPage(components), timeout=20)
