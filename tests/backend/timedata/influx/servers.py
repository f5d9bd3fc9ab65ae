"""Buckets of one's own on the real servers."""

from __future__ import annotations

import itertools
import json
import urllib.parse
import urllib.request
from typing import Any

from services.framework import Running
from services.influxdb2 import call
from tests.real import real

_numbers = itertools.count(1)


class Bucket:
    """A new, empty one. ``query``: InfluxQL statements; ``write``: lines with times in ms."""

    def __init__(self, running: Running, name: str | None = None) -> None:
        self.running = running
        self.url: str = running.info["url"]
        self.version = 2 if running.name == "influxdb2" else 1
        self.name = name or f"bucket{next(_numbers)}"
        self.org: str = running.info.get("org", "-")
        self.token: str = running.info.get("token", "")
        self.make(self.name)

    def make(self, name: str, policies: tuple[str, ...] = ()) -> None:
        if self.version == 1:
            database, _, policy = name.partition("/")
            self.query(f'CREATE DATABASE "{database}"')
            if policy:
                self.query(f'CREATE RETENTION POLICY "{policy}" ON "{database}" DURATION INF REPLICATION 1')
            return
        [org] = call(f"{self.url}/api/v2/orgs?org={self.org}", token=self.token)["orgs"]
        call(f"{self.url}/api/v2/buckets", {"orgID": org["id"], "name": name}, token=self.token)

    @property
    def options(self) -> dict[str, Any]:
        """For the providers."""
        return {"url": self.url, "bucket": self.name, "org": self.org, "api_key": self.token}

    def _post(self, path: str, data: bytes) -> bytes:
        request = urllib.request.Request(self.url + path, data)
        if self.token:
            request.add_header("Authorization", f"Token {self.token}")
        with urllib.request.urlopen(request, timeout=20) as reply:
            answer: bytes = reply.read()
        return answer

    def query(self, text: str) -> list[list[Any]]:
        database, _, policy = self.name.partition("/")
        names = {"db": database, "epoch": "ms", "q": text, **({"rp": policy} if policy else {})}
        answer = json.loads(self._post("/query", urllib.parse.urlencode(names).encode()))
        rows = []
        for result in answer["results"]:
            assert "error" not in result, result
            for series in result.get("series", ()):
                rows += series["values"]
        return rows

    def write(self, lines: str, bucket: str = "", precision: str = "ms") -> None:
        bucket = bucket or self.name
        if self.version == 2:
            names = {"org": self.org, "bucket": bucket, "precision": precision}
            self._post(f"/api/v2/write?{urllib.parse.urlencode(names)}", lines.encode())
        else:
            database, _, policy = bucket.partition("/")
            names = {"db": database, "precision": precision, **({"rp": policy} if policy else {})}
            self._post(f"/write?{urllib.parse.urlencode(names)}", lines.encode())


def bucket(service: str) -> Bucket:
    return Bucket(real(service))
