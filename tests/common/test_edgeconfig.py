"""EdgeConfig and its difference: wire.md 9.5, reality.md R4."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common import jsonrpc
from openems.common.edgeconfig import EMPTY_CONFIG, EdgeConfig, as_html, as_text, diff, same


def config(**components: tuple[str, dict[str, Any]]) -> EdgeConfig:
    return EdgeConfig(
        jsonrpc.raw(
            {
                "components": {
                    name: {"alias": name, "factoryId": factory, "properties": properties}
                    for name, (factory, properties) in components.items()
                },
                "factories": {},
            }
        )
    )


NEW = config(
    ctrl0=(
        "Controller.X",
        {
            "enabled": True,
            "limit": 10,
            "id": "ctrl0",
            "_lastChangeBy": "bob",
            "_lastChangeAt": "2026-04-01T10:00:00",
            "longvalue": "abcdefghijklmnopqrstuvwxyz",
            "arr": [1, 2],
        },
    ),
    meter0=("Meter.Y", {"ip": "10.0.0.1"}),
    same0=("", {"x": 5.0}),
)
OLD = config(
    ctrl0=("Controller.X", {"enabled": True, "limit": 5, "gone": 1}),
    old0=("Old", {"a": None, "b": "<b>"}),
    same0=("", {"x": 5}),
)


class Differences(SynchronousTestCase):
    def test_text(self) -> None:
        self.assertEqual(
            as_text(diff(NEW, OLD)),
            'Updated ctrl0 (Controller.X): arr=[1,2] [was:null], limit=10 [was:5], longvalue="abcdefghijklmnop... '
            "[was:null]\n"
            'Created meter0 (Meter.Y): ip="10.0.0.1"\n'
            'Deleted old0 (Old): a [was:null], b [was:"<b>"]\n',
        )

    def test_html_is_escaped(self) -> None:
        text = as_html(diff(NEW, OLD))
        self.assertNotIn("<b>", text)
        self.assertIn("&lt;b&gt;", text)
        self.assertTrue(text.startswith('<table border="1">'))

    def test_empty(self) -> None:
        self.assertEqual(diff(EdgeConfig(EMPTY_CONFIG), EdgeConfig(EMPTY_CONFIG)), [])
        changed = diff(config(foo0=("Component.Foo", {"ip": None})), EdgeConfig(EMPTY_CONFIG))
        self.assertEqual([(c.kind, c.component_id) for c in changed], [("Created", "foo0")])

    def test_a_value_and_its_text_are_the_same(self) -> None:
        for one, other, equal in (
            (1000, "1000", True),
            (True, "true", True),
            ([], "[]", True),
            ("x", "x", True),
            (1, True, False),
            (1, "2", False),
            ("a", None, False),
            (5, 5.0, True),
        ):
            self.assertIs(same(one, other), equal, (one, other))
            self.assertIs(same(other, one), equal, (other, one))

    @given(
        st.binary(max_size=60)
        | st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["components", "factories", "properties", "natureIds", "alias", "x"]),
                    inner,
                    max_size=3,
                )
            ),
        ).map(jsonrpc.dumps)
    )
    def test_any_bytes_are_a_configuration(self, data: bytes) -> None:
        read = EdgeConfig(data)
        self.assertEqual(diff(read, read), [])
