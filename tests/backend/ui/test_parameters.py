from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.models import OrderItem, PageRequest, SetupProtocolCoreInfo
from openems.backend.ui import parameters
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Members
from openems.common.role import Level

USER: dict[str, Any] = {
    "firstname": "Jan",
    "lastname": "Meyer",
    "phone": "+49 991 123",
    "email": "jan@example.org",
    "password": "geheim",
    "confirmPassword": "geheim",
    "address": {"street": "Main St 1", "zip": "94469", "city": "Deggendorf", "country": "de"},
    "role": "Installer",
    "company": {"name": "Meyer GmbH"},
}


class PageRequestTest(SynchronousTestCase):
    """ui.md 20 T5"""

    def refused(self, params: dict[str, Any]) -> tuple[int, str, list[Any]]:
        error = self.assertRaises(OpenemsError, parameters.page_request, Members(params))
        return error.code, error.message, error.data

    def test_page_and_limit(self) -> None:
        self.assertEqual(parameters.page_request(Members({"page": 3, "limit": 19})), PageRequest(page=3, limit=19))
        self.assertEqual(parameters.page_request(Members({"page": 0})), PageRequest(page=0))

    def test_search(self) -> None:
        params = {"page": 0, "limit": 20, "searchParams": {"isOnline": True}}
        self.assertEqual(parameters.page_request(Members(params)), PageRequest(page=0, is_online=True))
        params = {
            "page": 0,
            "query": "doe",
            "searchParams": {
                "producttype": ["home"],
                "sumState": ["ok", "Fault"],
                "orderState": [{"field": "id", "sortOrder": "ASC"}, {"field": "comment", "sortOrder": "desc"}],
            },
        }
        self.assertEqual(
            parameters.page_request(Members(params)),
            PageRequest(
                page=0,
                query="doe",
                producttype=["home"],
                sum_state=[Level.OK, Level.FAULT],
                order=[OrderItem("id"), OrderItem("comment", True)],
            ),
        )
        self.assertEqual(parameters.page_request(Members({"page": 0, "searchParams": {}})), PageRequest(page=0))

    def test_limit_out_of_range(self) -> None:
        text = "Limit is not in range [1:100]"
        for limit in (0, 101, -1):
            self.assertEqual(self.refused({"page": 0, "limit": limit}), (1, text, [text]))

    def test_page_is_required(self) -> None:
        self.assertEqual(self.refused({}), (5001, "JSON [page:{}] is not an Integer", ["page", "{}"]))

    def test_unknown_names(self) -> None:
        for search in (
            {"sumState": ["bad"]},
            {"orderState": [{"field": "id", "sortOrder": "up"}]},
            {"orderState": [3]},
            {"producttype": [3]},
            {"sumState": "ok"},
        ):
            self.refused({"page": 0, "searchParams": search})


class RegistrationTest(SynchronousTestCase):
    """ui.md 6"""

    def test_record(self) -> None:
        record = parameters.registration_record(USER)
        self.assertEqual(record["role"], "INSTALLER")
        self.assertEqual(record["company"], {"name": "Meyer GmbH"})
        self.assertIs(record["includePasswordInRegistrationEmail"], False)
        self.assertNotIn("confirmPassword", record)

    def test_each_missing_member_is_named_and_no_password_is_shown(self) -> None:
        for name in ("firstname", "lastname", "phone", "email", "address", "role"):
            for bad in ({}, {name: None}, {name: 5}):
                user = {key: value for key, value in USER.items() if key != name} | bad
                error = self.assertRaises(OpenemsError, parameters.registration_record, user)
                self.assertEqual(error.code, 1)
                self.assertIn(f"[{name}]", error.message)
                self.assertNotIn("geheim", error.message)
        for name in ("street", "zip", "city", "country"):
            address = {key: value for key, value in USER["address"].items() if key != name}
            error = self.assertRaises(OpenemsError, parameters.registration_record, {**USER, "address": address})
            self.assertIn(f"Member [{name}] was not part of", error.message)

    def test_unknown_role(self) -> None:
        error = self.assertRaises(OpenemsError, parameters.registration_record, {**USER, "role": "foo"})
        self.assertEqual(error.code, 1)

    def test_too_long(self) -> None:
        self.assertRaises(OpenemsError, parameters.registration_record, {**USER, "firstname": "x" * 256})


class AlertingTest(SynchronousTestCase):
    """ui.md 20 T17"""

    def test_integer_as_text(self) -> None:
        record = {"userLogin": "a", "offlineEdgeDelay": "15", "faultEdgeDelay": 0, "warningEdgeDelay": -1}
        (settings,) = parameters.alerting_settings(Members({"edgeId": "edge0", "userSettings": [record]}))
        self.assertEqual((settings.offline_delay, settings.fault_delay, settings.warning_delay), (15, 0, 0))

    def test_missing_member(self) -> None:
        record = {"userLogin": "a", "offlineEdgeDelay": 15, "faultEdgeDelay": 0}
        members = Members({"edgeId": "edge0", "userSettings": [record]})
        error = self.assertRaises(OpenemsError, parameters.alerting_settings, members)
        self.assertEqual(error.code, 5016)
        self.assertEqual(error.data[0], "Error parsing SetUserAlertingConfigsRequest")
        self.assertIn("warningEdgeDelay", error.data[1])


class TimeTest(SynchronousTestCase):
    def test_t18_three_digits(self) -> None:
        """ui.md 20 T18, 15.9"""
        for text, right in {
            "2026-04-01T10:15:30.120+02:00": "2026-04-01T10:15:30.120+02:00",
            "2026-04-01T10:15:30.12+02:00": "2026-04-01T10:15:30.120+02:00",
            "2026-04-01T10:15:30+02:00": "2026-04-01T10:15:30.000+02:00",
            "2026-04-01T10:15:30Z": "2026-04-01T10:15:30.000Z",
            "2026-04-01T10:15Z": "2026-04-01T10:15:00.000Z",
            "2026-04-01T10:15:30.123456789-03:30": "2026-04-01T10:15:30.123-03:30",
            "yesterday": "yesterday",
        }.items():
            self.assertEqual(parameters.with_milliseconds(text), right)

    @given(st.text(max_size=50))
    def test_any_text(self, text: str) -> None:
        once = parameters.with_milliseconds(text)
        self.assertEqual(parameters.with_milliseconds(once), once)


class CoreInfoTest(SynchronousTestCase):
    def test_shapes(self) -> None:
        """ui.md 9"""
        info = SetupProtocolCoreInfo(4711, 1_772_357_400_000, "SETUP_PROTOCOL")
        self.assertEqual(
            parameters.core_info_json(info),
            {"setupProtocolId": 4711, "createDate": "2026-03-01T09:30:00Z", "setupProtocolType": "SETUP_PROTOCOL"},
        )
        self.assertEqual(
            parameters.core_info_json(SetupProtocolCoreInfo(1, None, None)),
            {"setupProtocolId": 1, "setupProtocolType": None},
        )


class LogMessageTest(SynchronousTestCase):
    def test_one_line_bounded(self) -> None:
        level, text = parameters.log_message(Members({"level": "Error", "msg": "a\nb\x1b[31m" + "x" * 5_000}))
        self.assertEqual(level, "ERROR")
        self.assertEqual(text[:8], "a b [31m")
        self.assertEqual(len(text), 1_000)

    def test_unknown_level(self) -> None:
        self.assertRaises(OpenemsError, parameters.log_message, Members({"level": "loud", "msg": ""}))
