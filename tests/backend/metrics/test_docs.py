"""docs/metrics.md names every metric, and none that is not there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.jobs import Jobs
from openems.backend.metrics.mails import Mails
from openems.backend.metrics.pools import Pools
from openems.backend.metrics.timedata import _KNOWN
from openems.common.histogram import Histogram
from openems.common.jobs import Job
from tests.backend.metrics.test_components import Part
from tests.backend.metrics.test_pools import pool
from tests.backend.metrics.test_timedata import Provider, written
from tests.backend.metrics.world import MetricsWorld
from tests.backend.ui.world import World

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
PREFIX = "openems_backend_"


class TestPage(SynchronousTestCase):
    def families(self) -> set[str]:
        """All of this project's own, as a scraper sees them."""
        ui = World().server
        world = MetricsWorld(timedata=[Provider("timedata0", dict.fromkeys(_KNOWN, 1), writes=written())], ui=ui)
        world.requests.result_observer("ui")
        told = {
            "Mail.Smtp/Sent": 1,
            "Mail.Smtp/Waiting": 0,
            "Mail.Smtp/OldestAge": 1,
            "alerting_offline/OldestDueAge": 0,
            "metadata0/StatusWaiting": 0,
        }
        world.metrics.components.parts.append(Part(told))
        world.metrics.add("mails", Mails(_Mailer()).collect)
        job = Job("metadata_flush")
        job.succeeded(0.1, now=1)
        world.requests.http("metadata0")("/path", "200", 0.1)
        world.metrics.add("jobs", Jobs([_Worker(job)]).collect)
        world.metrics.add("pools", Pools([pool()]).collect)
        world.history.query_seconds[("timedata0", "data")] = Histogram()
        return {
            family.name.removeprefix(PREFIX) + ("_total" if family.type == "counter" else "")
            for family in text_string_to_metric_families(world.text())
            if family.name.startswith(PREFIX) and not family.name.startswith(f"{PREFIX}component_")
        }

    def test_all_and_no_other(self) -> None:
        named = set(re.findall(r"^\| `([a-z_]+)` \| (?:gauge|counter|histogram) \|", PAGE.read_text(), re.MULTILINE))
        # This one is there with a real reactor only.
        self.assertEqual(named, self.families() | {"reactor_tick_duration_seconds"})


class _Worker:
    def __init__(self, job: Job) -> None:
        self.jobs = (job,)


class _Mailer:
    ended: Counter[tuple[str, str]] = Counter()
