from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openems.application import config
from openems.application.config import BadConfiguration, parse

MINIMAL = '[metadata.file]\npath = "m.json"\n'
ROOT = Path(__file__).parents[2]


class TestReading(SynchronousTestCase):
    def test_defaults_are_those_of_openems(self) -> None:
        c = parse(f"[edge]\n[edge.manager]\n[ui.websocket]\n{MINIMAL}", "f.toml")
        assert c.edge and c.edge_manager and c.ui_websocket
        self.assertEqual((c.edge.port, c.edge_manager.port, c.ui_websocket.port), (8081, 8083, 8082))
        self.assertEqual(c.ui_websocket.request_limit, 20)
        self.assertEqual(c.core_jsonrpcrequesthandler.query_thread_pool_size, 20)
        self.assertEqual(c.core_jsonrpcrequesthandler.query_thread_pool_max_queue_size, 1000)

    def test_absent_section_is_an_absent_component(self) -> None:
        c = parse(f"[edge.manager]\n{MINIMAL}", "f.toml")
        self.assertIsNone(c.edge)
        self.assertIsNone(c.ui_websocket)
        self.assertIsNotNone(c.edge_manager)

    def test_section_and_the_one_below(self) -> None:
        c = parse(f"[edge]\nport = 9081\n[edge.manager]\nport = 9083\n{MINIMAL}", "f.toml")
        assert c.edge and c.edge_manager
        self.assertEqual((c.edge.port, c.edge_manager.port), (9081, 9083))

    def test_several_providers_and_their_order(self) -> None:
        c = parse(
            f'{MINIMAL}[core.timedatamanager]\ntimedata.ids = ["b", "a"]\n'
            '[[timedata.sqlite]]\nid = "a"\n[[timedata.dummy]]\nid = "b"\n',
            "f.toml",
        )
        self.assertEqual(c.core_timedatamanager.ids, ["b", "a"])
        self.assertEqual([p.id for p in c.timedata_sqlite], ["a"])

    def test_windows_line_ends_and_byte_order_mark(self) -> None:
        c = parse("\ufeff" + MINIMAL.replace("\n", "\r\n"), "f.toml")
        assert c.metadata_file
        self.assertEqual(c.metadata_file.path, "m.json")

    def test_text_from_environment_and_file(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "secret").write_text("from file\n")
        c = parse(
            '[metadata.file]\npath = { env = "M" }\nstate = { file = "secret" }\n',
            "f",
            environ={"M": "x"},
            directory=directory,
        )
        assert c.metadata_file
        self.assertEqual((c.metadata_file.path, c.metadata_file.state), ("x", "from file"))

    def test_offset(self) -> None:
        c = parse(f"[backend]\noffset = 100\n[edge]\n{MINIMAL}", "f.toml")
        assert c.edge
        self.assertEqual(c.port(c.edge.port), 8181)


class TestRefusals(SynchronousTestCase):
    def refused(self, text: str, *expected: str) -> None:
        error = self.assertRaises(BadConfiguration, parse, text, "f.toml", environ={})
        for line in expected:
            self.assertIn(line, error.problems)
        self.assertEqual(len(error.problems), len(expected), error.problems)

    def test_unknown_key_names_the_nearest(self) -> None:
        self.refused(
            f"[ui.websocket]\nrequestlimit = 3\n{MINIMAL}",
            'f.toml: [ui.websocket] requestlimit: unknown key; the nearest known is "requestLimit"',
        )

    def test_unknown_section_names_the_nearest(self) -> None:
        self.refused(
            f"[ui.websockets]\nport = 3\n{MINIMAL}",
            'f.toml: [ui.websockets]: unknown section; the nearest known is "ui.websocket"',
        )

    def test_section_in_the_wrong_case(self) -> None:
        self.refused(
            f"[Edge.Manager]\nport = 3\n{MINIMAL}",
            'f.toml: [Edge.Manager]: unknown section; the nearest known is "edge.manager"',
        )

    def test_influxdb(self) -> None:
        server = 'url = "http://127.0.0.1:8086"\nbucket = "b"\n'
        self.refused(
            f'[[timedata.influxdb]]\nid = "a"\n{server}startDate = "1.2.2026"\n'
            f'[[timedata.influxdb]]\nid = "b"\n{server}startDate = "2026-02-02"\nendDate = "2026-02-01"\n'
            f'queryLanguage = "FLUX"\n'
            f'[timedata.aggregatedinfluxdb]\nid = "a"\n{server}measurementsMax = ["Europe/Berlim=max"]\n'
            f'allowedChannelsAvg = ["x"]\n{MINIMAL}',
            "f.toml: [timedata.influxdb] startDate, endDate: a day looks like 2026-01-31: Invalid isoformat string: "
            "'1.2.2026'",
            "f.toml: [timedata.influxdb] endDate: 2026-02-01 is before 2026-02-02",
            'f.toml: [[timedata]] org: "b" is asked in FLUX, and InfluxDB 2 has organisations',
            'f.toml: [timedata.aggregatedinfluxdb] measurementsMax: there is no time zone "Europe/Berlim"',
            'f.toml: [timedata.aggregatedinfluxdb] allowedChannelsAvg, allowedChannelsMax: "x" is no channel address',
            'f.toml: [[timedata]] id: two providers have the id "a"',
        )
        read = config.parse(
            f'[[timedata.influxdb]]\n{server}apiKey = {{ env = "TOKEN" }}\n{MINIMAL}',
            "f.toml",
            environ={"TOKEN": "s3cret"},
        )
        self.assertEqual("s3cret", read.timedata_influxdb[0].api_key)
        self.assertNotIn("s3cret", repr(read))

    def test_wrong_types_and_ranges_all_at_once(self) -> None:
        self.refused(
            f'[edge]\nport = "8081"\n[edge.manager]\nport = 70000\n[ui.websocket]\nport = true\n{MINIMAL}',
            "f.toml: [edge] port: Expected int, got str",
            "f.toml: [edge.manager] port: Expected int <= 65535",
            "f.toml: [ui.websocket] port: Expected int, got bool",
        )

    def test_choices_are_told(self) -> None:
        self.refused(
            f'[[timedata.influxdb]]\nurl = "http://h"\nbucket = "b"\nqueryLanguage = "SQL"\n{MINIMAL}',
            "f.toml: [timedata.influxdb] queryLanguage: Invalid enum value 'SQL'; known are INFLUX_QL, FLUX",
        )

    def test_one_file_for_two_histories(self) -> None:
        self.refused(
            f'[[timedata.sqlite]]\nid = "a"\npath = "x/h"\n[[timedata.sqlite]]\nid = "b"\npath = "x/./h"\n{MINIMAL}',
            "f.toml: [timedata.sqlite] path: x/./h is the file of two providers",
        )

    def test_required_key(self) -> None:
        self.refused("[metadata.file]\n", "f.toml: [metadata.file] path: is required")

    def test_key_without_effect(self) -> None:
        self.refused(
            f"[edge.manager]\npoolSize = 10\n{MINIMAL}",
            "f.toml: [edge.manager] poolSize: has no effect here, there are no message threads; leave it out",
        )

    def test_once_only(self) -> None:
        self.refused(
            f"[[edge.manager]]\nport = 1\n{MINIMAL}",
            "f.toml: [edge.manager]: may be there only once: [edge.manager], not [[edge.manager]]",
        )

    def test_value_where_a_section_belongs(self) -> None:
        self.refused(f"edge = 8081\n{MINIMAL}", "f.toml: edge: is a section: [edge]")

    def test_no_toml(self) -> None:
        error = self.assertRaises(BadConfiguration, parse, "[edge\n", "f.toml")
        self.assertTrue(error.problems[0].startswith("f.toml: no valid TOML: "))
        self.assertIn("line 1", error.problems[0])

    def test_environment_is_missing(self) -> None:
        self.refused(
            '[metadata.file]\npath = { env = "NOWHERE" }\n',
            "f.toml: [metadata.file] path: the environment has no NOWHERE",
        )

    def test_contradictions(self) -> None:
        self.refused(
            "[backend]\noffset = 60\n[edge]\nport = 65500\n[edge.manager]\nport = 65500\n"
            '[[timedata.dummy]]\n[[timedata.sqlite]]\n[core.timedatamanager]\nids = ["timedata1"]\n',
            "f.toml: nothing says which edges exist: one of [metadata.file], [metadata.dummy], [metadata.odoo] is"
            " needed",
            "f.toml: [edge] port: 65500 plus the offset 60 is above 65535",
            "f.toml: [edge.manager] port: 65500 plus the offset 60 is above 65535",
            "f.toml: [edge.manager] port: 65500 is the port of [edge] already",
            'f.toml: [[timedata]] id: two providers have the id "timedata0"',
            'f.toml: [core.timedatamanager] ids: there is no provider "timedata1"; the nearest known is "timedata0"',
        )

    def test_offset_out_of_range(self) -> None:
        self.refused(f"[backend]\noffset = 50001\n{MINIMAL}", "f.toml: [backend] offset: Expected int <= 50000")

    def test_unreadable_file_names_path_owner_and_permission(self) -> None:
        path = Path(self.mktemp())
        path.write_text(MINIMAL)
        path.chmod(0o640)

        def denied(_: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        self.patch(Path, "read_bytes", denied)
        error = self.assertRaises(BadConfiguration, config.load, path)
        self.assertRegex(
            error.problems[0],
            rf"^{path}: permission denied, it belongs to \S+ with mode 0640; user \S+ needs read permission$",
        )

    def test_missing_file(self) -> None:
        error = self.assertRaises(BadConfiguration, config.load, "/nowhere/b.toml")
        self.assertEqual(error.problems, ["/nowhere/b.toml: cannot be read: No such file or directory"])


class TestDocumentation(SynchronousTestCase):
    def test_page_is_current(self) -> None:
        page = (ROOT / "docs" / "configuration.md").read_text()
        self.assertEqual(page, config.documentation(), "run ./dev docs")

    def test_every_key_is_documented(self) -> None:
        page = config.documentation()
        for known in config.KNOWN.values():
            self.assertIn(known.name, page)
        self.assertNotIn("|  |\n", page.replace("`enabled` | true, false | `true` |  |\n", ""))

    def test_examples_are_accepted(self) -> None:
        examples = sorted((ROOT / "examples").glob("*.toml"))
        self.assertTrue(examples)
        secrets = ("OPENEMS_CLIENT_SECRET", "ACME_CLIENT_SECRET", "EVERYTHING_SECRET")
        environ = {"OPENEMS_STATE_DIR": "/tmp/x", **dict.fromkeys(secrets, "x")}
        for example in examples:
            # The edge application is a program of its own.
            if example.name != "edge-application.toml":
                config.load(example, environ=environ)

    def test_example_of_the_page(self) -> None:
        parse(config.EXAMPLE, "example")

    def test_written_toml_is_read_again(self) -> None:
        text = config.to_toml(
            {
                "metadata.file": {"path": 'a "b" \\ \x7f ü\n'},
                "timedata.sqlite": [{"id": "a"}, {"id": "b", "retentionDaysRaw": 5}],
            }
        )
        c = parse(text, "f")
        assert c.metadata_file
        self.assertEqual(c.metadata_file.path, 'a "b" \\ \x7f ü\n')
        self.assertEqual([(p.id, p.retention_days_raw) for p in c.timedata_sqlite], [("a", 31), ("b", 5)])
