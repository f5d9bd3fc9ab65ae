from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.plausibility import FUTURE, ChannelFilter, Plausibility
from openems.common.channel import is_component_id
from openems.common.data import MIN_TIME, DataKind, Row

NOW = 1_700_000_000_000


class ChannelFilterTests(SynchronousTestCase):
    def test_timedata_15_channel_filter(self) -> None:
        channels = ChannelFilter(["component0/Channel"], ["_PropertyAlias"])
        for invalid in (
            *("/Channel", "component0/", "component0/Channel", "invalid", "in/va/lid", "ess/ActivePower"),
            *("Ess1/ActivePower", "cycle/MeasuredCycleTime", "_cycle1/MeasuredCycleTime", "My Heat-Pump/Status"),
            *("ess\u00e40/ActivePower", "foo0/_PropertyAlias", "component0/" + "x" * 300),
        ):
            self.assertFalse(channels.valid(invalid), invalid)
        for valid in (
            *("component0/SomeOtherChannel", "ess0/ActivePower", "_sum/EssActivePower", "_cycle/MeasuredCycleTime"),
            *("pvInverter0/S1Evt", "bar0/PropertyAlias", "pvInverter19/ActivePower"),
        ):
            self.assertTrue(channels.valid(valid), valid)

    def test_timedata_15_component_ids(self) -> None:
        self.assertEqual(
            [True] * 5, [is_component_id(text) for text in ("_sum", "pvInverter0", "pvInverter99", "_a", "e0")]
        )
        wrong = ("pvInverter", "pvInverte.r0", "pvInve rter0", "PvInverter0", "pvInverter0a", "_s1", "a", "", "e0\n")
        self.assertEqual([False] * len(wrong), [is_component_id(text) for text in wrong])

    def test_patterns(self) -> None:
        channels = ChannelFilter(denied=["ess*/Debug*", "meter0/*"], allowed=["ess*/*", "meter*/*"])
        self.assertEqual(
            [True, False, False, True, False],
            [
                channels.valid(text)
                for text in ("ess0/Soc", "ess0/DebugPower", "meter0/Power", "meter1/Power", "_sum/EssSoc")
            ],
        )


class PlausibilityTests(SynchronousTestCase):
    def rows(self, plausibility: Plausibility, row: dict[str, Any], kind: DataKind = DataKind.TIMESTAMPED) -> Row:
        return plausibility.rows("edge0", kind, {NOW: row}, NOW).get(NOW, {})

    def test_good_rows_are_not_copied(self) -> None:
        plausibility = Plausibility()
        row: Row = {"ess0/Soc": 1, "ess0/Power": 2.5}
        self.rows(plausibility, row)
        self.assertIs(row, self.rows(plausibility, row))

    def test_bad_values_cost_only_themselves(self) -> None:
        plausibility = Plausibility(max_channels=12)
        good = self.rows(
            plausibility,
            {
                "a0/Nan": float("nan"),
                "a0/Inf": float("-inf"),
                "a0/Huge": 10**18,
                "a0/List": [1],
                "a0/Null": None,
                "a0/Broken": "\ud800",
                "a0/Zero": "a\0b",
                "a0/Long": "x" * 5000,
                "noaddress": 1,
                "a0/\udfff": 1,
                "a0/line\nbreak": 1,
                "a0/Ok": 1,
                "a0/Text": "yes",
                "a0/Bool": True,
                **{f"a0/C{n}": n for n in range(10)},
            },
        )
        self.assertEqual({"a0/Ok": 1, "a0/Text": "yes", "a0/Bool": 1, "a0/C0": 0, "a0/C1": 1}, good)
        self.assertEqual({"number": 3, "type": 1, "text": 3, "address": 3, "channels": 8}, plausibility.dropped)
        self.assertEqual(("edge0", "a0/Nan"), plausibility.first_dropped["number"])

    def test_times(self) -> None:
        plausibility = Plausibility()
        times = (0, MIN_TIME - 1, MIN_TIME, NOW, NOW + FUTURE, NOW + FUTURE + 1)
        rows = plausibility.rows("edge0", DataKind.RESEND, {time: {"a0/B": 1} for time in times}, NOW)
        self.assertEqual([MIN_TIME, NOW, NOW + FUTURE], list(rows))
        self.assertEqual({"time": 3}, plausibility.dropped)
        bounded = Plausibility(earliest=NOW - 10, latest=NOW)
        rows = bounded.rows("edge0", DataKind.RESEND, {NOW + n: {"a0/B": 1} for n in (-11, -10, 0, 1)}, NOW)
        self.assertEqual([NOW - 10, NOW], list(rows))

    def test_timedata_5_2_aggregated_only_for_other_channels(self) -> None:
        plausibility = Plausibility()
        self.assertEqual({"a0/B": 1}, self.rows(plausibility, {"a0/B": 1}, DataKind.AGGREGATED))
        self.rows(plausibility, {"a0/B": None})
        self.assertEqual({"a0/C": 2}, self.rows(plausibility, {"a0/B": 1, "a0/C": 2}, DataKind.AGGREGATED))
        self.assertEqual({"a0/B": 1}, self.rows(plausibility, {"a0/B": 1}, DataKind.RESEND))

    def test_channels_of_one_notification_are_bounded(self) -> None:
        plausibility = Plausibility(max_channels=3)
        rows: dict[int, Row] = {NOW + n: {"a0/A": n, f"a0/C{n}": n} for n in range(5)}
        found = plausibility.rows("edge0", DataKind.TIMESTAMPED, rows, NOW)
        self.assertEqual([2, 2, 1, 1, 1], [len(row) for row in found.values()])
        self.assertEqual({"channels": 3}, plausibility.dropped)
        # Those that are known go on.
        found = plausibility.rows("edge0", DataKind.TIMESTAMPED, rows, NOW)
        self.assertEqual([2, 2, 1, 1, 1], [len(row) for row in found.values()])

    def test_edges_are_bounded(self) -> None:
        plausibility = Plausibility(max_edges=2)
        row: dict[int, Row] = {NOW: {"a0/B": 1}}
        kept = [bool(plausibility.rows(edge, DataKind.RESEND, row, NOW)) for edge in ("a", "b", "c", "a", "", "\ud800")]
        self.assertEqual([True, True, False, True, False, False], kept)
        self.assertEqual({"edge": 3}, plausibility.dropped)
