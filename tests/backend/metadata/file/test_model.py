import json
import os
import stat
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata.file.builder import Problem, build
from openems.backend.metadata.file.check import BadFile, check_metadata, read_model
from openems.backend.metadata.file.demo import create_demo_file
from openems.backend.metadata.file.model import Delays, Model
from openems.backend.metadata.file.reader import read
from openems.backend.metadata.password import verify_password
from openems.common.role import Language, Role

#: metadata.md 20.2; the hash is of ``correct horse``.
HASH = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$L1b1NjppUoj/KIEORq1pof4waLxklM0mqKZzt9nCsKI"
EXAMPLE: dict[str, Any] = {
    "version": 2,
    "edges": {
        "edge0": {
            "comment": "Tal, Graz",
            "apikey": "kQ7v2mXc0Zt9Lr4B",
            "setuppassword": "3f9a-71cc-0b2e-d814",
            "producttype": "Home 10",
            "emsType": "HOME10",
            "serialNumber": "SN-0001",
            "settings": {"color": "blue"},
        },
        "edge1": {"comment": "Berg, Graz", "apikey": "Wm1xP8uYd5Ns3HqE"},
    },
    "users": {
        "mia@example.org": {
            "name": "Mia Berg",
            "passwordHash": HASH,
            "externalIds": ["0a4c1f2e-8f8a-4c36-9d2f-1c0f7d1b2a33"],
            "language": "EN",
            "globalRole": "owner",
            "roles": {"edge0": "owner", "edge1": "guest"},
            "information": {
                "firstname": "Mia",
                "lastname": "Berg",
                "email": "mia@example.org",
                "city": "Graz",
                "country": "at",
            },
            "alerting": {"edge0": {"offline": 60, "fault": 15, "warning": 0}},
        },
        "ops@example.org": {"name": "Operations", "globalRole": "admin", "roles": {"*": "admin"}},
    },
}


def built(body: Any) -> tuple[Model | None, list[Problem]]:
    return build(read(json.dumps(body, indent=1).encode()))


class TestModel(SynchronousTestCase):
    def refuses(self, body: Any, *in_message: str) -> None:
        model, problems = built(body)
        self.assertIsNone(model)
        text = "\n".join(str(problem) for problem in problems if problem.is_error)
        for part in in_message:
            self.assertIn(part, text)

    def with_user(self, **members: Any) -> dict[str, Any]:
        return {"version": 2, "edges": EXAMPLE["edges"], "users": {"Mia": members}}

    def test_example(self) -> None:
        model, problems = built(EXAMPLE)
        self.assertEqual(problems, [])
        assert model is not None and model.users is not None
        edge = model.edges["edge0"]
        self.assertEqual((edge.ems_type, edge.serial_number, edge.settings), ("HOME10", "SN-0001", {"color": "blue"}))
        mia = model.users["mia@example.org"]
        self.assertEqual(mia.roles, {"edge0": Role.OWNER, "edge1": Role.GUEST})
        self.assertIs(mia.language, Language.EN)
        self.assertEqual(mia.alerting, {"edge0": Delays(60, 15, 0)})

    def test_duplicate_keys(self) -> None:
        two = {"a": {"apikey": "k" * 16, "comment": ""}, "b": {"apikey": "k" * 16, "comment": ""}}
        model, problems = built({"edges": two})
        self.assertIsNotNone(model)
        self.assertEqual([problem.is_error for problem in problems], [False])
        self.refuses({"version": 2, "edges": two}, "edges.b.apikey", "edge 'a'")
        self.assertNotIn("kkkk", str(problems[0]))

    def test_refused_in_both_versions(self) -> None:
        self.refuses({"edges": {}, "version": 3}, "version")
        self.refuses({"version": 2, "edges": {}}, "there are no edges")
        self.refuses(self.with_user(language="XX"), "users.Mia.language")
        self.refuses(self.with_user(globalRole="boss"), "users.Mia.globalRole")
        self.refuses(self.with_user(roles={"edge0": "boss"}), "users.Mia.roles.edge0")
        self.refuses(self.with_user(passwordHash="$2b$12$xyz"), "users.Mia.passwordHash", "Argon2id")
        self.refuses(self.with_user(passwordHash="$argon2id$v=19$nonsense"), "users.Mia.passwordHash")
        self.refuses(self.with_user(password="secret"), "users.Mia.password", "hash-password")
        self.refuses(self.with_user(enabled="yes"), "users.Mia.enabled")
        self.refuses(self.with_user(alerting={"edge0": {"offline": -1}}), "users.Mia.alerting.edge0")
        self.refuses({"edges": {}, "users": {"a": {}, "A": {}}}, "users.A", "letter case")
        self.refuses(
            {"edges": {}, "users": {"a": {"externalIds": ["x"]}, "b": {"externalIds": ["x"]}}}, "users.b.externalIds"
        )

    def test_an_external_id_may_not_be_the_login_of_another(self) -> None:
        self.refuses({"edges": {}, "users": {"a": {"externalIds": ["B"]}, "b": {}}}, "users", "'a'")
        self.assertIsNotNone(built({"edges": {}, "users": {"a": {"externalIds": ["a"]}}})[0])

    def test_warned(self) -> None:
        _, problems = built(self.with_user(roles={"edge9": "guest"}, colour="red"))
        paths = sorted(problem.path for problem in problems)
        self.assertEqual(paths, [("users", "Mia", "colour"), ("users", "Mia", "roles", "edge9")])
        edge = {"apikey": "k", "comment": "", "x": 1, "enabled": 5}
        self.assertIsNotNone(built({"edges": {"e": edge}})[0])
        self.refuses({"version": 2, "edges": {"e": edge}}, "edges.e.enabled")


class TestCheck(SynchronousTestCase):
    def test_check_names_file_line_and_member(self) -> None:
        path = self.mktemp()
        self.assertEqual(check_metadata(path), [f"error: {path}: the file does not exist"])
        with open(path, "w") as file:
            file.write('{\n"edges": {\n"edge0": {"comment": "c"}}}')
        self.assertEqual(check_metadata(path), [f"error: {path}: line 3, edges.edge0.apikey: is missing"])
        with self.assertRaises(BadFile):
            read_model(os.path.dirname(os.path.abspath(path)))

    def test_a_file_that_others_may_read(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            json.dump(EXAMPLE, file)
        os.chmod(path, 0o644)
        self.assertIn("mode 644", check_metadata(path)[0])
        os.chmod(path, 0o600)
        self.assertEqual(check_metadata(path), [])

    def test_demo_file_is_without_fault_and_private(self) -> None:
        path = self.mktemp() + "/sub/metadata.json"
        create_demo_file(path, "correct horse", [("edge0", "a" * 20), ("edge1", "b" * 20)])
        self.assertEqual(check_metadata(path), [])
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        model, _ = read_model(path)
        assert model.users is not None
        self.assertTrue(verify_password(model.users["admin"].password_hash or "", "correct horse"))
        self.assertEqual({edge.id: edge.apikey for edge in model.edges.values()}["edge1"], "b" * 20)

    def test_ten_thousand_edges(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            json.dump({"edges": {f"edge{n}": {"apikey": f"{n:016}", "comment": ""} for n in range(10_000)}}, file)
        began = time.process_time()
        self.assertEqual(len(read_model(path)[0].edges), 10_000)
        self.assertLess(time.process_time() - began, 1.0)
