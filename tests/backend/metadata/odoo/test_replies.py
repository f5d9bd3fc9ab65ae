"""What Odoo answers: sessions, errors, XML-RPC values (metadata-odoo.md 7, 8, 16, 20)."""

from __future__ import annotations

import xmlrpc.client

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata.odoo import replies, times
from openems.backend.metadata.odoo.mailer import mails_sent
from openems.backend.metadata.odoo.protocols import comment_of
from openems.backend.metadata.odoo.replies import decode_reply, encode_call, many2one, result_of, session_id
from openems.common.errors import OpenemsError


class Sessions(SynchronousTestCase):
    def test_cookie(self) -> None:
        """20, T077, Q30."""
        for cookies, wanted in (
            (["session_id=abc123; Path=/; HttpOnly"], "abc123"),
            (["session_id=abc123;Path=/"], "abc123"),
            (["frontend_lang=en_US; Path=/", "session_id=abc123; Max-Age=7776000"], "abc123"),
            (["session_id=" + "aB_-" * 21], "aB_-" * 21),
            (["session_id=; Path=/"], None),
            (["session_id=a=b; Path=/"], None),
            (["frontend_lang=en_US; Path=/"], None),
            (["xsession_id=abc123"], None),
            (["session_id=a\r\nb123456"], None),
            ([], None),
        ):
            self.assertEqual(session_id(cookies), wanted, cookies)
        self.assertEqual(session_id([], {"session_id": "abc123"}), "abc123")


class Errors(SynchronousTestCase):
    def error(self, name: str, message: str = "text", code: int = 200) -> OpenemsError:
        data = {"name": name, "message": message, "debug": "Traceback", "arguments": []}
        try:
            result_of({"error": {"code": code, "message": "m", "data": data}}, "/route")
        except OpenemsError as e:
            return e
        raise AssertionError

    def test_results(self) -> None:
        self.assertEqual(result_of({"result": [1]}, "/r"), [1])
        self.assertEqual(result_of({"jsonrpc": "2.0", "id": None}, "/r"), {})

    def test_kinds(self) -> None:
        """16."""
        self.assertEqual(self.error("odoo.exceptions.AccessDenied", "Access Denied").code, 1003)
        cool = self.error("odoo.exceptions.AccessDenied", "Too many login failures, please wait a bit before")
        self.assertIsInstance(cool, replies.OdooUnavailable)
        self.assertIsInstance(self.error("odoo.http.SessionExpiredException", code=100), replies.SessionExpired)
        self.assertIsInstance(self.error("werkzeug.exceptions.NotFound", code=404), replies.RouteMissing)
        self.assertEqual(self.error("x.y.OpenemsException", "Edge not found").message, "Edge not found")
        for name in ("psycopg2.OperationalError", "odoo.sql_db.PoolError"):
            self.assertIsInstance(self.error(name), replies.OdooUnavailable)
        text = self.error("builtins.ValueError", "Traceback\n  File x\nValueError: bad value").message
        self.assertEqual(text, "Odoo failed in /route: bad value")

    def test_odd_errors(self) -> None:
        for error in (None, 7, {}, {"code": "x"}, {"code": 1, "message": "m", "data": 3}):
            with self.assertRaises(OpenemsError):
                result_of({"error": error}, "/r")


class XmlRpc(SynchronousTestCase):
    def test_call(self) -> None:
        """8: nil for absent options, no type that Odoo would not understand."""
        body = encode_call(("prod", 2, "pw", "openems.device", "write", [[42], {"a": True, "b": None}], None))
        parameters, method = xmlrpc.client.loads(body)
        self.assertEqual(method, "execute_kw")
        self.assertEqual(parameters[5:], ([[42], {"a": True, "b": None}], None))
        for value in (1 << 40, object()):
            with self.assertRaises(OpenemsError):
                encode_call((value,))

    def test_fault(self) -> None:
        fault = xmlrpc.client.dumps(
            xmlrpc.client.Fault(1, "Traceback (most recent call last):\n  File x\nKeyError: 'b'")
        )
        with self.assertRaises(replies.Fault) as caught:
            decode_reply(fault.encode(), "Unable to write to Odoo")
        self.assertEqual(caught.exception.message, "Unable to write to Odoo: 'b' [1]")

    def test_nil(self) -> None:
        body = xmlrpc.client.dumps((None,), methodresponse=True, allow_none=True).encode()
        self.assertIsNone(decode_reply(body, "x"))

    @given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
    @example(
        b"<methodResponse><params><param><value><bigdecimal>-</bigdecimal></value></param></params></methodResponse>"
    )
    def test_rubbish(self, body: bytes) -> None:
        with self.assertRaises(OpenemsError):
            decode_reply(body, "x")

    def test_entities(self) -> None:
        """Ten levels of ten: refused at once, not written out."""
        levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11))
        head = f'<!DOCTYPE x [<!ENTITY l0 "{"x" * 100}">{levels}]>'
        body = "<methodResponse><params><param><value>&l10;</value></param></params></methodResponse>"
        with self.assertRaises(OpenemsError):
            decode_reply((head + body).encode(), "x")

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
    def test_many2one(self, value: object) -> None:
        found = many2one(value)
        self.assertTrue(found is None or type(found) is int)


class Values(SynchronousTestCase):
    def test_times(self) -> None:
        """20."""
        self.assertEqual(times.odoo_time(964648460000), "2000-07-26 21:54:20")
        for value in (None, False, "Not a valid date", 7):
            self.assertIsNone(times.milliseconds(value))
        self.assertEqual(times.milliseconds("2020-01-01 10:10:10"), 1577873410000)

    def test_mail_replies(self) -> None:
        """20."""
        for answer, wanted in (({"status": "success", "mails_sent": 2}, 2), ({"status": "success"}, 0), ({}, 3)):
            self.assertEqual(mails_sent(answer, "t", 3), wanted)
        for answer, text in (
            ({"status": "error", "message": "No recipients"}, ": No recipients"),
            ({"status": "error"}, ": Failed to send mail!"),
        ):
            with self.assertRaises(OpenemsError) as caught:
                mails_sent(answer, "t", 3)
            self.assertTrue(caught.exception.message.endswith(text))

    def test_comment(self) -> None:
        """20."""
        address = {"city": "Deggendorf"}
        for customer, wanted in (
            ({"firstname": "Max", "lastname": "Muster", "address": address}, "Max Muster, Deggendorf"),
            ({"lastname": "Muster"}, "Muster"),
            ({"address": address}, "Deggendorf"),
            ({}, ""),
        ):
            self.assertEqual(comment_of(customer), wanted)
