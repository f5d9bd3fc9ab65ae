"""Who a peer is behind reverse proxies, and who may not claim to be somebody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.websocket.proxies import TrustedProxies


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

    def test_no_network(self) -> None:
        with self.assertRaises(ValueError):
            TrustedProxies(["10.0.0.0/99"])
