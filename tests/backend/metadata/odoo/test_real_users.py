"""Users, logins, roles, pages against the real Odoo 14 with the addon."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from openems.backend.interfaces import IAuthUserPasswordAuthenticationService, IMetadata, IUserRegistry
from openems.backend.metadata.odoo.rpc import OdooRpc
from openems.backend.models import OrderItem, PageRequest
from openems.common.role import Language, Level, Role
from tests.backend.metadata.odoo.world import OdooCase, pause
from tests.real import real


class Logins(OdooCase):
    async def test_password(self) -> None:
        """7.3, 11.1: a login is one request; the user, his settings and roles come with it."""
        metadata = await self.begin(real("odoo"))
        verifyObject(IMetadata, metadata)
        verifyObject(IUserRegistry, metadata)
        verifyObject(IAuthUserPasswordAuthenticationService, metadata.logins)
        device, edge = self.inside.device()
        _, login = self.inside.user(role="owner", device=device, settings='{"a":1}', openems_language="EN")
        await self.until(lambda: metadata.get_edge(edge))
        before = metadata.rpc.exchange.concurrency.completed
        done = await metadata.logins.authenticate_with_password(login.upper(), "secret", "192.0.2.1:1")
        user = await metadata.get_user_by_external_id(done.user_id)
        self.assertEqual(metadata.rpc.exchange.concurrency.completed - before, 1)
        self.assertEqual((user.id, user.user_id, user.name), (login, login, "Max Muster"))
        self.assertEqual(user.settings, {"a": 1})
        self.assertIs(user.language, Language.EN)
        self.assertFalse(user.has_multiple_edges)
        self.assertIs(metadata.get_user_role(user, edge), Role.OWNER)
        # The same again, as a REST client does: no further session.
        again = await metadata.logins.authenticate_with_password(login, "secret", "192.0.2.1:1")
        self.assertEqual(again.token, done.token)

    async def test_password_again_later(self) -> None:
        """One session of Odoo; a changed password is refused."""
        metadata = await self.begin(real("odoo"))
        number, login = self.inside.user()

        async def log_in() -> str:
            for remembered in metadata.logins._remembered.values():
                remembered.at -= 100
            return (await metadata.logins.authenticate_with_password(login, "secret", "192.0.2.1:1")).token

        self.assertEqual(await log_in(), await log_in())
        self.inside.execute("res.users", "write", [number], {"password": "other"})
        await self.refused(log_in(), 1003)

    async def test_token_and_logout(self) -> None:
        metadata = await self.begin(real("odoo"))
        _, login = self.inside.user()
        token = (await metadata.logins.authenticate_with_password(login, "secret", "192.0.2.1:1")).token
        metadata.logins._remembered.clear()
        self.assertEqual((await metadata.logins.authenticate_with_token(token)).user_id, login)
        await metadata.logins.logout(token)
        await self.refused(metadata.logins.authenticate_with_token(token), 1003)
        for bad in ("", "x" * 40, "a\r\nb", "0" * 40):
            await self.refused(metadata.logins.authenticate_with_token(bad), 1003)

    async def test_refused(self) -> None:
        """16: wrong password, blank credentials, archived user; the same attempt again is not asked again."""
        metadata = await self.begin(real("odoo"))
        number, login = self.inside.user()
        await self.refused(metadata.logins.authenticate_with_password(login, "wrong", "192.0.2.1:1"), 1003)
        before = metadata.rpc.exchange.concurrency.completed
        for name, password in ((login, "wrong"), ("", "x"), ("  ", "x"), (login, "")):
            await self.refused(metadata.logins.authenticate_with_password(name, password, "192.0.2.1:1"), 1003)
        self.assertEqual(metadata.rpc.exchange.concurrency.completed, before)
        self.inside.execute("res.users", "write", [number], {"active": False})
        await self.refused(metadata.logins.authenticate_with_password(login, "secret", "192.0.2.2:1"), 1003)

    async def test_strangers_do_not_lock_others_out(self) -> None:
        """Odoo refuses all logins of an address after ten wrong ones: it must not come to that."""
        metadata = await self.begin(real("odoo"))
        _, login = self.inside.user()
        for number in range(25):
            await self.refused(
                metadata.logins.authenticate_with_password(f"stranger{number}", "x", f"192.0.2.{number}:1"), 1003
            )
            await pause(0.05)
        done = await metadata.logins.authenticate_with_password(login, "secret", "198.51.100.1:1")
        self.assertEqual(done.user_id, login)

    async def test_session_of_another_changed_password(self) -> None:
        metadata = await self.begin(real("odoo"))
        number, login = self.inside.user()
        token = (await metadata.logins.authenticate_with_password(login, "secret", "192.0.2.1:1")).token
        self.inside.execute("res.users", "write", [number], {"password": "other"})
        metadata.logins._remembered.clear()
        await self.refused(metadata.logins.authenticate_with_token(token), 1003)


class Addon(OdooCase):
    """Gaps A1 to A6 of the addon, asked as other backends ask."""

    async def info(self, external_uid: object) -> dict:
        return (await self.metadata.rpc.call("/openems_backend/info", {"external_uid": external_uid}))["user"]

    async def test_whom_external_uid_names(self) -> None:
        metadata = await self.begin(real("odoo"))
        number, login = self.inside.user(oauth_uid="0a4c1f2e-subject" + str(id(self)))
        subject = self.inside.read("res.users", number, "oauth_uid")["oauth_uid"]
        token = (await metadata.logins.authenticate_with_password(login, "secret", "192.0.2.1:1")).token
        for external_uid in (subject, login, token):
            self.assertEqual((await self.info(external_uid))["login"], login)
        self.assertEqual((await metadata.get_user_by_external_id(subject)).user_id, subject)

    async def test_nobody(self) -> None:
        """A1: an empty one would find the administrator."""
        await self.begin(real("odoo"))
        for nobody in (None, "", " ", "nobody", False, 7, "f" * 40):
            await self.refused(self.info(nobody), 1003)
        await self.refused(self.metadata.get_user_by_external_id("nobody"), 1003)
        await self.refused(self.metadata.get_user_by_external_id(""), 1003)
        self.assertTrue(self.metadata.users.addon_answers)

    async def test_only_the_manager_acts_for_others(self) -> None:
        """A2: a portal user has a session, too."""
        metadata = await self.begin(real("odoo"))
        _, login = self.inside.user()
        _, victim = self.inside.user()
        other = OdooRpc(
            metadata.rpc.exchange,
            url=metadata.settings.url,
            database=metadata.settings.database,
            login=login,
            password="secret",
            reactor=metadata._reactor,
        )
        for route, params in (
            ("/openems_backend/info", {"external_uid": victim}),
            ("/openems_backend/get_edges", {"external_uid": victim}),
            ("/openems_backend/set_user_settings", {"userId": victim, "settings": {}}),
            ("/openems_backend/sendRegistrationEmail", {"userId": 2}),
            ("/openems_backend/mail/alerting_offline", {"sentAt": "2026-01-01 00:00:00", "params": []}),
            ("/openems_app_center/get_installed_apps", {"edgeId": "edge0"}),
        ):
            await self.refused(other.call(route, params), 1, "Only the backend's own user")

    async def test_portal_user_reads_no_secrets(self) -> None:
        """A16: neither API key nor setup password of the own device, nothing of others."""
        import xmlrpc.client

        await self.begin(real("odoo"))
        mine, _ = self.inside.device()
        other, _ = self.inside.device()
        number, _ = self.inside.user(role="owner", device=mine)
        info = self.running.info
        proxy = xmlrpc.client.ServerProxy(f"{info['url']}/xmlrpc/2/object", allow_none=True)

        def ask(model: str, method: str, *arguments: object, **options: object) -> object:
            return proxy.execute_kw(info["database"], number, "secret", model, method, arguments, options)

        self.assertEqual(ask("openems.device", "search", []), [mine])
        for field in ("apikey", "setup_password"):
            with self.assertRaises(xmlrpc.client.Fault):
                ask("openems.device", "read", [mine], fields=[field])
            # Nor letter by letter.
            for model, path in (
                ("openems.device", field),
                ("openems.device", f"user_role_ids.device_id.{field}"),
                ("openems.device_user_role", f"device_id.{field}"),
                ("res.users", f"device_role_ids.device_id.{field}"),
            ):
                for method, more in (("search", []), ("read_group", [["id"], []])):
                    with self.assertRaises(xmlrpc.client.Fault, msg=f"{model} {path} {method}"):
                        ask(model, method, [[path, "=like", "%"]], *more)
            # Nor by order or in groups.
            for method, arguments, options in (
                ("search", [[]], {"order": f"{field} desc"}),
                ("read_group", [[], ["id"], [field]], {}),
                ("read_group", [[], [f"secret:max({field})"], ["producttype"]], {}),
            ):
                with self.assertRaisesRegex(xmlrpc.client.Fault, field, msg=f"{method} {arguments} {options}"):
                    ask("openems.device", method, *arguments, **options)
            self.assertTrue(self.inside.execute("openems.device", "search", [[field, "!=", False]]))
        self.inside.execute("openems.setup_protocol", "create", {"device_id": other})
        self.assertEqual(ask("openems.setup_protocol", "search", []), [])
        self.assertEqual(ask("stock.lot", "search", []), [])
        protocol = self.inside.execute("openems.setup_protocol", "create", {"device_id": mine})
        item = {"setup_protocol_id": protocol, "name": "Fuse"}
        self.inside.execute("openems.setup_protocol_item", "create", item)
        for model in ("openems.setup_protocol", "openems.setup_protocol_item"):
            self.assertEqual(len(ask(model, "search", [])), 1)
        role = self.inside.execute("openems.device_user_role", "search", [["user_id", "=", number]])
        self.inside.execute("openems.device_user_role", "write", role, {"role": "guest"})
        self.assertEqual(ask("openems.device", "search", []), [mine])
        for model in ("openems.setup_protocol", "openems.setup_protocol_item", "openems.openemsconfigupdate"):
            self.assertEqual(ask(model, "search", []), [])
        with self.assertRaises(xmlrpc.client.Fault):
            ask("openems.device", "write", [mine], {"comment": "x"})

    async def test_missing_route_and_session_expired(self) -> None:
        """1.3: 404 names the route; an ended session is renewed once and shared."""
        metadata = await self.begin(real("odoo"))
        missing = "/openems_backend/none"
        await self.refused(metadata.rpc.call(missing, {}), 1, f"too old: it has no {missing}")
        await metadata.rpc.call("/openems_backend/info", {"external_uid": "admin"})
        logins = metadata.rpc.logins
        metadata.rpc._session = "0" * 40
        answer = await metadata.rpc.call("/openems_backend/info", {"external_uid": "admin"})
        self.assertEqual(answer["user"]["login"], "admin")
        self.assertEqual(metadata.rpc.logins, logins + 1)

    async def test_error_texts(self) -> None:
        """Q17: neither request nor traceback."""
        metadata = await self.begin(real("odoo"))
        error = await self.refused(
            metadata.rpc.call("/openems_backend/get_edges", {"external_uid": "admin", "page": "x"}), 1
        )
        self.assertNotIn("Traceback", error.message)
        self.assertNotIn("external_uid", error.message)


class Roles(OdooCase):
    async def test_page(self) -> None:
        """11.3: filters, order by severity (A7), roles (A5), fields."""
        metadata = await self.begin(real("odoo"))
        states = {"warning": None, "fault": None, None: None, "info": None}
        devices = {}
        number, login = self.inside.user()
        for state in states:
            device, edge = self.inside.device(producttype="typ-x", comment="Haus 7")
            self.inside.sql("UPDATE openems_device SET openems_sum_state_level = %s WHERE id = %s", state, device)
            self.inside.role(number, device, "owner")
            devices[state] = edge
        other, _ = self.inside.device(producttype="typ-y")
        self.inside.role(number, other, "guest")
        self.inside.device(producttype="typ-x")
        await metadata.reader.read()
        user = await metadata.get_user_by_external_id(login)
        self.assertTrue(user.has_multiple_edges)

        async def ids(**more: object) -> list[str]:
            return [e["id"] for e in await metadata.get_page(user, PageRequest(page=0, limit=20, **more))]

        self.assertEqual(len(await ids()), 5)
        self.assertEqual(len(await ids(query="HAUS")), 4)
        self.assertEqual(await ids(producttype=["typ-y"]), [metadata.table.name(other)])
        for query in ("%", "_", "\\"):
            self.assertEqual(await ids(query=query), [])
            self.inside.execute("openems.device", "write", [other], {"comment": f"a{query}b"})
            self.assertEqual(await ids(query=f"A{query}B"), [metadata.table.name(other)])
            self.inside.execute("openems.device", "write", [other], {"comment": ""})
        descending = [OrderItem("sumState", True), OrderItem("id", False)]
        self.assertEqual(
            await ids(query="haus", order=descending), [devices[s] for s in ("fault", "warning", "info", None)]
        )
        self.assertEqual(
            await ids(order=[OrderItem("sumState", True)], query="haus"), await ids(query="haus", order=descending)
        )
        self.assertEqual(
            await ids(sum_state=[Level.FAULT, Level.WARNING]), sorted([devices["fault"], devices["warning"]])
        )
        self.assertEqual(await ids(sum_state=[Level.OK], producttype=["typ-x"]), [devices[None]])
        self.assertEqual(await ids(is_online=True), [])
        page = await metadata.get_page(user, PageRequest(page=1, limit=2))
        self.assertEqual(len(page), 2)
        first = (await metadata.get_page(user, PageRequest(page=0, query=devices["fault"])))[0]
        self.assertEqual((first["role"], first["sumState"], first["comment"]), ("owner", "FAULT", "Haus 7"))
        self.assertNotIn("lastmessage", first)
        await self.refused(metadata.get_edge_metadata(user, "edge0815"), 1, "Unable to find edge with id [edge0815]")

    async def test_manager_and_reader(self) -> None:
        metadata = await self.begin(real("odoo"))
        device, edge = self.inside.device()
        await self.until(lambda: metadata.get_edge(edge))
        admin = await metadata.get_user_by_external_id("admin")
        self.assertIs(admin.global_role, Role.ADMIN)
        self.assertTrue(admin.has_multiple_edges)
        self.assertIs(metadata.get_user_role(admin, edge), Role.ADMIN)
        self.assertEqual((await metadata.get_edge_metadata(admin, edge))["role"], "admin")
        self.assertIsNone(metadata.get_user_role(admin, "edge0815"))
        group = self.inside.execute("ir.model.data", "check_object_reference", "openems", "group_openems_reader")[1]
        number, login = self.inside.user(groups_id=[[6, 0, [group]]])
        self.inside.execute("res.users", "write", [number], {"groups_id": [[4, group]]})
        reader = await metadata.get_user_by_external_id(login)
        self.assertIs(metadata.get_user_role(reader, edge), Role.GUEST)
        self.inside.role(2, device, "guest")
        await pause(0)
        metadata.users.roles_changed(2)
        await self.until(lambda: metadata.get_user_role(admin, edge) is Role.GUEST)

    async def test_without_the_addons_help(self) -> None:
        """An addon that answers for the administrator only: users by XML-RPC, pages from memory (quirk Q3)."""
        metadata = await self.begin(real("odoo"))
        device, edge = self.inside.device()
        _, login = self.inside.user(role="installer", device=device)
        await self.until(lambda: metadata.get_edge(edge))
        metadata.users.addon_answers = False
        user = await metadata.get_user_by_external_id(login)
        self.assertEqual(user.id, login)
        self.assertIs(metadata.get_user_role(user, edge), Role.INSTALLER)
        self.assertEqual([e["id"] for e in await metadata.get_page(user, PageRequest(page=0))], [edge])
        self.assertEqual((await metadata.get_edge_metadata(user, edge))["role"], "installer")
        admin = await metadata.get_user_by_external_id("admin")
        self.assertIs(metadata.get_user_role(admin, edge), Role.ADMIN)
        await self.refused(metadata.get_user_by_external_id("nobody"), 1003)
