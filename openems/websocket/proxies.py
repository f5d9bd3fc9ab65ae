"""Who a peer is, where it comes through a reverse proxy. Pure.

Forwarding headers can be written by anybody, and limits are counted by what they say: they are believed only from
addresses that are named as proxies, and read from their end, where the nearest proxy wrote. A proxy writes some of them
and lets the others through as the peer sent them; where they contradict each other none is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

LOOPBACK = ("127.0.0.0/8", "::1/128")
#: Bits of an IPv6 address that tell two peers apart: the rest is theirs to choose.
IPV6_PREFIX = 64
#: A header is read from its end this far; whoever needs more has no proxy.
MAX_HEADER = 1000
#: ``for=`` of RFC 7239, in quotes or not, IPv6 in brackets, with or without a port.
_FORWARDED_FOR = re.compile(r'for="?\[?([0-9A-Za-z._-]+|[0-9a-fA-F:.]+?)\]?(?::\d+)?"?\s*(?:[;,]|$)', re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([0-9a-fA-F:.]+(?:%[0-9A-Za-z._-]+)?)\](?::\d+)?\Z|([0-9.]+):\d+\Z")


class TrustedProxies:
    """``networks``: addresses or networks as text; ValueError names one that is neither."""

    def __init__(self, networks: Iterable[str] = LOOPBACK) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(text, strict=False) for text in networks]

    def __contains__(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(
            address in network for network in self._networks if network.version == address.version
        )

    def remote(self, headers: Mapping[str, str], host: str, port: int) -> str:
        """The peer for logs and limits: ``host:port`` of the socket, an IPv6 host in brackets, or the address its proxy
        names."""
        if host in self:
            named = {hop for name in ("forwarded", "x-forwarded-for", "x-real-ip") if (hop := self._hop(headers, name))}
            beyond = {hop for hop in named if hop not in self} or named
            if len(beyond) == 1:
                return beyond.pop()
        address = _address(host)
        host = host if address is None else str(address)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _hop(self, headers: Mapping[str, str], name: str) -> str | None:
        """The last address in a header that is no proxy's; if all are, the first."""
        value = headers.get(name)
        if not value:
            return None
        value = value[-MAX_HEADER:]
        texts = _FORWARDED_FOR.findall(value) if name == "forwarded" else re.split("[,;]", value)
        first = None
        for text in reversed(texts):
            text = text.strip()
            if not text:
                continue
            address = None if "%" in text else _address(text)
            if address is None:
                # Written by the nearest proxy that is not known to be one: nobody we believe said more.
                return first
            first = str(address)
            if first not in self:
                return first
        return first


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Without a port; an IPv4 address in the clothes of IPv6 as what it is."""
    match = _WITH_PORT.match(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def host_of(remote: str) -> str:
    """The peer as limits count it: its address without the port, of IPv6 the network.

    >>> host_of("192.0.2.1:4711"), host_of("[2001:db8::1]:4711"), host_of("2001:db8::1")
    ('192.0.2.1', '2001:db8::', '2001:db8::')
    """
    address = _address(remote)
    if address is None:
        host, colon, port = remote.rpartition(":")
        return host if colon and port.isdigit() else remote
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX)))
    return str(address)
