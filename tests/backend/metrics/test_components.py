"""Numbers of components as metrics (metrics.md 23.3)."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.components import MAX_APPLICATIONS, MAX_SERIES, Applications, Components
from openems.backend.metrics.mails import Mails


class Part:
    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def debug_metrics(self) -> Any:
        if isinstance(self.numbers, Exception):
            raise self.numbers
        return self.numbers


def samples(components: Components) -> dict[tuple[str, str], float]:
    """(metric, component) -> value."""
    return {
        (sample.name, sample.labels.get("component", "")): sample.value
        for family in components.collect()
        for sample in family.samples
    }


def of(*numbers: Any, connected: tuple[str, ...] = ("edges0",)) -> tuple[Components, Applications]:
    applications = Applications(lambda: connected)
    return Components([Part(one) for one in numbers], applications), applications


class TestJava(SynchronousTestCase):
    def test_23_3_a_server(self) -> None:
        components, _ = of(
            {
                "uiwebsocket0/Connections": 3,
                "uiwebsocket0/Pending": 2,
                "uiwebsocket0/Active": 10,
                "uiwebsocket0/Completed": 812,
                "uiwebsocket0/PoolSize": 10,
                "uiwebsocket0/MaxPoolSize": 10,
            }
        )
        expected = {
            "websocket_connections": 3,
            "thread_pool_queue": 2,
            "thread_pool_active_count": 10,
            "thread_pool_completed_tasks": 812,
            "thread_pool_current_size": 10,
            "thread_pool_max_size": 10,
        }
        self.assertEqual(samples(components), {(name, "uiwebsocket0"): n for name, n in expected.items()})

    def test_23_3_alerting(self) -> None:
        components, _ = of({"alerting_sumstate/AlertingMessagesSent": 12, "alerting_offline/AlertingMessagesQueue": 1})
        got = samples(components)
        self.assertEqual(got[("alerting_messages_sent", "alerting_sumstate")], 12)
        self.assertEqual(got[("alerting_messages_queue", "alerting_offline")], 1)

    def test_23_3_nokey_and_no_number_cost_nothing_else(self) -> None:
        components, _ = of({"nokey": 1, "x/Pending": "abc", "auth0_httpBridge/Pending": 1})
        self.assertEqual(samples(components), {("thread_pool_queue", "auth0_httpBridge"): 1})

    def test_23_3_nothing_told_nothing_there(self) -> None:
        self.assertEqual(samples(of({})[0]), {})

    def test_22_12_one_that_raises_does_not_stop_the_others(self) -> None:
        components, _ = of(RuntimeError("broken"), {"x/Pending": 1})
        self.assertEqual(samples(components), {("thread_pool_queue", "x"): 1})
        self.assertEqual(components.errors, 1)
        self.flushLoggedErrors(RuntimeError)

    def test_other_numbers_have_a_name_of_their_own(self) -> None:
        components, _ = of({"timedata0/DroppedStopped": 4, "x/Foo": 1})
        self.assertEqual(
            samples(components),
            {
                ("openems_backend_component_dropped_stopped", "timedata0"): 4,
                ("openems_backend_component_foo", "x"): 1,
            },
        )

    def test_bounded_and_clean(self) -> None:
        numbers = {f"x/Name{n}": n for n in range(MAX_SERIES + 10)}
        components, _ = of(numbers, {'a"b\n/Weird {name}': 1})
        self.assertEqual(len(samples(components)), MAX_SERIES)
        self.assertEqual(components.dropped, 11)
        components, _ = of({'a"b\n/Weird {name}': 1})
        self.assertEqual(samples(components), {("openems_backend_component_weird_name", "a_b_"): 1})

    def test_mails_by_template(self) -> None:
        mailer = SimpleNamespace(ended=Counter({("alerting_offline", "Sent"): 3, ("alerting_offline", "Failed"): 1}))
        got = {tuple(s.labels.values()): s.value for family in Mails(mailer).collect() for s in family.samples}
        self.assertEqual((got[("alerting_offline", "sent")], got[("alerting_offline", "failed")]), (3, 1))
        self.assertEqual((got[("mass_outage", "dropped")], len(got)), (0, 20))

    def test_mails(self) -> None:
        components, _ = of({"Mail.Smtp/Sent": 5, "Mail.Smtp/Waiting": 2, "alerting_offline/OldestDueAge": 7.5})
        names = {
            (sample.name, *sample.labels.values()): sample.value
            for family in components.collect()
            for sample in family.samples
        }
        self.assertEqual(
            names,
            {
                ("openems_backend_mail_spool_messages",): 2,
                ("openems_backend_alerting_oldest_due_age_seconds", "alerting_offline"): 7.5,
            },
        )


class TestApplications(SynchronousTestCase):
    def test_23_3_connected_edges(self) -> None:
        components, applications = of({})
        applications.consume_metrics(0, {"edges0/Connections": 118, "edges0/Pending": 0, "edges0/Bar": 1})
        self.assertEqual(
            samples(components), {("websocket_connections", "edges0"): 118, ("thread_pool_queue", "edges0"): 0}
        )

    def test_22_5_gone_with_the_application(self) -> None:
        connected = ["edges0"]
        applications = Applications(lambda: connected)
        applications.consume_metrics(0, {"edges0/Connections": 118})
        self.assertEqual(list(applications.values(())), [("websocket_connections", "edges0", 118)])
        connected.clear()
        self.assertEqual(list(applications.values(())), [])

    def test_edges_connected_here_are_added(self) -> None:
        components, applications = of({"Backend.Edge.Server/Connections": 5})
        self.assertEqual(samples(components), {("websocket_connections", "edges0"): 5})
        applications.consume_metrics(0, {"edges0/Connections": 118})
        self.assertEqual(samples(components), {("websocket_connections", "edges0"): 123})

    def test_no_application_poses_as_a_component(self) -> None:
        components, applications = of({"uiwebsocket0/Connections": 5}, connected=("uiwebsocket0",))
        applications.consume_metrics(0, {"uiwebsocket0/Connections": 118})
        got = samples(components)
        self.assertEqual(got[("websocket_connections", "uiwebsocket0")], 5)
        self.assertEqual(got[("websocket_connections", "other")], 118)

    def test_labels_do_not_grow_with_names_that_clients_invent(self) -> None:
        connected: list[str] = []
        applications = Applications(lambda: connected)
        labels = set()
        for n in range(MAX_APPLICATIONS * 3):
            connected[:] = [f"evil{n}"]
            applications.consume_metrics(0, {f"evil{n}/Connections": 1})
            labels.update(label for _, label, _ in applications.values(()))
        self.assertEqual(len(labels), MAX_APPLICATIONS + 1)
        self.assertIn("other", labels)

    def test_names_with_slashes(self) -> None:
        applications = Applications(lambda: ["a/b"])
        applications.consume_metrics(0, {"a/b/Connections": 1})
        self.assertEqual(list(applications.values(())), [("websocket_connections", "a_b", 1)])
