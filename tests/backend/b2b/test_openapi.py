from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b.methods import METHODS, label
from openems.backend.b2b.openapi import document, page
from tests.backend.b2b.http import RestWorld


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


class OpenApiTest(SynchronousTestCase):
    def test_references(self) -> None:
        made = document("1.0")
        text = json.dumps(made)
        names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
        self.assertEqual(names - set(made["components"]["schemas"]), set())

    def test_examples_fit_the_types(self) -> None:
        for method in METHODS:
            msgspec.convert(method.example, method.params)
            msgspec.convert(method.example_result, method.result)

    def test_examples_are_served(self) -> None:
        """Every request of the document is one that the server knows, and reads as it is meant."""
        world = RestWorld()
        world.metadata.set_keys({"0": "edge0"})
        world.metadata.roles["edge0"] = next(iter(world.metadata.roles.values()))
        world.edges.connected.add("edge0")
        world.timedata.data["_sum/GridBuyActiveEnergy"] = {0: 18450}
        examples = document("1.0")["paths"]["/jsonrpc"]["post"]["requestBody"]["content"]["application/json"][
            "examples"
        ]
        self.assertEqual(list(examples), [method.name for method in METHODS])
        for method in METHODS:
            reply = world.ask(examples[method.name]["value"])
            self.assertEqual(reply.status, 200, reply.body)
            msgspec.convert(reply.json["result"], method.result)

    def test_every_status_is_told(self) -> None:
        responses = document("1.0")["paths"]["/jsonrpc"]["post"]["responses"]
        self.assertEqual(
            sorted(responses), ["200", "400", "401", "403", "408", "413", "415", "429", "500", "503", "504"]
        )

    def test_page(self) -> None:
        parser = _Page()
        parser.feed(page("<1.0>").decode())
        self.assertEqual(parser.links, ["openapi.json"])
        self.assertNotIn("script", parser.tags)
        self.assertIn("<1.0>", parser.text)
        self.assertIn("timeout: Seconds, at most 3600", parser.text)
        self.assertIn("payload.jsonrpcany, optional", parser.text)
        for word in ("getEdgesStatus", "schedule[].activePowerSetPoint", "payload.method", "GET /live"):
            self.assertIn(word, parser.text)

    def test_labels(self) -> None:
        self.assertEqual(label("edgeRpc"), "edgeRpc")
        self.assertEqual(label("subscribeEdgesChannels"), "subscribeEdgesChannels")
        self.assertEqual(label("x" * 1000), "other")
