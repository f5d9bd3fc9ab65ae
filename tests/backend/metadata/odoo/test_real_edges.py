"""Edges in Odoo's real database: read, kept fresh, written (metadata-odoo.md 4, 5, 11.10 to 11.12)."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

from msgspec import Raw

from openems.backend.events import ConfigReceived, ConfigUpdated, EdgesChanged, MetadataInitialized
from openems.backend.metadata.odoo import configs, statements
from openems.backend.models import User
from openems.common.errors import OpenemsError
from openems.common.role import Level
from openems.common.semver import SemanticVersion
from tests.backend.metadata.odoo.world import Inside, OdooCase
from tests.real import real

NOTIFY = Path(__file__).parents[4] / "deploy" / "odoo" / "notify.sql"
RIGHTS = NOTIFY.with_name("rights.sql")
CONFIG = Raw(
    b'{"components":{"_sum":{"alias":"","factoryId":"Core.Sum","properties":{"n":12345678901234567890}},'
    b'"ctrl0":{"alias":"C","factoryId":"Controller.X","properties":{"power":1000,"text":"<b>\xc3\xa4"}}},'
    b'"factories":{"x":{}},"unknown":1.50}'
)


class Reading(OdooCase):
    async def test_start(self) -> None:
        """4, P1, P2: values as Odoo has them; everybody is offline; initialised once."""
        inside = Inside(real("odoo"))
        device, edge = inside.device(comment="Haus", producttype="gen1")
        inside.sql(
            "UPDATE openems_device SET openems_is_connected = TRUE, openems_version = '2026.4.0', lastmessage ="
            " '2026-04-20 11:22:33.456789', openems_sum_state_level = 'warning' WHERE id = %s",
            device,
        )
        metadata = await self.begin(real("odoo"), poll_interval=3600)
        self.assertTrue(metadata.initialized)
        found = metadata.get_edge(edge)
        self.assertEqual((found.comment, found.producttype, str(found.version)), ("Haus", "gen1", "2026.4.0"))
        self.assertEqual(found.lastmessage, 1_776_684_120_000)
        self.assertIs(found.sum_state, Level.WARNING)
        self.assertFalse(found.online)
        self.assertEqual(inside.read("openems.device", device, "openems_is_connected")["openems_is_connected"], False)
        self.assertEqual(metadata.edge_id_for_apikey(f"key-{edge}"), edge)
        self.assertIsNone(metadata.edge_id_for_apikey(f"KEY-{edge}"))
        self.assertEqual(metadata.edge_id_for_setup_password(f"setup-{edge}"), edge)
        self.assertIsNone(metadata.edge_id_for_setup_password(""))
        self.assertEqual(metadata.health(), [])

    async def test_new_edge_without_restart(self) -> None:
        """T035, Q1: by looking, within the interval."""
        metadata = await self.begin(real("odoo"), poll_interval=0.3)
        changes: list[object] = []
        self.events.subscribe(EdgesChanged, changes.append)
        device, edge = self.inside.device()
        await self.until(lambda: metadata.get_edge(edge))
        self.assertTrue(changes)
        self.inside.execute("openems.device", "write", [device], {"apikey": f"new-{edge}", "comment": "neu"})
        await self.until(lambda: metadata.edge_id_for_apikey(f"new-{edge}") == edge)
        self.assertIsNone(metadata.edge_id_for_apikey(f"key-{edge}"))
        self.assertEqual(metadata.get_edge(edge).comment, "neu")
        self.inside.sql("DELETE FROM openems_device WHERE id = %s", device)
        await self.until(lambda: metadata.get_edge(edge) is None)

    async def test_new_edge_that_somebody_asks_for(self) -> None:
        """Its first try finds it unknown, its next one, seconds later, does not."""
        metadata = await self.begin(real("odoo"), poll_interval=3600)
        _, edge = self.inside.device()
        self.assertIsNone(metadata.edge_id_for_apikey(f"key-{edge}"))
        await self.until(lambda: metadata.apikeys_to_edge_ids().get(f"key-{edge}"))

    async def test_notifications(self) -> None:
        """With the triggers: at once; what the backend writes notifies nobody; roles, too."""
        metadata = await self.begin(real("odoo"), poll_interval=3600)
        self.inside.sql(NOTIFY.read_text())
        try:
            metadata.reader.wanted()
            await self.until(lambda: metadata.reader.notified)
            device, edge = self.inside.device()
            began = time.monotonic()
            await self.until(lambda: metadata.get_edge(edge))
            self.assertLess(time.monotonic() - began, 2.0)
            number, login = self.inside.user()
            user = await metadata.get_user_by_external_id(login)
            self.assertIsNone(metadata.get_user_role(user, edge))
            self.inside.role(number, device, "owner")
            await self.until(lambda: metadata.get_user_role(user, edge))
            before = metadata.reader.listener.notifications
            metadata.get_edge(edge).set_version(SemanticVersion.parse("2026.5.0"))
            await metadata.writer.flush()
            # A notification that comes surely after one of that write would have.
            self.inside.execute("openems.device", "write", [device], {"comment": "x"})
            await self.until(lambda: metadata.get_edge(edge).comment == "x")
            self.assertEqual(metadata.reader.listener.notifications, before + 1)
        finally:
            for table in ("device", "device_user_role"):
                name = "device" if table == "device" else "role"
                self.inside.sql(f"DROP TRIGGER openems_backend_{name} ON openems_{table}")

    async def test_one_key_for_two_edges(self) -> None:
        """1.2: neither connects, and somebody is told. Our addon's index forbids it, others' do not."""
        metadata = await self.begin(real("odoo"))
        self.inside.sql("ALTER TABLE openems_device DROP CONSTRAINT openems_device_unique_apikey")
        try:
            _, one = self.inside.device(apikey=f"shared-{id(self)}")
            device, other = self.inside.device(apikey=f"shared-{id(self)}")
            await self.until(lambda: metadata.get_edge(other))
            self.assertIsNone(metadata.edge_id_for_apikey(f"shared-{id(self)}"))
            self.assertTrue(any(one in warning for warning in metadata.warnings()))
            self.assertEqual(len(self.flushLoggedErrors()), 0)
            self.inside.execute("openems.device", "write", [device], {"apikey": f"own-{id(self)}"})
            await self.until(lambda: metadata.edge_id_for_apikey(f"shared-{id(self)}") == one)
        finally:
            self.inside.sql("ALTER TABLE openems_device ADD CONSTRAINT openems_device_unique_apikey UNIQUE (apikey)")

    async def test_odd_rows(self) -> None:
        """Names that are no number, archived devices (Q29), rows without a key by other addons' columns."""
        metadata = await self.begin(real("odoo"))
        device, edge = self.inside.device(name=f"edgeX{id(self)}")
        self.inside.execute("openems.device", "write", [device], {"active": False})
        await self.until(lambda: metadata.get_edge(edge))
        self.assertEqual(metadata.edge_id_for_apikey(f"key-{edge}"), edge)
        self.inside.sql("ALTER TABLE openems_device ALTER COLUMN apikey DROP NOT NULL")
        try:
            self.inside.sql("INSERT INTO openems_device (name) VALUES (%s)", f"keyless{id(self)}")
            self.inside.device(name=f"edgeY{id(self)}")
            await self.until(lambda: metadata.get_edge(f"edgeY{id(self)}"))
            self.assertIsNone(metadata.get_edge(f"keyless{id(self)}"))
        finally:
            self.inside.sql("DELETE FROM openems_device WHERE apikey IS NULL")
            self.inside.sql("ALTER TABLE openems_device ALTER COLUMN apikey SET NOT NULL")


class Writing(OdooCase):
    async def test_status(self) -> None:
        """P7 to P10 and the version; Odoo shows them."""
        metadata = await self.begin(real("odoo"))
        device, edge_id = self.inside.device()
        await self.until(lambda: metadata.get_edge(edge_id))
        edge = metadata.get_edge(edge_id)
        edge.set_online(True)
        edge.set_lastmessage(1_776_684_153_000)
        edge.set_sum_state(Level.FAULT)
        edge.set_version(SemanticVersion.parse("2026.4.0"))
        edge.set_producttype("HW01A")
        fields = ("openems_is_connected", "lastmessage", "openems_sum_state_level", "openems_version", "producttype")

        def shown() -> tuple[object, ...]:
            record = self.inside.read("openems.device", device, *fields)
            return tuple(record[field] for field in fields)

        wanted = (True, "2026-04-20 11:22:00", "fault", "2026.4.0", "HW01A")
        await self.until(lambda: shown() == wanted)
        edge.set_online(False)
        await self.until(lambda: shown() == (False, *wanted[1:]))
        self.assertEqual(metadata.writer.waiting, 0)

    async def test_refused_values_hold_up_nobody(self) -> None:
        metadata = await self.begin(real("odoo"))
        ids = [self.inside.device() for _ in range(3)]
        await self.until(lambda: metadata.get_edge(ids[2][1]))
        metadata.get_edge(ids[0][1]).set_producttype("a\x00b")
        for _, name in ids:
            metadata.get_edge(name).set_online(True)
        await self.until(lambda: metadata.writer.dropped == 1)
        for device, _ in ids[1:]:
            record = self.inside.read("openems.device", device, "openems_is_connected")
            self.assertTrue(record["openems_is_connected"])

    async def test_configuration(self) -> None:
        """P3 to P5, 11.10: the change is listed, Odoo has a readable text, users get the edge's own bytes."""
        metadata = await self.begin(real("odoo"))
        device, edge = self.inside.device()
        await self.until(lambda: metadata.get_edge(edge))
        updates: list[ConfigUpdated] = []
        self.events.subscribe(ConfigUpdated, updates.append)
        self.assertEqual(bytes(await metadata.get_edge_config(edge)), b'{"components":{},"factories":{}}')
        self.events.publish(ConfigReceived(edge, CONFIG))
        self.assertEqual(await metadata.get_edge_config(edge), CONFIG)
        await self.until(lambda: updates)
        metadata.configs._kept.clear()
        self.assertEqual(bytes(await metadata.get_edge_config(edge)), bytes(CONFIG))
        text, components = self.inside.sql(
            "SELECT openems_config, openems_config_components FROM openems_device WHERE id = %s", device
        )[0]
        self.assertIn('\n  "components": {\n', text)
        self.assertNotIn("factories", components)

        def log() -> list[dict]:
            return self.inside.execute(
                "openems.openemsconfigupdate", "search_read", [["device_id", "=", device]], fields=["teaser", "details"]
            )

        first = log()[0]
        self.assertIn("Created ctrl0 (Controller.X): power=1000", first["teaser"])
        self.assertIn("&lt;b&gt;", first["details"])
        changed = Raw(bytes(CONFIG).replace(b":1000", b":2000"))
        self.events.publish(ConfigReceived(edge, changed))
        await self.until(lambda: len(log()) == 2)
        self.assertEqual(log()[0]["teaser"], "Updated ctrl0 (Controller.X): power=2000 [was:1000]\n")
        # The same again, its numbers as texts (R4): no entry.
        self.events.publish(ConfigReceived(edge, Raw(bytes(changed).replace(b":2000", b':"2000"'))))
        await self.until(lambda: not metadata.configurations._bursts)
        self.assertEqual(len(log()), 2)

    async def test_system_log(self) -> None:
        """P6, 11.11."""
        metadata = await self.begin(real("odoo"))
        device, edge = self.inside.device()
        await self.until(lambda: metadata.get_edge(edge))
        user = User(id="max@example.com", user_id="max@example.com", name="Max")
        metadata.log_generic_system_log(edge, user, "Systemcommand: ls", {"Sudo": "true", "Command": "ls <x>"})
        await self.until(lambda: metadata.system_log.written == 1)
        entry = self.inside.sql(
            "SELECT teaser, details, create_uid, create_date FROM openems_openemsconfigupdate WHERE device_id = %s",
            device,
        )[0]
        self.assertEqual(entry[0], "Systemcommand: ls")
        self.assertIn("<td>ls &lt;x&gt;</td><td>max@example.com: Max</td>", entry[1])
        self.assertIsNone(entry[2])
        age = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - entry[3]
        self.assertLess(abs(age.total_seconds()), 60)
        with self.assertRaises(OpenemsError):
            metadata.log_generic_system_log("edge0815", user, "x", {})

    async def test_least_rights(self) -> None:
        """5: what ``pgUser`` needs, and no more."""
        inside = Inside(real("odoo"))
        if inside.sql("SELECT 1 FROM pg_roles WHERE rolname = 'openems_backend'"):
            inside.sql("DROP OWNED BY openems_backend; DROP ROLE openems_backend")
        inside.sql(RIGHTS.read_text())
        inside.sql("ALTER ROLE openems_backend PASSWORD 'least'")
        for column, allowed in (("apikey", False), ("setup_password", False), ("name", False), ("lastmessage", True)):
            asked = "SELECT has_column_privilege('openems_backend', 'openems_device', %s, 'UPDATE')"
            self.assertEqual(inside.sql(asked, column), [(allowed,)], column)
        metadata = await self.begin(real("odoo"), pg_user="openems_backend", pg_password="least")
        device, edge = self.inside.device()
        await self.until(lambda: metadata.get_edge(edge))
        metadata.get_edge(edge).set_online(True)
        self.events.publish(ConfigReceived(edge, CONFIG))
        await self.until(
            lambda: self.inside.sql("SELECT 1 FROM openems_openemsconfigupdate WHERE device_id = %s", device)
        )
        await self.until(
            lambda: self.inside.read("openems.device", device, "openems_is_connected")["openems_is_connected"]
        )
        await self.until(lambda: metadata.configs.waiting == 0)

    async def test_rights_withdrawn(self) -> None:
        """Somebody made a mistake: the backend starts and works, says what is wrong, and nothing is lost."""
        inside = Inside(real("odoo"))
        inside.sql("DROP ROLE IF EXISTS openems_readonly; CREATE ROLE openems_readonly LOGIN PASSWORD 'least'")
        inside.sql("GRANT SELECT ON openems_device TO openems_readonly")
        self.addCleanup(inside.sql, "DROP OWNED BY openems_readonly; DROP ROLE openems_readonly")
        devices = [inside.device() for _ in range(3)]
        self.patch(configs, "RETRY", 0.2)
        metadata = await self.begin(real("odoo"), pg_user="openems_readonly", pg_password="least")
        self.assertTrue(metadata.initialized)
        user = User(id="max@example.com", user_id="max@example.com", name="Max")
        for _, name in devices:
            metadata.get_edge(name).set_online(True)
            self.events.publish(ConfigReceived(name, CONFIG))
            metadata.log_generic_system_log(name, user, "Systemcommand: ls", {})
        await self.until(lambda: len(metadata.health()) == 3)
        for problem in metadata.health():
            self.assertIn("permission denied", problem)
        parts = (metadata.writer, metadata.configs, metadata.system_log)
        self.assertEqual([part.waiting for part in parts], [3, 3, 3])
        grants = RIGHTS.read_text().replace("CREATE ROLE openems_backend LOGIN;", "")
        inside.sql(grants.replace("_backend", "_readonly"))
        await self.until(lambda: not metadata.health() and not any(part.waiting for part in parts))
        for device, _ in devices:
            self.assertEqual(
                inside.sql(
                    "SELECT openems_is_connected, openems_config <> '',"
                    " (SELECT count(*) FROM openems_openemsconfigupdate WHERE device_id = d.id)"
                    " FROM openems_device d WHERE id = %s",
                    device,
                ),
                [(True, True, 2)],
            )
        self.assertEqual([part.dropped for part in parts], [0, 0, 0])

    async def test_initialised_once(self) -> None:
        initialised: list[object] = []
        metadata = await self.begin(real("odoo"))
        self.events.subscribe(MetadataInitialized, initialised.append)
        await metadata.reader.read()
        self.assertEqual(initialised, [])
        self.assertEqual(statements.CHANNEL, "openems_backend")


class WithTheJavaBackend(OdooCase):
    """The addon serves it, too: its statements (5.2) and the shapes it reads strictly (11.2, 11.3)."""

    async def test_statements(self) -> None:
        inside = Inside(real("odoo"))
        device, name = inside.device()
        for text, parameters in (
            ("UPDATE openems_device SET openems_is_connected = FALSE;", ()),
            (
                "SELECT id,apikey,setup_password,name,comment,openems_version,lastmessage,producttype"
                " FROM openems_device;",
                (),
            ),
            ("SELECT openems_config FROM openems_device WHERE name = %s LIMIT 1;", (name,)),
            (
                "UPDATE openems_device SET openems_config = %s, openems_config_components = %s WHERE id = %s",
                ("{}", "{}", device),
            ),
            (
                "INSERT INTO openems_openemsconfigupdate (create_date, device_id, teaser, details)"
                " VALUES(%s, %s, %s, %s)",
                (datetime.datetime(2026, 4, 20), device, "t", "<table></table>"),
            ),
            ("UPDATE openems_device SET producttype = %s WHERE id = %s", ("gen1", device)),
            (f"UPDATE openems_device SET lastmessage = (now() at time zone 'UTC') WHERE id IN ({device})", ()),
            (f"UPDATE openems_device SET openems_is_connected = TRUE WHERE id IN ({device})", ()),
            (f"UPDATE openems_device SET openems_sum_state_level = 'fault' WHERE id IN ({device})", ()),
        ):
            inside.sql(text, *parameters)
        fields = ("openems_is_connected", "openems_sum_state_level", "producttype", "openems_config_update_ids")
        record = inside.read("openems.device", device, *fields)
        self.assertEqual([record[field] for field in fields[:3]], [True, "fault", "gen1"])
        self.assertEqual(len(record["openems_config_update_ids"]), 1)

    async def test_shapes(self) -> None:
        metadata = await self.begin(real("odoo"))
        device, name = self.inside.device()
        _, login = self.inside.user(role="owner", device=device)
        user = (await metadata.rpc.call("/openems_backend/info", {"external_uid": login}))["user"]
        types = {"id": int, "login": str, "name": str, "language": str, "global_role": str, "has_multiple_edges": bool}
        for member, kind in {**types, "settings": str}.items():
            self.assertIs(type(user[member]), kind, member)
        asked = {"external_uid": login, "page": 0, "limit": 20, "searchParams": {}}
        shapes = (await metadata.rpc.call("/openems_backend/get_edges", asked))["devices"]
        shapes.append(
            await metadata.rpc.call("/openems_backend/get_edge_with_role", {"external_uid": login, "edge_id": name})
        )
        for shape in shapes:
            self.assertEqual(
                shape,
                {
                    "id": device,
                    "name": name,
                    "comment": "",
                    "producttype": "",
                    "role": "owner",
                    "lastmessage": None,
                    "openems_sum_state_level": "ok",
                },
            )
        unseen = {"external_uid": login, "edge_id": "edge0815"}
        self.assertEqual(await metadata.rpc.call("/openems_backend/get_edge_with_role", unseen), {})
