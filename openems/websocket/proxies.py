"""Who a peer is, where it comes through a reverse proxy. Pure.

Forwarding headers can be written by anybody, and limits are counted by what they say: they are believed only from
addresses that are named as proxies, and read from their end, where the nearest proxy wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

LOOPBACK = ("127.0.0.0/8", "::1/128")
#: ``for=`` of RFC 7239, in quotes or not, IPv6 in brackets, with or without a port.
_FORWARDED_FOR = re.compile(r'for="?\[?([0-9A-Za-z._-]+|[0-9a-fA-F:.]+?)\]?(?::\d+)?"?\s*(?:[;,]|$)', re.IGNORECASE)


class TrustedProxies:
    """``networks``: addresses or networks as text; ValueError names one that is neither."""

    def __init__(self, networks: Iterable[str] = LOOPBACK) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(text, strict=False) for text in networks]

    def __contains__(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks if network.version == address.version)

    def remote(self, headers: Mapping[str, str], host: str, port: int) -> str:
        """The peer for logs and limits: ``host:port`` of the socket, or the address its proxy names."""
        if host not in self:
            return f"{host}:{port}"
        for name in ("forwarded", "x-forwarded-for", "x-real-ip"):
            value = headers.get(name)
            if not value:
                continue
            hops = (
                _FORWARDED_FOR.findall(value)
                if name == "forwarded"
                else [part.strip() for part in re.split("[,;]", value) if part.strip()]
            )
            if hops:
                return next((hop for hop in reversed(hops) if hop not in self), hops[0])[:64]
        return f"{host}:{port}"
