"""Who a peer is behind reverse proxies, and who may not claim to be somebody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.websocket.proxies import TrustedProxies, host_of


class Proxies(SynchronousTestCase):
    def test_direct(self) -> None:
        self.assertEqual(TrustedProxies().remote({}, "192.0.2.1", 4711), "192.0.2.1:4711")

    def test_strangers_are_not_believed(self) -> None:
        headers = {"x-forwarded-for": "198.51.100.1", "forwarded": "for=198.51.100.2", "x-real-ip": "198.51.100.3"}
        self.assertEqual(TrustedProxies().remote(headers, "192.0.2.1", 1), "192.0.2.1:1")

    def test_the_nearest_proxy_tells(self) -> None:
        """What the peer itself put in front does not count."""
        proxies = TrustedProxies(["127.0.0.1", "10.0.0.0/8"])
        for header, value in (
            ("x-forwarded-for", "203.0.113.9, 198.51.100.1"),
            ("x-forwarded-for", "198.51.100.1, 10.1.2.3"),
            ("forwarded", 'for=203.0.113.9;proto=https, for="198.51.100.1:8080"'),
            ("x-real-ip", "198.51.100.1"),
        ):
            self.assertEqual(proxies.remote({header: value}, "127.0.0.1", 1), "198.51.100.1", value)
        self.assertEqual(proxies.remote({"forwarded": 'for="[2001:db8::1]:80"'}, "127.0.0.1", 1), "2001:db8::1")
        self.assertEqual(proxies.remote({"x-forwarded-for": " , "}, "127.0.0.1", 1), "127.0.0.1:1")

    @given(st.text(max_size=500), st.sampled_from(["forwarded", "x-forwarded-for", "x-real-ip"]))
    def test_any_header(self, value: str, header: str) -> None:
        self.assertLessEqual(len(TrustedProxies().remote({header: value}, "127.0.0.1", 1)), 64)

    def test_headers_that_contradict_each_other(self) -> None:
        """A proxy writes one of the headers and lets the others through as the peer made them up: which one it was
        cannot be told, so none is believed. Otherwise each attempt to log in could have an address of its own."""
        proxies = TrustedProxies(["127.0.0.1", "10.0.0.0/8"])
        honest = {"x-forwarded-for": "198.51.100.1"}
        for forged in ({"forwarded": "for=203.0.113.7"}, {"x-real-ip": "203.0.113.7"}):
            self.assertEqual(proxies.remote({**honest, **forged}, "127.0.0.1", 1), "127.0.0.1:1", str(forged))
        agreed = {**honest, "forwarded": "for=198.51.100.1:80", "x-real-ip": "198.51.100.1"}
        self.assertEqual(proxies.remote(agreed, "127.0.0.1", 1), "198.51.100.1")
        # The inner of two proxies names the outer one, which says nothing about the peer.
        inner = {"x-forwarded-for": "198.51.100.1, 10.1.2.3", "x-real-ip": "10.1.2.3"}
        self.assertEqual(proxies.remote(inner, "127.0.0.1", 1), "198.51.100.1")

    def test_what_is_no_address_is_not_believed(self) -> None:
        for value in ("unknown", "_hidden", "\x1b[2J", "198.51.100.1\x1b[31m", "fe80::1%\x1b[2J", "a" * 1000):
            told = TrustedProxies().remote({"x-forwarded-for": value}, "127.0.0.1", 1)
            self.assertEqual(told, "127.0.0.1:1", value)
        self.assertEqual(
            TrustedProxies().remote({"x-forwarded-for": "198.51.100.1:90"}, "127.0.0.1", 1), "198.51.100.1"
        )

    def test_ipv6(self) -> None:
        self.assertEqual(TrustedProxies().remote({}, "2001:db8::1", 4711), "[2001:db8::1]:4711")
        self.assertEqual(TrustedProxies().remote({}, "::ffff:192.0.2.1", 4711), "192.0.2.1:4711")
        headers = {"x-forwarded-for": "198.51.100.1"}
        self.assertEqual(TrustedProxies().remote(headers, "::ffff:127.0.0.1", 1), "198.51.100.1")

    def test_host_of(self) -> None:
        for remote, host in (
            ("192.0.2.1:4711", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("local:0", "local"),
            ("", ""),
            ("[::1]:80", "::"),
            ("[fe80::1%eth0]:80", "fe80::"),
        ):
            self.assertEqual(host_of(remote), host)

    def test_one_ipv6_network_is_one_peer(self) -> None:
        """Whoever has an IPv6 address has 2**64 of them: limits count the network. And no port: each connection has
        another one."""
        remote = TrustedProxies().remote
        first = host_of(remote({}, "2001:db8:0:1::1", 4711))
        self.assertEqual(first, host_of(remote({}, "2001:db8:0:1:ffff::2", 4712)))
        self.assertEqual(first, host_of("2001:db8:0:1::3"))
        self.assertNotEqual(first, host_of(remote({}, "2001:db8:0:2::1", 4711)))

    def test_no_network(self) -> None:
        with self.assertRaises(ValueError):
            TrustedProxies(["10.0.0.0/99"])
