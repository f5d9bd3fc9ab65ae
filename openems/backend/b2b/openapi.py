"""The OpenAPI document of the REST server, made of :mod:`openems.backend.b2b.methods`. Pure."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from openems.backend.b2b.methods import METHODS, ErrorReply, Method

_REF = "#/components/schemas/{name}"
_ERRORS = {
    400: "The request is wrong, or it failed: the error tells.",
    401: "No credentials, or wrong ones.",
    403: "A browser sent it for a page of another site.",
    408: "The request did not arrive in time.",
    413: "The body is too long.",
    415: "The body is no JSON in UTF-8.",
    429: "Too many logins or requests; `Retry-After` tells when to try again.",
    500: "Unforeseen failure.",
    503: "Not ready, or overloaded; `Retry-After` tells when to try again.",
    504: "No answer within the request's `timeout`, else 60 s.",
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_UUID = "b8ad3f7e-5b17-4c8e-9d55-0e2f2a6f8e01"


@cache
def document(version: str) -> dict[str, Any]:
    """OpenAPI 3.1."""
    types = [t for method in METHODS for t in (method.params, method.result)]
    schemas, components = msgspec.json.schema_components([*types, ErrorReply], ref_template=_REF)
    for number, method in enumerate(METHODS):
        components.update(_schemas(method, schemas[2 * number], schemas[2 * number + 1]))
    request = {
        "oneOf": [{"$ref": _REF.format(name=_request_name(method))} for method in METHODS],
        "discriminator": {
            "propertyName": "method",
            "mapping": {method.name: _REF.format(name=_request_name(method)) for method in METHODS},
        },
    }
    reply = {"anyOf": [{"$ref": _REF.format(name=_reply_name(method))} for method in METHODS]}
    responses: dict[str, Any] = {
        "200": {
            "description": "The request's result.",
            "content": _json(reply, {m.name: _reply(m) for m in METHODS}),
        }
    }
    for status, text in _ERRORS.items():
        headers = _CHALLENGE if status == 401 else _RETRY if status in (429, 503) else None
        responses[str(status)] = _error(text, headers)
    live = {
        "type": "object",
        "properties": {"status": {"const": "ok"}},
        "required": ["status"],
        "additionalProperties": False,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenEMS Backend to Backend",
            "version": version,
            "description": "JSON-RPC over HTTP for other systems. `jsonrpc` and `id` may be left out.",
        },
        # Where this document is: a proxy may add a path before.
        "servers": [{"url": "."}],
        "paths": {
            "/jsonrpc": {
                "post": {
                    "operationId": "jsonrpc",
                    "summary": "One JSON-RPC request",
                    "description": "\n".join(f"- `{m.name}`: {m.summary} Role: {m.role}." for m in METHODS),
                    "security": [{"basic": []}],
                    "requestBody": {
                        "required": True,
                        "content": _json(request, {m.name: _request(m) for m in METHODS}),
                    },
                    "responses": responses,
                }
            },
            "/live": {
                "get": {
                    "operationId": "live",
                    "summary": "The process answers",
                    "security": [],
                    "responses": {"200": {"description": "It does.", "content": _json(live)}},
                }
            },
            "/openapi.json": {
                "get": {
                    "operationId": "openapi",
                    "summary": "This document",
                    "security": [],
                    "responses": {"200": {"description": "OpenAPI 3.1.", "content": _json({"type": "object"})}},
                }
            },
            "/docs": {
                "get": {
                    "operationId": "docs",
                    "summary": "This document as a page",
                    "security": [],
                    "responses": {
                        "200": {"description": "HTML.", "content": {"text/html": {"schema": {"type": "string"}}}}
                    },
                }
            },
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
    }


def _schemas(method: Method, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    envelope = {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
    }
    return {
        _request_name(method): {
            "type": "object",
            "description": f"{method.summary} Role: {method.role}.",
            "required": ["method", "params"],
            "properties": {
                **envelope,
                "jsonrpc": {"description": "2.0; not judged.", "examples": ["2.0"]},
                "method": {"const": method.name},
                "params": params,
                "timeout": {
                    "type": ["integer", "null"],
                    "minimum": -(2**31),
                    "maximum": 2**31 - 1,
                    "description": "Seconds, at most 3600; without it, or not above 0: 60.",
                },
            },
        },
        _reply_name(method): {
            "type": "object",
            "required": ["jsonrpc", "id", "result"],
            "properties": {**envelope, "result": result},
            "additionalProperties": False,
        },
    }


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


def _error(description: str, headers: dict[str, Any] | None) -> dict[str, Any]:
    response = {"description": description, "content": _json({"$ref": _REF.format(name="ErrorReply")})}
    return {**response, "headers": headers} if headers else response


def _request(method: Method) -> dict[str, Any]:
    return {"method": method.name, "params": method.example}


def _reply(method: Method) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": _UUID, "result": method.example_result}


def _request_name(method: Method) -> str:
    return f"{method.name[0].upper()}{method.name[1:]}Request"


def _reply_name(method: Method) -> str:
    return f"{method.name[0].upper()}{method.name[1:]}Reply"
