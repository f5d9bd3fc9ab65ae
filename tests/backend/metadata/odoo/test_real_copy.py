"""``openems-backend metadata copy`` with the real Odoo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.internet.threads import deferToThread

from openems.backend.metadata.file.check import read_model
from openems.common.role import Language, Role
from tests.backend.metadata.odoo.world import Inside, OdooCase
from tests.real import real

ROOT = Path(__file__).parents[4]


class Copy(OdooCase):
    def configuration(self) -> str:
        running = real("odoo")
        path = self.mktemp() + ".toml"
        Path(path).write_text(
            f"[metadata.odoo]\nodooHost = '127.0.0.1'\nodooPort = {running.port}\nodooPassword = 'admin'\n"
            f"odooUid = 2\ndatabase = 'prod'\npgPort = {running.info['pg_port']}\n"
        )
        return path

    async def run_command(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "openems.application", "metadata", "copy", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return await deferToThread(
            subprocess.run, command, capture_output=True, text=True, timeout=100, env=environment
        )

    async def test_there_and_back(self) -> None:
        inside = Inside(real("odoo"))
        mark = f"{id(self)}"
        edges = {
            f"copy{mark}a": {"comment": "A", "apikey": f"ka{mark}", "setuppassword": f"sa{mark}", "producttype": "t"},
            f"copy{mark}b": {
                "comment": "",
                "apikey": f"kb{mark}",
                "setuppassword": f"sb{mark}",
                "serialNumber": f"SN{mark}",
                "emsType": "typ",
                "settings": {"a": 1},
                "enabled": False,
            },
        }
        login, boss = f"max{mark}@example.com", f"boss{mark}@example.com"
        information = {"firstname": "Max", "lastname": "Muster", "city": "Deggendorf", "country": "de"}
        users = {
            login: {
                "name": "Max Muster",
                "globalRole": "owner",
                "language": "NL",
                "externalIds": [f"sub-{mark}"],
                "roles": {f"copy{mark}a": "owner"},
                "settings": {"x": True},
                "information": information,
                "alerting": {f"copy{mark}a": {"offline": 15, "fault": 0, "warning": 60}},
            },
            boss: {"name": "Boss", "roles": {"*": "admin"}},
        }
        source = self.mktemp() + ".json"
        Path(source).write_text(json.dumps({"version": 2, "edges": edges, "users": users}))
        state = source.removesuffix(".json") + "-state.json"
        Path(state).write_text(json.dumps({"users": {login: {"grants": {f"copy{mark}b": "installer"}}}}))
        configuration = self.configuration()
        dry = await self.run_command(source, configuration, "--dry-run")
        self.assertIn("2 edges, 2 users, 3 roles, 1 alerting settings would be copied", dry.stdout, dry.stderr)
        self.assertEqual(inside.execute("openems.device", "search", [["name", "like", f"copy{mark}"]]), [])
        done = await self.run_command(source, configuration)
        self.assertIn("2 edges, 2 users, 3 roles, 1 alerting settings copied", done.stdout, done.stderr)
        again = await self.run_command(source, configuration)
        self.assertIn("0 edges, 0 users, 1 roles, 0 alerting settings copied", again.stdout, again.stderr)
        # The backend finds all of it.
        metadata = await self.begin(real("odoo"))
        self.assertEqual(metadata.edge_id_for_apikey(f"ka{mark}"), f"copy{mark}a")
        user = await metadata.get_user_by_external_id(f"sub-{mark}")
        self.assertEqual((user.id, user.language, user.settings), (login, Language.NL, {"x": True}))
        self.assertIs(metadata.get_user_role(user, f"copy{mark}b"), Role.INSTALLER)
        admin = await metadata.get_user_by_external_id(boss)
        self.assertIs(metadata.get_user_role(admin, f"copy{mark}a"), Role.ADMIN)
        self.assertEqual(await metadata.get_serial_number(f"copy{mark}b"), f"SN{mark}")
        # And back.
        target = self.mktemp() + ".json"
        back = await self.run_command(configuration, target)
        self.assertEqual(back.returncode, 0, back.stderr)
        self.assertEqual(os.stat(target).st_mode & 0o777, 0o600)
        document = json.loads(Path(target).read_text())
        for name, edge in edges.items():
            self.assertEqual(document["edges"][name], edge)
        stored = document["users"][login]
        self.assertEqual(
            {**stored, "information": None}, {**users[login], "information": None, "roles": stored["roles"]}
        )
        self.assertEqual(stored["roles"], {f"copy{mark}a": "owner", f"copy{mark}b": "installer"})
        self.assertEqual(stored["information"], {**information, "email": login})
        self.assertEqual(document["users"][boss]["roles"], {"*": "admin"})
        model, _ = read_model(target)
        self.assertIn(login, model.users)
        # A file that is there is not overwritten.
        self.assertEqual((await self.run_command(configuration, target)).returncode, 1)

    async def test_wrong(self) -> None:
        configuration = self.configuration()
        for arguments, text in (
            (("a.json", "b.json"), "One of the two"),
            ((configuration, configuration), "One of the two"),
            (("/nowhere.json", configuration), "/nowhere.json"),
        ):
            done = await self.run_command(*arguments)
            self.assertEqual(done.returncode, 1)
            self.assertIn(text, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
