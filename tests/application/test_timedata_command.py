from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.application import config, histories
from openems.application.config import BadConfiguration
from openems.application.histories import opened
from openems.application.progress import Bar
from openems.application.timedata_command import check
from openems.backend.timedata.export import Finding
from openems.common.data import DataKind, DataNotification
from tests.postgres.databases import database, role, run_sql
from tests.real import real

BASE = time.time_ns() // 1_000_000 - 7_200_000
ROOT = Path(config.__file__).parents[3]


class BarTests(SynchronousTestCase):
    def test_lines_without_a_terminal(self) -> None:
        clock = [0.0]
        out = io.StringIO()
        bar = Bar(out, 2, clock=lambda: clock[0])
        for edge, part, samples in (("edge0", 0.5, 100), ("edge0", 0.6, 150), ("edge0", 1.0, 200), ("edge1", 0.5, 10)):
            clock[0] += 1
            bar(edge, part, samples)
        clock[0] = 20.0
        bar("edge1", 1.0, 1000)
        lines = out.getvalue().splitlines()
        self.assertEqual(3, len(lines))
        self.assertIn(" 25% edge0 (1/2)", lines[0])
        self.assertIn(" 50% edge0 (1/2)", lines[1])
        self.assertIn("100% edge1 (2/2)", lines[2])


class CommandCase(TestCase):
    timeout = 120  # type: ignore[assignment]

    def file(self, **postgres: Any) -> Path:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        metadata = folder / "metadata.json"
        metadata.write_text('{"edges": {"edge0": {"comment": "x", "apikey": "k"}}}')
        keys = {"id": '"big"', "host": '"127.0.0.1"', "user": '"postgres"', "password": '"secret"', **postgres}
        text = "\n".join(f"{key} = {value}" for key, value in keys.items())
        path = folder / "backend.toml"
        path.write_text(
            f'[backend]\nstateDir = "{folder / "state"}"\n[edge]\n[metadata.file]\npath = "{metadata}"\n'
            f'[[timedata.sqlite]]\nid = "lite"\n[[timedata.timescaledb]]\n{text}\n'
        )
        (folder / "state").mkdir()
        return path

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "openems.application", "timedata", *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
        )


class CopyTests(CommandCase):
    async def test_copy_and_check(self) -> None:
        server = real("postgresql")
        name = database(self, server, "command")
        path = self.file(port=server.port, database=f'"{name}"')
        configuration = config.load(str(path))
        lite = opened(configuration, "lite", reactor)
        await lite.provider.start()
        rows: Any = {BASE + n * 1000: {"m0/A": n, "m0/B": f"t{n}"} for n in range(500)}
        lite.provider.write("edge5", DataNotification(DataKind.TIMESTAMPED, rows))
        lite.provider.write("fems5", DataNotification(DataKind.TIMESTAMPED, rows))
        await lite.provider.stop()
        before = os.stat(lite.export._path).st_mtime_ns
        words = ("--config", str(path), "--from", "lite", "--to", "big")
        done = self.command("copy", *words, "--edges", "edge5")
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
        self.assertIn("edge5: 1,000 values, checksum", done.stdout)
        self.assertIn("found again", done.stdout)
        self.assertEqual([(500,)], run_sql(server, "SELECT count(*) FROM ts_num", database=name))
        done = self.command("copy", *words)
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
        self.assertIn("fems5: 1,000 values", done.stdout)
        self.assertEqual([(1000,)], run_sql(server, "SELECT count(*) FROM ts_num", database=name))
        done = self.command("check", "--config", str(path), "big")
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
        self.assertIn("edges edge5, fems5 share the number 5", done.stdout)
        self.assertIn("postgres may read and write", done.stdout)
        self.assertIn("set rawRetentionDays", done.stdout)
        self.assertEqual(before, os.stat(lite.export._path).st_mtime_ns, "the source was opened for writing")
        done = self.command("check", "--config", str(path), "lite")
        self.assertEqual((0, ""), (done.returncode, done.stderr), done.stdout)
        self.assertIn("2 edges, 4 channels", done.stdout)

    def test_what_is_wrong_is_told(self) -> None:
        path = self.file(port=1, database='"nothing"', password='"my-own-secret"')
        for words, text in (
            (("copy", "--config", str(path), "--from", "lite", "--to", "lite"), "are the same"),
            (("copy", "--config", str(path), "--from", "nope", "--to", "lite"), 'no provider "nope"'),
            (("copy", "--config", str(path), "--from", "big", "--to", "lite"), "Connection refused"),
            (("copy", "--config", str(path), "--from", "big", "--to", "lite", "--since", "soon"), "2026-01-31"),
            (("check", "--config", str(path), "big"), "is the server running"),
            (("check", "--config", str(path), "lite"), "there is no file"),
        ):
            done = self.command(*words)
            self.assertNotEqual(0, done.returncode, words)
            output = done.stdout + done.stderr
            self.assertIn(text, output)
            self.assertNotIn("my-own-secret", output)
            self.assertNotIn("Traceback", output)


class CheckTests(CommandCase):
    async def findings(self, **postgres: Any) -> list[Finding]:
        found = opened(config.load(str(self.file(**postgres))), "big", reactor)
        try:
            return list(await found.check())
        finally:
            await found.provider.pool.stop(0.2)

    async def test_wrong_password_unknown_database_no_rights(self) -> None:
        server = real("postgresql")
        name = database(self, server, "check")
        [finding] = await self.findings(port=server.port, database=f'"{name}"', password='"wrong-secret"')
        self.assertIn("authentication failed", finding.text)
        self.assertIn("check user and password", finding.hint)
        [finding] = await self.findings(port=server.port, database='"nope"')
        self.assertIn("CREATE DATABASE", finding.hint)
        user = role(self, server, "nobody")
        login = {"user": f'"{user}"', "password": '"role-secret"'}
        found = await self.findings(port=server.port, database=f'"{name}"', **login)
        errors = [finding for finding in found if finding.level == "error"]
        self.assertEqual([f"GRANT CREATE ON SCHEMA public TO {user}"], [finding.hint for finding in errors])
        run_sql(
            server,
            "CREATE TABLE ts_num (a int); CREATE TABLE edge_channel (a int); CREATE TABLE component (a int)",
            database=name,
        )
        found = await self.findings(port=server.port, database=f'"{name}"', isReadOnly="true", **login)
        texts = "\n".join(f"{finding.text} {finding.hint}" for finding in found)
        self.assertIn("missing rights on ts_num GRANT SELECT ON ts_num", texts)
        self.assertIn("--java-tables", texts)

    async def test_what_is_in_it(self) -> None:
        server = real("postgresql")
        name = database(self, server, "check")
        found = opened(config.load(str(self.file(port=server.port, database=f'"{name}"'))), "big", reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(found.provider.stop()))
        await found.start()
        found.provider.write("edge5", DataNotification(DataKind.TIMESTAMPED, {BASE: {"m0/A": 1, "m0/B": "x"}}))
        found.provider.write("edge5", DataNotification(DataKind.TIMESTAMPED, {BASE + 1: {"m0/A": "text"}}))
        await found.flush()
        await found.provider.maintain()
        out = io.StringIO()
        self.assertEqual(0, await check(found, "big", out=out))
        self.assertIn("1 edges, 2 channels", out.getvalue())
        self.assertIn("1 channels have numbers and texts", out.getvalue())
        run_sql(server, "INSERT INTO ts_schema VALUES (99, 'plain')", database=name)
        out = io.StringIO()
        self.assertEqual(1, await check(found, "big", out=out))
        self.assertIn("tables of version 99", out.getvalue())

    async def test_timescaledb(self) -> None:
        server = real("timescaledb")
        name = database(self, server, "check")
        run_sql(server, "CREATE EXTENSION timescaledb", database=name)
        found = await self.findings(port=server.port, database=f'"{name}"')
        self.assertIn("TimescaleDB, Apache licence", [finding.text for finding in found])


class ConfigurationTests(CommandCase):
    def test_the_driver_is_missing(self) -> None:
        path = self.file(port=5432, database='"x"')
        code = (
            "import sys; sys.modules['txpostgres'] = None\n"
            "from openems.application import config, timescaledb\n"
            "from pathlib import Path\n"
            f"section = config.load({str(path)!r}).timedata_timescaledb[0]\n"
            "timescaledb.timescaledb_of(section, Path('.'), reactor=None, now=int)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
        self.assertIn("pip install 'openems-backend[postgres]'", done.stderr)

    def test_unknown_provider_names_the_known_ones(self) -> None:
        configuration = config.load(str(self.file(port=5432, database='"x"')))
        with self.assertRaises(BadConfiguration) as caught:
            opened(configuration, "nope", reactor)
        self.assertIn("'lite', 'big'", str(caught.exception))

    def test_a_rollup_shorter_than_the_samples(self) -> None:
        with self.assertRaises(BadConfiguration) as caught:
            config.load(str(self.file(port=5432, database='"x"', rawRetentionDays=30, rollupRetentionDays=10)))
        self.assertIn("rollupRetentionDays", str(caught.exception))

    def test_no_secret_in_repr(self) -> None:
        section = config.load(
            str(self.file(port=5432, database='"x"', password='"my-own-secret"'))
        ).timedata_timescaledb[0]
        self.assertNotIn("my-own-secret", repr(section))
        self.assertEqual(histories.MAKERS.keys(), histories.MAKERS.keys() & set(config.Configuration.__struct_fields__))
