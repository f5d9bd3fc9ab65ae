"""Shared value types: test vectors of wire.md 9.4."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openems.common import channel
from openems.common.data import rows_of
from openems.common.errors import OpenemsError
from openems.common.role import Language, Role
from openems.common.semver import SemanticVersion


class Channels(SynchronousTestCase):
    def test_match(self) -> None:
        for address, pattern, value in (
            ("ess0/ActivePower", "ess0/ActivePower", 0),
            ("ess0/ActivePower", "ess0/ReactivePower", -1),
            ("ess0/ActivePower", "*/ActivePower", 1073741824),
            ("meter0/ActivePower", "meter*/ActivePower", 1073741829),
            ("meter1/ActivePower", "*/*Power", 7),
            ("meter1/ReactivePower", "*/*Power", 7),
            ("meter1/ActivePower", "*/*", 2),
            ("x/abc", "x/*b*", -1),
        ):
            self.assertEqual((address, pattern, channel.match(address, pattern)), (address, pattern, value))

    def test_addresses(self) -> None:
        for text in ("ess0", "ess0/", "", "/"):
            with self.assertRaises(OpenemsError) as caught:
                channel.check_address(text)
            self.assertEqual(caught.exception.code, 1000)
        self.assertEqual(channel.check_address("/Soc"), "/Soc")
        self.assertEqual(channel.check_address("a/b/c"), "a/b/c")

    def test_long_address_is_refused_with_a_short_text(self) -> None:
        with self.assertRaises(OpenemsError) as caught:
            channel.check_address("a" * 100_000 + "/b")
        self.assertLess(len(caught.exception.message), 200)

    def test_sets_are_sorted(self) -> None:
        self.assertEqual(
            channel.check_addresses(["_sum/EssSoc", "_sum/Abc", "_sum/EssSoc"]), ["_sum/Abc", "_sum/EssSoc"]
        )


class Versions(SynchronousTestCase):
    def test_parse(self) -> None:
        for text, version in (
            ("", "0.0.0"),
            ("1", "1.0.0"),
            ("1.2", "1.2.0"),
            ("01.02.03", "1.2.3"),
            ("2018.11.0-SNAPSHOT", "2018.11.0-SNAPSHOT"),
            ("1.2.3-x-y", "1.2.3-x-y"),
            ("xyz", "0.0.0"),
            (None, "0.0.0"),
            ("v1.2.3", "0.0.0"),
            ("1.2.3.4", "0.0.0"),
            ("1.2-x", "0.0.0"),
            ("99999.1.1", "0.0.0"),
        ):
            self.assertEqual((text, str(SemanticVersion.parse_or_zero(text))), (text, version))

    def test_is_at_least(self) -> None:
        for one, other, expected in (
            ("2018.11.0-SNAPSHOT", "2018.10.1", True),
            ("2018.10.0", "2018.10.0-SNAPSHOT", True),
            ("2018.10", "2018.10.0", True),
            ("5.6.7-abc", "5.6.7-abb", True),
            ("1.0.0-a", "1.0.0", True),
            ("4", "5", False),
            ("5.6.5", "5.6.6", False),
            ("5.6.7-aba", "5.6.7-abb", False),
        ):
            self.assertIs(SemanticVersion.parse(one).is_at_least(SemanticVersion.parse(other)), expected)


class Names(SynchronousTestCase):
    def test_roles(self) -> None:
        self.assertEqual(
            [Role.parse(text) for text in ("ADMIN", "Installer", "foo")], [Role.ADMIN, Role.INSTALLER, Role.GUEST]
        )

    def test_languages(self) -> None:
        # "cs" is DE in Java; ui.md 19, 42: what the UI calls "cs" is CZ
        for text, language in (("en", "EN"), (" cz ", "CZ"), ("cs", "CZ"), ("xx", "DE"), ("", "DE")):
            self.assertEqual((text, Language.parse(text).value), (text, language))


NOW = 1700000002000


class Data(SynchronousTestCase):
    def test_rows_are_sorted_by_time(self) -> None:
        rows, dropped = rows_of({"1700000001000": {"b/B": 1, "a/A": None}, "1700000000000": {"a/A": "x"}}, NOW)
        self.assertEqual(list(rows.items()), [(1700000000000, {"a/A": "x"}), (1700000001000, {"b/B": 1, "a/A": None})])
        self.assertEqual(dropped, {})

    def test_nonsense_costs_only_itself(self) -> None:
        rows, dropped = rows_of(
            {"x": {"a/A": 1}, "1700000000000": {"a/A": 2}, "5": {}, "1800000000000": {}, "1700000000001": 7},
            1700000002000,
        )
        self.assertEqual(rows, {1700000000000: {"a/A": 2}})
        self.assertEqual(dropped, {"time": 3, "row": 1})
