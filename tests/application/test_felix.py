from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openems.application import config, felix
from openems.application.config import BadConfiguration
from openems.application.felix import convert, parse, read_folder

MANAGER = """:org.apache.felix.configadmin.revision:=L"3"
service.pid="Core.TimedataManager"
timedata.ids=[ \\
  "influx1", \\
  "influx0", \\
  ]
"""


class TestSyntax(SynchronousTestCase):
    """core.md 8.4"""

    def test_array_of_the_document(self) -> None:
        self.assertEqual(
            parse(MANAGER, "f"), {"service.pid": "Core.TimedataManager", "timedata.ids": ["influx1", "influx0"]}
        )

    def test_types(self) -> None:
        text = 'a=I"8076"\nb=L"1"\nc=F"1.5"\nd=D"2.5"\ne=S"3"\nf=X"4"\ng=B"true"\nh=B"false"\ni=C"x"\nj=T"t"\nk="s"\n'
        self.assertEqual(
            parse(text, "f"),
            {
                "a": 8076,
                "b": 1,
                "c": 1.5,
                "d": 2.5,
                "e": 3,
                "f": 4,
                "g": True,
                "h": False,
                "i": "x",
                "j": "t",
                "k": "s",
            },
        )

    def test_escapes(self) -> None:
        text = r'alias="Control\ by\ Threshold"' + "\n" + r'b="a\=b\"c\\d\n\t\u00e4"' + "\n"
        self.assertEqual(parse(text, "f"), {"alias": "Control by Threshold", "b": 'a=b"c\\d\n\tä'})

    def test_collections_and_primitive_arrays(self) -> None:
        text = 'a=i[ \\\n  "1", \\\n  "2", \\\n  ]\nb=( \\\n  "x", \\\n  )\nc=[ \\\n  ]\nd=I["7"]\n'
        self.assertEqual(parse(text, "f"), {"a": [1, 2], "b": ["x"], "c": [], "d": [7]})

    def test_byte_order_mark_and_windows_line_ends(self) -> None:
        self.assertEqual(parse('\ufeffport=I"8082"\r\nx="y"\r\n', "f"), {"port": 8082, "x": "y"})
        self.assertEqual(parse(MANAGER.replace("\n", "\r\n"), "f"), parse(MANAGER, "f"))

    def test_comments_and_no_end_of_line(self) -> None:
        self.assertEqual(parse('# one\n\n  port = I"1"', "f"), {"port": 1})

    def wrong(self, text: str, expected: str) -> None:
        self.assertEqual(self.assertRaises(BadConfiguration, parse, text, "Ui/Websocket.config").problems, [expected])

    def test_errors_name_file_line_and_key(self) -> None:
        self.wrong('a="b"\nport=I"80a2"\n', 'Ui/Websocket.config: line 2: port: "80a2" is no number')
        self.wrong("port\n", "Ui/Websocket.config: line 1: expected key=value")
        self.wrong("port=8082\n", "Ui/Websocket.config: line 1: port: expected a value in quotes, found '8'")
        self.wrong("port=", "Ui/Websocket.config: line 1: port: the value is missing")
        self.wrong('a="b\nc="d"\n', "Ui/Websocket.config: line 1: a: the quotes are not closed")
        self.wrong('a=["b" c]\n', 'Ui/Websocket.config: line 1: a: expected "..." or ]')
        self.wrong('a="\\u00zz"\n', "Ui/Websocket.config: line 1: a: \\u00zz is no character")


class TestFolder(SynchronousTestCase):
    def folder(self, files: dict[str, str]) -> Path:
        root = Path(self.mktemp())
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode())
        return root

    def test_default_of_the_docker_image(self) -> None:
        """core.md 10.3"""
        root = self.folder(
            {
                "Edge/Manager.config": 'service.pid="Edge.Manager"\nport=I"8093"\npoolSize=I"10"\n',
                "Metadata/File.config": 'service.pid="Metadata.File"\npath="/var/opt/openems/metadata.json"\n',
                "Timedata/Dummy.config": 'service.pid="Timedata.Dummy"\nid="timedata0"\n',
                "Ui/Websocket.config": '\ufeffservice.pid="Ui.Websocket"\r\ndebugMode="OFF"\r\nport=I"8082"\r\n'
                'poolSize=I"10"\r\n',
            }
        )
        c, notes = felix.load(root)
        self.assertEqual(notes, [])
        assert c.edge_manager and c.ui_websocket and c.metadata_file
        self.assertEqual((c.edge_manager.port, c.ui_websocket.port), (8093, 8082))
        self.assertEqual(c.metadata_file.path, "/var/opt/openems/metadata.json")
        self.assertEqual([p.id for p in c.timedata_dummy], ["timedata0"])

    def test_superseded_component_is_named_with_its_successor(self) -> None:
        root = self.folder(
            {
                "Edge/Websocket.config": 'service.pid="Edge.Websocket"\n'
                'port=I"8091"\ndebugMode="OFF"\npoolSize=I"10"\n',
                "Metadata/Dummy.config": 'service.pid="Metadata.Dummy"\n',
            }
        )
        c, notes = felix.load(root)
        assert c.edge
        self.assertEqual(c.edge.port, 8091)
        self.assertEqual(
            notes,
            [
                f"{root}/Edge/Websocket.config: Edge.Websocket exists no longer; "
                "edges connect to [edge] on the same port"
            ],
        )

    def test_old_listener_and_manager_together(self) -> None:
        root = self.folder(
            {
                "Edge/Websocket.config": 'port=I"8081"\n',
                "Edge/Manager.config": 'port=I"8093"\n',
                "Metadata/Dummy.config": "",
            }
        )
        c, _ = felix.load(root)
        assert c.edge and c.edge_manager
        self.assertEqual((c.edge.port, c.edge_manager.port), (8081, 8093))

    def test_unknown_and_other_components(self) -> None:
        root = self.folder(
            {
                "Timedata/Cloud/4554366a.config": 'service.factoryPid="Timedata.Cloud"\n'
                'service.pid="Timedata.Cloud.4554366a"\nid="influx0"\n',
                "Backend/Edge/App.config": 'service.pid="Backend.Edge.App"\n',
                "Edge/Manger.config": 'service.pid="Edge.Manger"\n',
                "Metadata/Dummy.config": 'service.pid="Metadata.Dummy"\nedgeIdMax=I"3"\nextra="x"\n',
            }
        )
        imported = convert(read_folder(root))
        self.assertEqual(imported.document, {"metadata.dummy": {"edgeIdMax": 3}})
        self.assertEqual(
            [note.removeprefix(f"{root}/") for note in imported.notes],
            [
                "Backend/Edge/App.config: Backend.Edge.App is a program of its own; with [edge] edges connect to this "
                "backend directly",
                "Edge/Manger.config: Edge.Manger is no known component; the nearest is Edge.Manager",
                "Metadata/Dummy.config: extra is no known key, ignored",
                "Timedata/Cloud/4554366a.config: Timedata.Cloud is no known component; the nearest is Timedata.Dummy",
            ],
        )

    def test_file_without_pid_is_named_by_its_path(self) -> None:
        root = self.folder({"Timedata/Dummy/7.config": 'id="a"\n', "Metadata/Dummy.config": ""})
        c, _ = felix.load(root)
        self.assertEqual([p.id for p in c.timedata_dummy], ["a"])

    def test_number_written_as_text(self) -> None:
        root = self.folder({"Ui/Websocket.config": 'port="8092"\n', "Metadata/Dummy.config": ""})
        c, _ = felix.load(root)
        assert c.ui_websocket
        self.assertEqual(c.ui_websocket.port, 8092)

    def test_wrong_value_is_refused(self) -> None:
        root = self.folder({"Ui/Websocket.config": 'port=I"99999"\n', "Metadata/Dummy.config": ""})
        error = self.assertRaises(BadConfiguration, felix.load, root)
        self.assertEqual(error.problems, [f"{root}: [ui.websocket] port: Expected int <= 65535"])

    def test_all_broken_files_are_named(self) -> None:
        root = self.folder({"A.config": "x\n", "B.config": 'p=I"x"\n'})
        error = self.assertRaises(BadConfiguration, felix.load, root)
        self.assertEqual(
            error.problems,
            [f"{root}/A.config: line 1: expected key=value", f'{root}/B.config: line 1: p: "x" is no number'],
        )

    def test_no_folder(self) -> None:
        error = self.assertRaises(BadConfiguration, felix.load, "/nowhere")
        self.assertEqual(error.problems, ["/nowhere: no such directory"])

    def test_converted_text_is_read_again(self) -> None:
        root = self.folder(
            {
                "Core/TimedataManager.config": MANAGER,
                "Edge/Websocket.config": 'port=I"1"\n',
                "Metadata/File.config": 'path="C:\\\\m.json"\n',
                "T/1.config": 'service.factoryPid="Timedata.Dummy"\nid="influx0"\n',
                "T/2.config": 'service.factoryPid="Timedata.Dummy"\nid="influx1"\n',
            }
        )
        text = convert(read_folder(root)).toml()
        self.assertTrue(text.startswith(f"# {root}/Edge/Websocket.config: Edge.Websocket exists no longer"))
        c = config.parse(text, "f")
        self.assertEqual(c.core_timedatamanager.ids, ["influx1", "influx0"])
        assert c.metadata_file
        self.assertEqual(c.metadata_file.path, "C:\\m.json")
