from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.events import EventBus
from openems.backend.metadata.page import natural_key, page
from openems.backend.models import Edge, OrderItem, PageRequest
from openems.common.role import Level, Role

_STATES = "INFO WARNING FAULT WARNING INFO OK OK WARNING".split()


def _edges() -> list[tuple[Edge, Role]]:
    bus = EventBus()
    return [
        (Edge(f"edge{n}", bus, comment=f"Edge #{n}", sum_state=Level[_STATES[n - 1]]), Role.ADMIN)
        for n in (5, 4, 7, 6, 3, 1, 8, 2)
    ]


def _ids(request: PageRequest, edges: list[tuple[Edge, Role]] | None = None) -> str:
    return " ".join(shape["id"].removeprefix("edge") for shape in page(edges or _edges(), request))


def _order(*items: tuple[str, bool]) -> PageRequest:
    return PageRequest(page=0, limit=10, order=[OrderItem(field, descending) for field, descending in items])


class TestOrder(SynchronousTestCase):
    """ui.md T6, metadata.md 23.1."""

    def test_t6(self) -> None:
        up, down = "1 2 3 4 5 6 7 8", "8 7 6 5 4 3 2 1"
        for field in ("id", "comment"):
            self.assertEqual(_ids(_order((field, False))), up)
            self.assertEqual(_ids(_order((field, True))), down)
        self.assertEqual(_ids(_order(("sumState", False), ("id", False))), "6 7 1 5 2 4 8 3")
        self.assertEqual(_ids(_order(("sumState", True), ("id", False))), "3 2 4 8 1 5 6 7")

    def test_always_defined(self) -> None:
        for request in (PageRequest(page=0), _order(), _order(("nonsense", True))):
            self.assertEqual(_ids(request), "1 2 3 4 5 6 7 8")
        self.assertEqual(_ids(_order(("sumState", True))), "3 2 4 8 1 5 6 7")

    def test_shape(self) -> None:
        (shape,) = page(_edges(), PageRequest(page=0, limit=1))
        self.assertEqual(
            shape,
            {
                "id": "edge1",
                "comment": "Edge #1",
                "producttype": "",
                "version": "0.0.0",
                "role": "admin",
                "isOnline": False,
                "sumState": "INFO",
            },
        )

    def test_pages_23_4(self) -> None:
        edges = [(Edge(edge_id, EventBus()), Role.GUEST) for edge_id in ("edge0", "edge1", "edge10", "edge2")]
        pages = [
            [shape["id"] for shape in page(edges, PageRequest(page=number, limit=1))] for number in (-1, 1, 2, 3, 4)
        ]
        self.assertEqual(pages, [[], ["edge1"], ["edge2"], ["edge10"], []])

    def test_natural_key_takes_any_text(self) -> None:
        texts = ["a", "a1", "A1", "1", "", "1a", "a01", "9" * 5000, "edge", "edge2", "edge10"]
        texts.sort(key=natural_key)
        self.assertLess(texts.index("edge2"), texts.index("edge10"))


class TestFilter(SynchronousTestCase):
    def filtered(self, **members: Any) -> str:
        edges = _edges()
        edges[0][0].set_online(True)  # edge5
        edges[1][0].set_producttype("Home 10")  # edge4
        edges.append((Edge("x9", EventBus(), comment="Tal, GRAZ"), Role.OWNER))
        return _ids(PageRequest(page=0, **members), edges)

    def test_sum_state(self) -> None:
        self.assertEqual(self.filtered(sum_state=[Level.FAULT, Level.INFO]), "1 3 5")
        self.assertEqual(self.filtered(sum_state=[Level.OK]), "6 7 x9")  # unknown counts as OK
        self.assertEqual(len(self.filtered(sum_state=[]).split()), 9)

    def test_others(self) -> None:
        self.assertEqual(self.filtered(is_online=True), "5")
        self.assertEqual(len(self.filtered(is_online=False).split()), 8)
        self.assertEqual(self.filtered(producttype=["Home 10"]), "4")
        self.assertEqual(len(self.filtered(producttype=[]).split()), 9)
        self.assertEqual(self.filtered(query="graz"), "x9")
        self.assertEqual(self.filtered(query="HOME"), "4")
        self.assertEqual(self.filtered(query="EDGE #7"), "7")
        self.assertEqual(len(self.filtered(query="").split()), 9)
