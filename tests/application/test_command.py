import io
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from openems.application import command, config, demo, drivers, service, simulator


class TestCommand(SynchronousTestCase):
    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        status = command.main(arguments)
        return status, out.getvalue(), err.getvalue()

    def file(self, text: str) -> str:
        path = Path(self.mktemp())
        path.write_text(text)
        return str(path)

    def test_check_config(self) -> None:
        path = self.file('[backend]\noffset = 5\n[edge]\n[metadata.file]\npath = "m"\n')
        self.assertEqual(
            self.run_command("check-config", path), (0, f"[health] port 8084\n[edge] port 8086\n{path}: ok\n", "")
        )

    def test_check_config_names_what_is_wrong(self) -> None:
        path = self.file('[edge]\nprt = 1\n[metadata.file]\npath = "m"\n')
        self.assertEqual(
            self.run_command("check-config", path),
            (1, "", f'{path}: [edge] prt: unknown key; the nearest known is "port"\n'),
        )

    def test_check_config_names_a_driver_that_is_not_installed(self) -> None:
        path = self.file(
            '[edge]\n[metadata.odoo]\ndatabase = "o"\nodooPassword = "p"\n'
            '[[timedata.timescaledb]]\nid = "t"\nuser = "u"\ndatabase = "d"\n'
        )
        self.patch(drivers, "POSTGRES", ("no_such_driver",))
        needs = "needs the PostgreSQL driver: pip install 'openems-backend[postgres]' (no_such_driver missing)"
        status, out, err = self.run_command("check-config", path)
        self.assertEqual((1, f"[[timedata.timescaledb]] {needs}\n[metadata.odoo] {needs}\n"), (status, err))
        self.assertNotIn("ok", out)

    def test_hash_password_from_a_pipe(self) -> None:
        self.patch(sys, "stdin", io.StringIO("secret word\n"))
        status, out, _ = self.run_command("hash-password")
        self.assertEqual(status, 0)
        self.assertTrue(out.startswith("$argon2id$"))
        self.assertNotIn("secret", out)

    def test_empty_password_is_refused(self) -> None:
        self.patch(sys, "stdin", io.StringIO("\n"))
        self.assertEqual(self.run_command("hash-password"), (1, "", "An empty password is refused.\n"))

    def test_check_metadata(self) -> None:
        good = self.file('{"edges": {"edge0": {"apikey": "a", "comment": ""}}}')
        self.assertEqual(self.run_command("check-metadata", good)[0], 0)
        bad = self.file('{"edges": {"edge0": {"apikey": 1}}}')
        status, out, _ = self.run_command("check-metadata", bad)
        self.assertEqual(status, 1)
        self.assertIn(bad, out)

    def test_convert_felix(self) -> None:
        root = Path(self.mktemp())
        (root / "Metadata").mkdir(parents=True)
        (root / "Metadata" / "File.config").write_text('path="m.json"\n')
        self.assertEqual(self.run_command("convert-felix", str(root)), (0, '[metadata.file]\npath = "m.json"\n', ""))

    def test_config_docs(self) -> None:
        self.assertEqual(self.run_command("config-docs"), (0, config.documentation(), ""))


class TestPlugin(SynchronousTestCase):
    def test_twistd_finds_them(self) -> None:
        found = {plugin.tapname: plugin for plugin in getPlugins(IServiceMaker)}
        for name in ("openems-backend", "openems-simulator"):
            self.assertIn(name, found)
        self.assertIs(found["openems-backend"].options, service.Options)

    def test_wrong_configuration_ends_twistd_with_its_problems_alone(self) -> None:
        options = service.Options()
        options.parseOptions(["--config", "/nowhere/b.toml"])
        error = self.assertRaises(SystemExit, service.makeService, options)
        self.assertEqual(str(error), "/nowhere/b.toml: cannot be read: No such file or directory")

    def test_embedded_default_is_on_loopback(self) -> None:
        options = service.Options()
        options.parseOptions([])
        configuration, _ = options.configuration()
        assert configuration.edge and configuration.ui_websocket and configuration.edge_manager
        self.assertEqual(configuration.interface(configuration.edge.interface), "127.0.0.1")
        self.assertEqual(configuration.health.interface, "127.0.0.1")


class TestPrepare(SynchronousTestCase):
    def setUp(self) -> None:
        self.numbers = iter(range(100))

    def new_secret(self) -> str:
        return f"secret-{next(self.numbers):02}-of-enough-length"

    def prepare(self, state: Path, password: str | None = None, edges: int | None = None) -> demo.Prepared:
        return demo.prepare(state, admin_password=password, edges=edges, new_secret=self.new_secret)

    def test_first_and_second_start(self) -> None:
        state = Path(self.mktemp())
        first = self.prepare(state)
        self.assertEqual(first.password, "secret-00-of-enough-length")
        self.assertEqual(list(first.edges), ["edge0", "edge1", "edge2"])
        text = (state / "metadata.json").read_text()
        self.assertNotIn("secret-00", text)
        self.assertEqual((state / "metadata.json").stat().st_mode & 0o777, 0o600)
        second = self.prepare(state)
        self.assertIsNone(second.password)
        self.assertEqual(second.edges, first.edges)
        self.assertEqual((state / "metadata.json").read_text(), text)

    def test_more_edges_and_another_password_later(self) -> None:
        from openems.backend.metadata.file.check import check_metadata

        state = Path(self.mktemp())
        first = self.prepare(state, "one password", 2)
        before = (state / "metadata.json").read_text()
        second = self.prepare(state, "two password", 4)
        self.assertEqual(second.password, "two password")
        self.assertEqual(list(second.edges), ["edge0", "edge1", "edge2", "edge3"])
        self.assertEqual(second.edges["edge1"], first.edges["edge1"])
        self.assertNotEqual((state / "metadata.json").read_text(), before)
        self.assertEqual([f for f in check_metadata(str(state / "metadata.json")) if f.startswith("error")], [])
        self.assertEqual(list(self.prepare(state, None, 1).edges), ["edge0"])
        text = (state / "metadata.json").read_text()
        self.prepare(state, "two password", 1)
        self.assertEqual((state / "metadata.json").read_text(), text, "the same password ends no session")

    def test_only_its_owner_looks_into_the_state(self) -> None:
        state = Path(self.mktemp())
        self.prepare(state)
        self.assertEqual(state.stat().st_mode & 0o777, 0o700)

    def test_what_is_no_file_of_the_demo_is_refused_with_the_place(self) -> None:
        state = Path(self.mktemp())
        state.mkdir()
        file = state / "metadata.json"
        for text, reason in (
            ('{"edges":\n{', f"{file}: line 2"),
            ("[1]", str(file)),
            ('{"version": 99, "edges": {}, "users": {"admin": {}}}', "version"),
            ('{"edges": {"edge0": {"apikey": "k", "comment": ""}}}', "no user admin"),
        ):
            file.write_text(text)
            with self.assertRaises(demo.Unusable) as refused:
                self.prepare(state)
            self.assertIn(reason, str(refused.exception))
            self.assertEqual(file.read_text(), text)


class TestSimulatorArguments(SynchronousTestCase):
    def test_numbers_have_limits(self) -> None:
        for option, value in (("cycle", "-1"), ("cycle", "nan"), ("resend-wait", "-5"), ("backfill-days", "inf")):
            options = simulator.Options()
            options.parseOptions(["--fleet", "fleet.json", f"--{option}", value])
            error = self.assertRaises(SystemExit, simulator.makeService, options)
            self.assertTrue(str(error).startswith(f"--{option} {value}: "), str(error))

    def test_history_is_sent_until_all_of_it_was(self) -> None:
        fleet, mark = Path(self.mktemp()), Path(self.mktemp())
        fleet.write_text('{"edge0": "a", "edge1": "b"}')
        options = simulator.Options()
        options.parseOptions(["--fleet", str(fleet), "--backfill-days", "1", "--backfill-mark", str(mark)])
        edges = simulator.makeService(options)._fleet.edges
        for edge in edges:
            self.assertFalse(mark.exists())
            self.assertIsNotNone(edge._backfill)
            edge._backfilled()
        self.assertTrue(mark.exists())
        self.assertEqual([edge._backfill for edge in simulator.makeService(options)._fleet.edges], [None, None])


class TestDemoArguments(SynchronousTestCase):
    def test_mistakes_are_named(self) -> None:
        for arguments, reason in (
            (("--edges", "x"), "argument --edges: 'x' is no number from 1 to 10000"),
            (("--edges", "-1"), "argument --edges: '-1' is no number from 1 to 10000"),
            (("--offset", "50001"), "argument --offset: '50001' is no number from 0 to 50000"),
            (("--state", ""), "argument --state: is empty"),
            (("--admin-password", ""), "argument --admin-password: is empty"),
            (("--egdes", "3"), "unrecognized arguments: --egdes 3"),
        ):
            err = io.StringIO()
            self.patch(sys, "stderr", err)
            with self.assertRaises(SystemExit) as ended:
                command.main(["demo", *arguments])
            self.assertEqual(ended.exception.code, 2)
            self.assertIn(reason, err.getvalue())
