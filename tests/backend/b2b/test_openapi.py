from __future__ import annotations

import json

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b.methods import METHODS, label
from openems.backend.b2b.openapi import document
from tests.backend.b2b.http import RestWorld


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

    def test_labels(self) -> None:
        self.assertEqual(label("edgeRpc"), "edgeRpc")
        self.assertEqual(label("subscribeEdgesChannels"), "subscribeEdgesChannels")
        self.assertEqual(label("x" * 1000), "other")
