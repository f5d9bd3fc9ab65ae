"""Requests of UIs as labels of metrics (ui.md 16): out of a bounded set of names, whatever peers send."""

from __future__ import annotations

from collections.abc import Mapping, Set

from openems.backend.ui.methods import HANDLERS
from openems.common import jsonrpc
from openems.common.jsonrpc import Request
from openems.common.methods import names

#: Method -> names that may be nested in it; at "" those of the request itself. All others are ``other``.
METHODS: Mapping[str, Set[str]] = {
    "": names.AUTHENTICATION | names.CORE | HANDLERS.keys(),
    "authenticateWithOAuth": names.OAUTH,
    "edgeRpc": names.EDGE_RPC,
    "appCenter": names.APP_CENTER | {"installAppWithSuppliedKey"},
    "componentJsonApi": names.COMPONENT,
}


def label(request: Request) -> str:
    """The fully qualified method (wire.md 1.10) as far as its names are known.

    >>> label(Request("fooBar", jsonrpc.EMPTY, "00000000-0000-0000-0000-000000000000"))
    'other'
    """
    if request.method not in METHODS[""]:
        return "other"
    path = [request.method]
    known = METHODS.get(request.method)
    if known is None:
        return request.method
    try:
        value = jsonrpc.loads(request.params)
    except ValueError:
        return request.method
    while known is not None:
        payload = value.get("payload") if isinstance(value, dict) else None
        method = payload.get("method") if isinstance(payload, dict) else None
        if not isinstance(method, str):
            break
        path.append(method if method in known else "other")
        known = METHODS.get(method) if method in known else None
        value = payload.get("params") if isinstance(payload, dict) else None
    return "/".join(path)
