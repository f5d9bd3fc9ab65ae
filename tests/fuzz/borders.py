"""What reads bytes of others, each as a function of bytes that raises :class:`Broken` (or anything else) where a
promise does not hold. Not only "no exception": what was read must be the same when it is written and read again.

To whom more than one text goes, they are separated by a zero byte.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from openems.application import felix
from openems.application.config import BadConfiguration
from openems.backend.b2b import envelope
from openems.backend.edgeapplication import wrapping
from openems.backend.timedata import spoolfile
from openems.common import data, jsonrpc
from openems.common.edgeconfig import EdgeConfig, as_html, as_text, diff
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Failed, Malformed, Members, Notification, Request, Success
from openems.websocket import handshake
from openems.websocket.proxies import TrustedProxies
from tests.fuzz.frames import frames

NOW = 1_764_000_000_000
ID = "84217850-f492-48f3-ac01-e07ef178a59f"
#: Seconds of work: nothing here may keep the reactor longer for an input of a few KB.
LONGEST = 2.0


class Broken(Exception):
    """A promise that did not hold."""


def must(holds: object, text: str, *details: Any) -> None:
    if not holds:
        raise Broken(f"{text} {details!r}"[:2000])


def _utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The result, or None where an OpenemsError says what is wrong; the error itself must be sendable."""
    try:
        return call(*arguments, **named)
    except OpenemsError as e:
        jsonrpc.parse(Failed(ID, e).encode())
        return None


def readers(members: Members) -> None:
    for name in ["id", *list(members.as_dict())[:6]]:
        for reader in (
            members.any,
            members.string,
            members.integer,
            members.boolean,
            members.object,
            members.array,
            members.strings,
            members.primitive,
            members.uuid,
            members.date,
            members.request,
        ):
            _refused(reader, name)
        number = _refused(members.integer, name, bits=64)
        must(number is None or -(2**63) <= number < 2**63, "no long", number)
        found = _refused(members.raw_object, name)
        if found is not None:
            # The rules differ: its own bytes hold a number's text, the decoded one its value.
            must(jsonrpc.raw(Members(found).as_dict()) == jsonrpc.raw(members.object(name)), "another object", found)
        _refused(members.request, name, id_optional=True)
        members.optional_string(name)
        members.optional_integer(name)
        members.optional_boolean(name)


def json_rpc(text: bytes) -> None:
    """As the peer does it: text that is no UTF-8 ends a connection before."""
    if not _utf8(text):
        return
    try:
        message = jsonrpc.parse(text)
    except Malformed as e:
        jsonrpc.parse(Failed(ID, e.reason).encode())
        return
    again = jsonrpc.parse(message.encode())
    must(type(again) is type(message), "another kind", message, again)
    if isinstance(message, Failed):
        must(again.encode() == message.encode(), "another error", message, again)
        return
    must(again == message, "not the same when read again", message, again)
    if isinstance(message, Request | Notification):
        jsonrpc.simplified(message)
        jsonrpc.qualified_method(message)
    members = _refused(message.members)
    if members is not None:
        readers(members)


def rows(text: bytes) -> None:
    try:
        params = jsonrpc.loads(text)
    except ValueError:
        return
    if not isinstance(params, dict):
        return
    found, dropped = data.rows_of(params, NOW)
    must(list(found) == sorted(found), "not in order", found)
    must(all(data.MIN_TIME <= at <= NOW + 3_600_000 for at in found), "a time out of bounds", found)
    must(len(found) + sum(dropped.values()) <= len(params), "more than there was", found, dropped)
    must(set(dropped) <= {"time", "row"}, "an unknown reason", dropped)


def edge_config(text: bytes) -> None:
    new, _, old = text.partition(b"\0")
    one, two = EdgeConfig(new), EdgeConfig(old)
    must(diff(one, EdgeConfig(new)) == [], "different from itself", new)
    for changes in (diff(one, two), diff(two, one), diff(one, EdgeConfig(b"{}"))):
        as_text(changes).encode("utf-8", "replace")
        table = as_html(changes)
        must(table.count("<script") == 0, "not escaped", table)
    for component in one.components.values():
        one.natures(component)
        one.first_of_factory(component.factory_id)


def upgrade(head: bytes) -> None:
    try:
        found = handshake.parse_upgrade(head)
    except handshake.BadHandshake:
        return
    reply = handshake.accept(found, "Wed, 25 Nov 2026 12:00:00 GMT")
    must(reply.count(b"\n") == reply.count(b"\r") == 7, "the reply has other lines than ours", reply)
    proxies(head)
    remote = TrustedProxies().remote(found.headers, "127.0.0.1", 4711)
    must(0 < len(remote) <= 64, "no name for the peer", remote)


def proxies(text: bytes) -> None:
    value = text[: handshake.MAX_HEAD].decode("iso-8859-1")
    trusted = TrustedProxies(("127.0.0.0/8", "::1/128", "10.0.0.0/8"))
    for name in ("forwarded", "x-forwarded-for", "x-real-ip"):
        remote = trusted.remote({name: value}, "127.0.0.1", 4711)
        must(0 < len(remote) <= 64, "no name for the peer", remote)
    value in trusted  # noqa: B015 - any text may be asked for


def wrapped(text: bytes) -> None:
    spliced = wrapping.head("edge0") + text + wrapping.TAIL
    if wrapping.is_plain_notification(text):
        outer = jsonrpc.parse(spliced)
        must(isinstance(outer, Notification), "no notification", outer)
        edge_id, inner = wrapping.notification_for_edge(outer.params)  # type: ignore[union-attr]
        must((edge_id, inner) == ("edge0", text.strip(b" \t\r\n")), "not what was put in", edge_id, inner)
        must(isinstance(jsonrpc.parse(text), Notification), "no notification inside", text)
    if not wrapping.is_message(text):
        return
    message = jsonrpc.parse(text)
    if isinstance(message, Request):
        outer = jsonrpc.parse(wrapping.request("edge0", message, ID))
        must(wrapping.request_for_edge(outer.params) == ("edge0", message), "not the same request", message)  # type: ignore[union-attr]
        longest = wrapping.longest_timeout(message.timeout, message)
        must(longest is None or longest > 0, "no time", longest)
        _refused(wrapping.request_for_edge, message.params)
    if isinstance(message, Notification):
        found = _refused(wrapping.notification_for_edge, message.params)
        must(found is None or isinstance(jsonrpc.parse(found[1]), Notification), "no notification", found)
        _refused(wrapping.apikeys, message)
    if isinstance(message, Success):
        inside = _refused(wrapping.result_of_answer, message.result)
        if inside is not None:
            again = wrapping.result_of_answer(wrapping.answer(ID, inside))
            must(again == inside, "another result", again, inside)


def rest(body: bytes) -> None:
    try:
        request = envelope.parse(body, lambda: ID)
    except envelope.BadEnvelope as e:
        jsonrpc.parse(Failed(e.id, e.error).encode())
        return
    must(_utf8(request.encode()), "passed on without being text", request)
    must(jsonrpc.parse(request.encode()) == request, "not the same when read again", request)


def felix_config(text: bytes) -> None:
    try:
        properties = felix.parse(text.decode("utf-8-sig"), "a.config")
    except (BadConfiguration, UnicodeDecodeError):
        return
    for pid in ("Ui.Websocket", "Timedata.InfluxDB"):
        try:
            felix.convert([felix.Component(pid, "a.config", properties)]).configuration("a.config")
        except BadConfiguration:
            pass


def spool(text: bytes) -> None:
    places, damaged = spoolfile.scan(text)
    end = 0
    for place in places:
        must(place.offset >= end, "records over each other", places)
        end = place.offset + place.length + 24
    must(end <= len(text) and damaged <= len(text), "beyond the end", places)
    for body in (text, zlib.compress(text, 1)):
        try:
            spoolfile.items_of(body)
        except ValueError:
            pass
    # A whole record is found whatever is written before it.
    whole = spoolfile.record(spoolfile.packed([("edge0", data.DataKind.TIMESTAMPED, {NOW: {"a/b": 1}})])[0], 1, NOW)
    found, _ = spoolfile.scan(text + whole)
    must(any(place.offset == len(text) for place in found) or end > len(text), "a record was lost", found)
    try:
        values = msgspec.msgpack.decode(text, type=list[tuple[str, data.DataKind, dict[int, dict[str, Any]]]])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return
    spoolfile.packed(values)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "jsonrpc": json_rpc,
    "rows": rows,
    "edgeconfig": edge_config,
    "handshake": upgrade,
    "proxies": proxies,
    "wrapping": wrapped,
    "rest": rest,
    "felix": felix_config,
    "spool": spool,
    "frames": frames,
}


def run(name: str, text: bytes) -> None:
    """One input to one target."""
    began = time.process_time()
    TARGETS[name](text)
    taken = time.process_time() - began
    must(taken < LONGEST, f"took {taken:.1f} seconds")


__all__ = ["TARGETS", "Broken", "run"]
