from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common.channel import component_id, is_component_id


class ComponentIds(SynchronousTestCase):
    @given(st.text(max_size=30))
    def test_any_name_becomes_one(self, name: str) -> None:
        self.assertTrue(is_component_id(component_id(name)), component_id(name))

    @given(st.from_regex(r"[a-z][a-zA-Z0-9]*[0-9]", fullmatch=True))
    def test_one_that_is_fine_stays(self, name: str) -> None:
        self.assertEqual(name, component_id(name))
