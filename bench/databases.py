"""Databases that a benchmark stops, kills and counts: each as a section of the backend's configuration."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from services import known
from services.framework import Running, Service, end

#: Seconds that a question of a count may take.
PATIENCE = 1800
#: Seconds of data counted with one question.
SPAN = 20
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Of a process, its children that have ended, and its children that run (theirs too)."""
    total, open_ones = 0, [pid]
    while open_ones:
        one = open_ones.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
        open_ones += map(int, children)
    return total / TICKS


def idle_seconds() -> float:
    """Of all processors of this machine, whoever uses them, since it was started."""
    with open("/proc/stat") as stat:
        fields = stat.readline().split()
    return (int(fields[4]) + int(fields[5])) / TICKS


class Database:
    """``section`` of ``kind`` makes a provider of it; ``counts`` are of values by second of their time (epoch)."""

    kind: str
    #: Whether it can be stopped without the backend.
    apart = True

    def __init__(self, name: str, folder: Path) -> None:
        self.service: Service = known()[name]
        self.service.install()
        self.running: Running = self.service.start(folder)

    def section(self) -> dict[str, Any]:
        raise NotImplementedError

    def counts(self, first: int, last: int) -> dict[int, int]:
        raise NotImplementedError

    def stop(self) -> None:
        """As an administrator does."""
        end(self.running._processes[-1])

    def kill(self) -> None:
        """-9, to all its processes."""
        self.running.signal(signal.SIGKILL)
        self.running._processes[-1].wait()

    def resume(self) -> None:
        raise NotImplementedError

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.running.pid) if self.running._processes else 0.0

    def close(self) -> None:
        self.running.stop()


class Influx(Database):
    kind = "timedata.influxdb"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self.info = self.running.info
        self.bucket: str = self.info.get("bucket", "openems")
        if name == "influxdb1":
            self._ask(f'CREATE DATABASE "{self.bucket}"')

    def section(self) -> dict[str, Any]:
        server = {"org": self.info["org"], "apiKey": self.info["token"]} if "token" in self.info else {}
        return {"url": self.info["url"], "bucket": self.bucket, **server}

    def resume(self) -> None:
        self.service.resume(self.running)  # type: ignore[attr-defined]

    def _ask(self, query: str) -> list[dict[str, Any]]:
        names = urllib.parse.urlencode({"db": self.bucket, "epoch": "s", "q": query})
        request = urllib.request.Request(f"{self.info['url']}/query", names.encode())
        if "token" in self.info:
            request.add_header("Authorization", f"Token {self.info['token']}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            [result] = json.loads(reply.read())["results"]
        if "error" in result:
            raise RuntimeError(f"{query}: {result['error']}")
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def counts(self, first: int, last: int) -> dict[int, int]:
        found: dict[int, int] = {}
        for begin in range(first, last + 1, SPAN):
            bound = min(begin + SPAN, last + 1)
            query = (
                f'SELECT COUNT(/Bench/) FROM "data" WHERE time >= {begin}s AND time < {bound}s'
                " GROUP BY time(1s) fill(none)"
            )
            for series in self._ask(query):
                for row in series["values"]:
                    found[row[0]] = found.get(row[0], 0) + sum(value or 0 for value in row[1:])
        return found


class Postgres(Database):
    kind = "timedata.timescaledb"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self._sql("postgres", "CREATE DATABASE history")
        if name == "timescaledb":
            self._sql("history", "CREATE EXTENSION timescaledb")

    def _sql(self, database: str, text: str) -> list[Any]:
        import psycopg2

        dsn = self.running.info["dsn"].replace("dbname=postgres", f"dbname={database}")
        with closing(psycopg2.connect(dsn)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(text)
            return list(cursor.fetchall()) if cursor.description else []

    def section(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.running.port,
            "database": "history",
            "user": self.running.info["user"],
            "password": self.running.info["password"],
        }

    def stop(self) -> None:
        self.running.signal(signal.SIGINT)
        self.running._processes[-1].wait(60)

    def resume(self) -> None:
        process = self.running._processes.pop()
        command = [str(part) for part in process.args]  # type: ignore[union-attr]
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if not self.running._processes or self.running._processes[-1].poll() is not None:
                # What a killed server leaves behind ends a little later, and until then no other may start.
                self.running._processes.clear()
                self.running.spawn(command)
            try:
                self._sql("history", "SELECT 1")
                return
            except Exception:
                time.sleep(0.1)
        raise RuntimeError(f"{self.running.name} does not start again")

    def counts(self, first: int, last: int) -> dict[int, int]:
        rows = self._sql(
            "history",
            "SELECT date_part('epoch', date_trunc('second', time))::bigint, count(*) FROM ts_num WHERE series_id IN"
            " (SELECT s.id FROM ts_series s JOIN ts_channel c ON c.id = s.channel_id WHERE c.address LIKE '%Bench%')"
            f" AND time >= to_timestamp({first}) AND time < to_timestamp({last + 1}) GROUP BY 1",
        )
        return {int(second): int(count) for second, count in rows}


class Sqlite:
    """The backend's own: it is away only with the backend."""

    kind = "timedata.sqlite"
    apart = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def section(self) -> dict[str, Any]:
        return {"path": str(self.path)}

    def counts(self, first: int, last: int) -> dict[int, int]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=60)) as connection:
            rows = connection.execute(
                "SELECT time / 1000, count(*) FROM number JOIN series ON id = series WHERE channel LIKE '%Bench%'"
                " AND time >= ? AND time < ? GROUP BY 1",
                (first * 1000, (last + 1) * 1000),
            )
            return dict(rows.fetchall())

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def resume(self) -> None: ...

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None: ...


NAMES = ("influxdb2", "influxdb1", "postgresql", "timescaledb", "sqlite")


def database(name: str, folder: Path) -> Database | Sqlite:
    """One of :data:`NAMES`, started in a folder that every user may enter."""
    if name == "sqlite":
        return Sqlite(folder / "first.sqlite")
    return (Influx if name.startswith("influx") else Postgres)(name, folder)
