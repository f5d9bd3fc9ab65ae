"""The methods other systems may call, as types (b2b.md 4): what the OpenAPI document is made of.

The request handler reads more leniently (numbers as text); these types say what to send.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

EdgeId = Annotated[str, Meta(description="Id of an edge.", examples=["edge0"])]
Channel = Annotated[
    str,
    Meta(description="Channel address, `<component>/<channel>`.", examples=["_sum/EssSoc"], max_length=255),
]
Id = Annotated[
    str,
    Meta(
        description="UUID of the request; the reply carries it. Made up where it is missing.",
        pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
        examples=["b8ad3f7e-5b17-4c8e-9d55-0e2f2a6f8e01"],
    ),
]
Value = Annotated[
    int | float | str | bool | None,
    Meta(description="Null: no such channel, or the edge is not connected."),
]


class _Wire(msgspec.Struct, rename="camel", kw_only=True):
    pass


class GetEdgesStatusParams(_Wire):
    edge_ids: list[EdgeId]


class EdgeStatus(_Wire):
    online: bool


class GetEdgesChannelsValuesParams(_Wire):
    ids: list[EdgeId]
    channels: list[Channel]


class ScheduleEntry(_Wire):
    start_timestamp: Annotated[int, Meta(description="Epoch seconds.", ge=-(2**63), le=2**63 - 1)]
    duration: Annotated[int, Meta(description="Seconds.", ge=-(2**31), le=2**31 - 1)]
    active_power_set_point: Annotated[
        int, Meta(description="Watts at the grid connection; negative: feed in.", ge=-(2**31), le=2**31 - 1)
    ]


class SetGridConnScheduleParams(_Wire):
    id: EdgeId
    schedule: list[ScheduleEntry]


class Payload(_Wire):
    """A request to the edge, or one that is answered for it from history."""

    method: str
    params: dict[str, Any]
    jsonrpc: Annotated[Any, Meta(description="2.0; not judged.", examples=["2.0"])] = UNSET
    id: Id | UnsetType = UNSET


class EdgeRpcParams(_Wire):
    edge_id: EdgeId
    payload: Payload


class Reply(_Wire):
    jsonrpc: Literal["2.0"]
    id: Id
    result: dict[str, Any]


class EdgeRpcResult(_Wire):
    payload: Reply


class Error(_Wire):
    code: Annotated[int, Meta(description="OpenEMS error code; 1: no named error.")]
    message: str
    data: Annotated[list[Any], Meta(description="The parts the message was made of.")]


class ErrorReply(_Wire):
    """`id` is the request's, or the nil UUID where it is not known."""

    jsonrpc: Literal["2.0"]
    id: Id
    error: Error


class Method(msgspec.Struct, frozen=True):
    """``role``: what the user needs on each edge; ``example``: params, and what may come back."""

    name: str
    summary: str
    role: str
    params: type
    result: Any
    example: dict[str, Any]
    example_result: dict[str, Any]


METHODS = (
    Method(
        "getEdgesStatus",
        "Which edges are online. Edges that do not exist are left out.",
        "GUEST",
        GetEdgesStatusParams,
        dict[str, EdgeStatus],
        {"edgeIds": ["edge0"]},
        {"edge0": {"online": True}},
    ),
    Method(
        "getEdgesChannelsValues",
        "Current values: every channel of every edge.",
        "GUEST",
        GetEdgesChannelsValuesParams,
        dict[str, dict[str, Value]],
        {"ids": ["edge0"], "channels": ["_sum/EssSoc", "_sum/GridActivePower"]},
        {"edge0": {"_sum/EssSoc": 61, "_sum/GridActivePower": -240}},
    ),
    Method(
        "setGridConnSchedule",
        "Schedule for the power at the grid connection; the edge needs a component `ctrlBalancingSchedule0`.",
        "ADMIN",
        SetGridConnScheduleParams,
        Reply,
        {"id": "edge0", "schedule": [{"startTimestamp": 1775023200, "duration": 900, "activePowerSetPoint": 0}]},
        {"jsonrpc": "2.0", "id": "c1a7f7a4-54b0-4e0e-8e63-0c3b2f7a9d44", "result": {}},
    ),
    Method(
        "edgeRpc",
        "A request to one edge, or a query of its history.",
        "GUEST, and what the edge requires",
        EdgeRpcParams,
        EdgeRpcResult,
        {
            "edgeId": "edge0",
            "payload": {
                "method": "queryHistoricTimeseriesEnergy",
                "params": {
                    "timezone": "Europe/Vienna",
                    "fromDate": "2026-03-30",
                    "toDate": "2026-03-31",
                    "channels": ["_sum/GridBuyActiveEnergy"],
                },
            },
        },
        {
            "payload": {
                "jsonrpc": "2.0",
                "id": "9b1f0a77-3f7e-4a83-8a5d-3b1d2c4e5f05",
                "result": {"data": {"_sum/GridBuyActiveEnergy": 18450}},
            }
        },
    ),
)
NAMES = frozenset(method.name for method in METHODS)


def label(method: str) -> str:
    """A method's name for metrics, out of a closed set."""
    return method if method in NAMES or method == "subscribeEdgesChannels" else "other"
