"""Every operation of metadata-odoo.md 11 against the real Odoo 14 with the addon, mails to a real SMTP server."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from openems.backend.alerting.rules import MassGuard
from openems.backend.alerting.service import AlertingService
from openems.backend.alerting.store import FileStore
from openems.backend.interfaces import IAppCenterMetadata, IMailDirectory, IMailer, INotificationStamps
from openems.backend.metadata.odoo.provider import OdooMetadata
from openems.backend.models import MailContext, User, UserAlertingSettings
from openems.common.role import Language, Role
from tests.backend.metadata.odoo.sink import Sink
from tests.backend.metadata.odoo.world import OdooCase, pause, reactor
from tests.real import real


class Case(OdooCase):
    async def world(self, role: str = "owner") -> tuple[OdooMetadata, User, int, str]:
        """A user with that role for a new edge."""
        metadata = await self.begin(real("odoo"))
        device, edge = self.inside.device()
        self.number, login = self.inside.user(role=role, device=device)
        await self.until(lambda: metadata.get_edge(edge))
        return metadata, await metadata.get_user_by_external_id(login), device, edge

    def sink(self) -> Sink:
        """Odoo's outgoing server, until the end of the test."""
        sink = Sink()
        port = reactor.listenTCP(0, sink, interface="127.0.0.1")
        values = {"name": "sink", "smtp_host": "127.0.0.1", "smtp_port": port.getHost().port}
        server = self.inside.execute("ir.mail_server", "create", values)
        self.inside.execute("res.company", "write", [1], {"email": "office@example.com"})

        def end() -> Deferred[None]:
            self.inside.execute("ir.mail_server", "unlink", [server])
            return port.stopListening()

        self.addCleanup(end)
        return sink


class Edges(Case):
    async def test_setup_password(self) -> None:
        """11.4, Q13: an installer gains the edge; who had a role before keeps it."""
        metadata, owner, device, edge_id = await self.world("owner")
        _, login = self.inside.user()
        installer = await metadata.get_user_by_external_id(login)
        self.assertIsNone(metadata.get_user_role(installer, edge_id))
        self.assertEqual(metadata.edge_id_for_setup_password(f"setup-{edge_id}"), edge_id)
        edge = metadata.get_edge(edge_id)
        for user, role in ((installer, Role.INSTALLER), (owner, Role.OWNER)):
            await metadata.add_edge_to_user(user, edge)
            self.assertIs(metadata.get_user_role(user, edge_id), role)
        found = self.inside.execute(
            "openems.device_user_role", "search_read", [["device_id", "=", device]], fields=["role"]
        )
        self.assertEqual(sorted(record["role"] for record in found), ["installer", "owner"])

    async def test_serial_number_and_ems_type(self) -> None:
        metadata, _, device, edge = await self.world()
        self.assertIsNone(await metadata.get_serial_number(edge))
        self.assertIsNone(await metadata.get_ems_type(edge))
        lot = self.inside.execute("stock.lot", "create", {"name": f"SN-{device}"})
        self.inside.execute("openems.device", "write", [device], {"stock_production_lot_id": lot, "ems_type": "typ"})
        self.assertEqual(await metadata.get_serial_number(edge), f"SN-{device}")
        self.assertEqual(await metadata.get_ems_type(edge), "typ")
        self.assertIsNone(await metadata.get_ems_type("edge0815"))

    async def test_name_stays(self) -> None:
        _, _, device, _ = await self.world()
        import xmlrpc.client

        with self.assertRaises(xmlrpc.client.Fault):
            self.inside.execute("openems.device", "write", [device], {"name": "other"})
        number = self.inside.execute("openems.device", "create", {"name": f"edgeNew{device}"})
        made = self.inside.read("openems.device", number, "apikey", "setup_password", "name_number")
        self.assertRegex(made["apikey"], r"\A[A-Za-z0-9]{20}\Z")
        self.assertRegex(made["setup_password"], r"\A([A-Z0-9]{4}-){3}[A-Z0-9]{4}\Z")
        self.assertEqual(made["name_number"], -1)


class People(Case):
    async def test_information(self) -> None:
        """11.5, Q11: without a country, and with all."""
        metadata, user, _, _ = await self.world()
        empty = await metadata.get_user_information(user)
        self.assertIsNone(empty["address"]["country"])
        information = {
            "firstname": "Ida",
            "lastname": "Bau",
            "email": "Ida@Example.com",
            "phone": "+49 1",
            "address": {"street": "Weg 1", "zip": "94469", "city": "Deggendorf", "country": "de"},
            "company": {"name": f"ACME {self.number}"},
        }
        await metadata.set_user_information(user, information)
        stored = await metadata.get_user_information(user)
        self.assertEqual(stored, {**information, "email": "ida@example.com"})
        self.assertEqual(self.inside.read("res.users", self.number, "name")["name"], "Ida Bau")
        await metadata.set_user_information(user, {"phone": None, "company": {"name": f"ACME {self.number}"}})
        self.assertEqual(await metadata.get_user_information(user), {**stored, "phone": None})
        await self.refused(metadata.set_user_information(user, {"phone": 7}), 5010)

    async def test_language_and_settings(self) -> None:
        metadata, user, _, _ = await self.world()
        changed = await metadata.update_user_language(user, Language.NL)
        self.assertIs(changed.language, Language.NL)
        self.assertEqual(self.inside.read("res.users", self.number, "openems_language")["openems_language"], "NL")
        await metadata.update_user_settings(changed, {"a": 1, "b": 2})
        changed = await metadata.update_user_settings(changed, {"b": {"c": None}})
        self.assertEqual(changed.settings, {"a": 1, "b": {"c": None}})
        metadata.users.forget(user.id)
        again = await metadata.get_user_by_external_id(user.user_id)
        self.assertEqual((again.settings, again.language), (changed.settings, Language.NL))

    async def test_recipient(self) -> None:
        metadata, user, _, edge = await self.world()
        verifyObject(IMailDirectory, metadata)
        recipient = await metadata.mail_recipient(user.id, edge)
        self.assertEqual((recipient.login, recipient.address, recipient.lastname), (user.id, user.id, "Max Muster"))
        self.assertIsNone(await metadata.mail_recipient("nobody@example.com", None))
        self.inside.device(name=f"edgeNot{self.number}")
        await self.until(lambda: metadata.get_edge(f"edgeNot{self.number}"))
        self.assertIsNone(await metadata.mail_recipient(user.id, f"edgeNot{self.number}"))


class Registration(Case):
    def record(self, **more: Any) -> dict[str, Any]:
        return {
            "firstname": "Max",
            "lastname": "Muster",
            "phone": "+49 1",
            "email": f"Reg{time.time_ns()}@Example.com",
            "password": "aB3xY9kL",
            "includePasswordInRegistrationEmail": True,
            "address": {"street": "Weg 1", "zip": "94469", "city": "Deggendorf", "country": "de"},
            "role": "OWNER",
            **more,
        }

    async def test_register(self) -> None:
        """11.6, Q6, Q26: the portal group of this database, tags, a mail with the password, and he can log in."""
        metadata = await self.begin(real("odoo"))
        sink = self.sink()
        record = self.record(oauthUid=f"subject-{time.time_ns()}", oauthProviderId=-1)
        await metadata.register_user(record, "openems")
        login = record["email"].lower()
        found = self.inside.execute(
            "res.users",
            "search_read",
            [["login", "=", login]],
            fields=["global_role", "groups_id", "partner_id", "name", "oauth_uid"],
        )[0]
        portal = self.inside.execute("ir.model.data", "check_object_reference", "base", "group_portal")[1]
        self.assertEqual((found["global_role"], found["name"]), ("owner", "Max Muster"))
        self.assertIn(portal, found["groups_id"])
        partner = self.inside.read("res.partner", found["partner_id"][0], "category_id", "city", "country_id")
        self.assertEqual(
            (len(partner["category_id"]), partner["city"], partner["country_id"][1]), (2, "Deggendorf", "Germany")
        )
        mail = sink.of(login)[0]
        self.assertIn("aB3xY9kL", mail.get_body(("html", "plain")).get_content())
        done = await metadata.logins.authenticate_with_password(login, "aB3xY9kL", "192.0.2.9:1")
        self.assertEqual(done.user_id, login)
        self.assertEqual((await metadata.get_user_by_external_id(record["oauthUid"])).id, login)
        error = await self.refused(metadata.register_user(record, "openems"), 1)
        self.assertEqual(error.message, f"User already exists with email [{login}]")
        await metadata.registration.register_user_if_not_exist(record)

    async def test_refusals(self) -> None:
        metadata = await self.begin(real("odoo"), auth_oauth_provider_name="Not there")
        for more, text in (
            ({"email": None}, "No email specified"),
            ({"role": "boss"}, "Role [boss] does not exist"),
            ({"role": "ADMIN"}, "Registration with Role [ADMIN] is not allowed"),
            ({"oauthProviderId": -1}, "OAuth Provider not found for name [Not there]"),
        ):
            error = await self.refused(metadata.register_user(self.record(**more), "openems"), 1)
            self.assertEqual(error.message, text)

    async def test_customers_only(self) -> None:
        metadata = await self.begin(real("odoo"), registration=False)
        record = self.record(includePasswordInRegistrationEmail=False)
        await self.refused(metadata.registration.register_user(record), 1, "Registration is not available")
        await metadata.registration.register_user_if_not_exist(record)
        self.assertEqual((await metadata.get_user_by_external_id(record["email"].lower())).name, "Max Muster")

    async def test_without_password(self) -> None:
        metadata = await self.begin(real("odoo"), enable_password_authentication=False)
        self.assertIsNone(metadata.logins)
        record = self.record(includePasswordInRegistrationEmail=False)
        sink = self.sink()
        await metadata.register_user(record, "openems")
        self.assertIn("*****", sink.of(record["email"].lower())[0].get_body(("html", "plain")).get_content())


class SetupProtocols(Case):
    async def test_submit(self) -> None:
        """11.7 from beginning to end, with the PDF in both mails."""
        metadata, installer, device, edge = await self.world("installer")
        sink = self.sink()
        customer_number, customer = self.inside.user(firstname="Max", lastname="Muster")
        self.inside.execute("stock.lot", "create", {"name": f"SN-{edge}"})
        protocol = {
            "edge": {"id": edge},
            "customer": {
                "firstname": "Max",
                "lastname": "Muster",
                "email": customer.upper(),
                "address": {"city": "Deggendorf"},
            },
            "installer": {"firstname": "Ida", "lastname": "Bau"},
            "location": {"firstname": "Max", "lastname": "Ort", "address": {"city": "Hengersberg", "country": "DE"}},
            "lots": [
                {"category": "Battery", "name": "Module 1", "serialNumber": f"SN-{edge}"},
                {"category": "Battery", "name": "Module 2", "serialNumber": "unknown"},
                {"category": "Battery", "name": "Module 3"},
            ],
            "items": [{"category": "Checks", "name": "Fuse", "value": "ok", "view": "final", "field": "fuse"}],
        }
        number = await metadata.submit_setup_protocol(installer, protocol)
        record = self.inside.read(
            "openems.setup_protocol",
            number,
            "device_id",
            "type",
            "productionlot_ids",
            "item_ids",
            "different_location_id",
        )
        self.assertEqual((record["device_id"][0], record["type"]), (device, "setup-protocol"))
        self.assertEqual((len(record["productionlot_ids"]), len(record["item_ids"])), (1, 2))
        self.assertTrue(record["different_location_id"])
        self.assertEqual(metadata.get_edge(edge).comment, "Max Muster, Deggendorf")
        owner = await metadata.get_user_by_external_id(customer)
        self.assertIs(metadata.get_user_role(owner, edge), Role.OWNER)
        settings = await metadata.get_user_alerting_settings(edge)
        self.assertEqual([(s.user_login, s.offline_delay, s.fault_delay) for s in settings], [(customer, 60, 1440)])
        for person in (customer, installer.id):
            attachments = [part for part in sink.of(person)[0].iter_attachments()]
            self.assertRegex(attachments[0].get_filename(), rf"\AIBN-{edge}-\d\d\.\d\d\.\d{{4}}\.pdf\Z")
            self.assertTrue(attachments[0].get_content().startswith(b"%PDF"))
        self.assertTrue((await metadata.get_setup_protocol(owner, number)).startswith(b"%PDF"))
        data = await metadata.get_setup_protocol_data(owner, edge)
        self.assertEqual(data["customer"]["firstname"], "Max")
        self.assertEqual(data["location"]["address"]["country"], "Germany")
        self.assertIn(
            {"view": "final", "field": "fuse", "category": "Checks", "name": "Fuse", "value": "ok"}, data["items"]
        )
        extension = await metadata.protocols.extend(edge, {"Battery": {"Module 4": "x"}}, [])
        infos = await metadata.get_setup_protocols_core_info(edge)
        self.assertEqual(
            [(i.id, i.type) for i in infos], [(extension, "CAPACITY_EXTENSION"), (number, "SETUP_PROTOCOL")]
        )
        self.assertLess(abs(infos[0].create_date - time.time() * 1000), 120_000)
        # A12: an extension is no set-up.
        shape = await metadata.get_edge_metadata(owner, edge)
        self.assertIn("firstSetupProtocol", shape)
        self.assertEqual(self.inside.read("res.users", self.number, "name")["name"], "Ida Bau")
        del customer_number

    async def test_refusals(self) -> None:
        """Q7: roles; nothing is made before everything was checked."""
        metadata, user, device, edge = await self.world("owner")
        good = {"edge": {"id": edge}, "customer": {"email": user.id}, "installer": {}}
        await self.refused(metadata.submit_setup_protocol(user, good), 1002)
        await self.refused(metadata.submit_setup_protocol(user, {**good, "edge": {"id": "edge0815"}}), 1005)
        await self.refused(metadata.submit_setup_protocol(user, {"edge": {"id": edge}}), 5003)
        admin = await metadata.get_user_by_external_id("admin")
        bad = {**good, "customer": {"email": "nobody@example.com"}}
        error = await self.refused(metadata.submit_setup_protocol(admin, bad), 1)
        self.assertEqual(error.message, "User not found for email [nobody@example.com]")
        self.assertEqual(await metadata.get_setup_protocols_core_info(edge), [])
        self.assertEqual(await metadata.get_setup_protocol_data(user, edge), {})
        other, name = self.inside.device()
        await self.until(lambda: metadata.get_edge(name))
        number = self.inside.execute("openems.setup_protocol", "create", {"device_id": other})
        await self.refused(metadata.get_setup_protocol(user, number), 1005)
        await self.refused(metadata.get_setup_protocol(user, 10**8), 1)
        await self.refused(metadata.get_setup_protocols_core_info("edge0815"), 1, "Edge not found for id [edge0815]")
        del device


class Alerting(Case):
    async def test_settings(self) -> None:
        """11.8, T081, Q15, Q37."""
        metadata, owner, device, edge = await self.world()
        mine = UserAlertingSettings(
            edge_id=edge, user_login=owner.id, offline_delay=15, fault_delay=30, warning_delay=60
        )
        await metadata.set_user_alerting_settings(owner, edge, [mine])
        self.assertEqual(await metadata.get_user_alerting_settings(edge), [mine])
        number, other = self.inside.user(role="guest", device=device)
        theirs = UserAlertingSettings(edge_id=edge, user_login=other, offline_delay=5)
        await self.refused(metadata.set_user_alerting_settings(owner, edge, [theirs]), 1, "Not allowed to update/set")
        admin = await metadata.get_user_by_external_id("admin")
        await metadata.set_user_alerting_settings(admin, edge, [theirs])
        records = self.inside.execute(
            "openems.alerting", "search_read", [["device_id", "=", device]], fields=["user_id"]
        )
        self.assertEqual(sorted(record["user_id"][0] for record in records), sorted([self.number, number]))
        _, stranger = self.inside.user()
        user = await metadata.get_user_by_external_id(stranger)
        own = UserAlertingSettings(edge_id=edge, user_login=stranger, offline_delay=5)
        await self.refused(metadata.set_user_alerting_settings(user, edge, [own]), 1005)
        await self.refused(metadata.set_user_alerting_settings(admin, edge, [own]), 1004)
        self.assertEqual(await metadata.get_user_alerting_settings(edge[:-1] + "_"), [])

    async def test_mail(self) -> None:
        """11.9, A10: both templates leave through Odoo's outgoing server; what left is noted."""
        metadata, owner, _, edge = await self.world()
        verifyObject(IMailer, metadata.mailer)
        sink = self.sink()
        settings = UserAlertingSettings(edge_id=edge, user_login=owner.id, offline_delay=15)
        await metadata.set_user_alerting_settings(owner, edge, [settings])
        at = 1_776_684_153_000
        context = MailContext([owner.id, "nobody@example.com"], edge)
        self.assertEqual(await metadata.mailer.send_mail(at, "alerting_offline", [context]), 1)
        context = MailContext([owner.id], edge, state="Fault")
        self.assertEqual(await metadata.mailer.send_mail(at + 1000, "alerting_sum_state", [context]), 1)
        offline, fault = sink.of(owner.id)
        self.assertEqual(offline["subject"], f"{edge} is offline")
        self.assertEqual(fault["subject"], f"{edge}: Fault")
        stored = (await metadata.get_user_alerting_settings(edge))[0]
        self.assertEqual((stored.last_offline, stored.last_sum_state), (at, at + 1000))
        self.assertEqual(await metadata.mailer.send_mail(at, "alerting_offline", [MailContext([], "edge0815")]), 0)
        sink.refuse = True
        error = await self.refused(
            metadata.mailer.send_mail(at + 9000, "alerting_offline", [MailContext([owner.id], edge)]), 1
        )
        self.assertIn("None of 1 mails could be sent", error.message)
        self.assertEqual((await metadata.get_user_alerting_settings(edge))[0].last_offline, at)
        await self.refused(metadata.mailer.send_mail(at, "no/such", []), 1)
        await self.refused(metadata.mailer.send_mail(at, "no_such", [context]), 1, "too old")

    async def test_last_notifications_of_another_mailer(self) -> None:
        """alerting.md 10, 14: what left through a mail server of the backend's own is noted all the same."""
        metadata, owner, _, edge = await self.world()
        verifyObject(INotificationStamps, metadata)
        settings = UserAlertingSettings(edge_id=edge, user_login=owner.id, offline_delay=15)
        await metadata.set_user_alerting_settings(owner, edge, [settings])
        at = 1_776_684_153_000
        metadata.set_last_notification(edge, owner.id, offline=at)
        metadata.set_last_notification(edge, "nobody@example.com", offline=at)
        await metadata.stamps.flush()
        metadata.set_last_notification(edge, owner.id, offline=at - 60_000)
        metadata.set_last_notification(edge, owner.id, sum_state=at + 1000)
        await metadata.stamps.flush()
        stored = (await metadata.get_user_alerting_settings(edge))[0]
        self.assertEqual((stored.offline_delay, stored.last_offline, stored.last_sum_state), (15, at, at + 1000))
        self.assertEqual((metadata.stamps.waiting, metadata.stamps.dropped, metadata.stamps.written), (0, 0, 2))


class AlertMail(Case):
    async def test_from_silence_to_mail(self) -> None:
        """An edge is silent for longer than its owner allows: Odoo mails him, once, and keeps when."""
        metadata, owner, device, edge = await self.world()
        sink = self.sink()
        settings = UserAlertingSettings(edge_id=edge, user_login=owner.id, offline_delay=15)
        await metadata.set_user_alerting_settings(owner, edge, [settings])
        metadata.get_edge(edge).set_lastmessage(int(time.time() * 1000) - 3_600_000)
        await metadata.writer.flush()
        store = FileStore(self.mktemp(), reactor=reactor)
        service = AlertingService(
            metadata,
            metadata,
            store,
            self.events,
            reactor=reactor,
            now=lambda: int(time.time() * 1000),
            initial_delay=0,
            guard=MassGuard(minimum=0),
            tick=0.2,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(service.stop()))
        service.start()
        await self.until(lambda: sink.of(owner.id), 30)
        await pause(1)
        self.assertEqual(len(sink.of(owner.id)), 1)
        stored = (await metadata.get_user_alerting_settings(edge))[0]
        self.assertLess(abs(stored.last_offline - time.time() * 1000), 60_000)
        del device


class AppCenter(Case):
    async def test_keys(self) -> None:
        """11.13, A9."""
        metadata, owner, device, edge = await self.world()
        center = metadata.app_center
        verifyObject(IAppCenterMetadata, center)
        key, app = f"AAAA-{device}", "App.Meter.Socomec"
        self.assertEqual(
            await center.is_key_applicable(key, edge, app),
            {
                "isKeyApplicable": False,
                "additionalInfo": {"keyId": key, "bundles": [], "registrations": [], "usages": []},
            },
        )
        self.assertEqual(await center.get_possible_apps(key, edge), [])
        bundles = [[{"appId": app}]]
        self.inside.execute("openems.app_key", "create", {"name": key, "bundles": f'[[{{"appId": "{app}"}}]]'})
        self.assertTrue((await center.is_key_applicable(key, edge, app))["isKeyApplicable"])
        self.assertFalse((await center.is_key_applicable(key, edge, "App.Other"))["isKeyApplicable"])
        self.assertEqual(await center.get_possible_apps(key, edge), bundles)
        await center.add_register_key_history(edge, app, key, owner)
        self.assertEqual(await center.get_registered_keys(edge, app), [{"keyId": key, "bundles": bundles}])
        self.assertEqual(await center.get_registered_keys(edge, "App.Other"), [])
        instance = "0d5b8c5e-0000-4000-8000-000000000001"
        await center.add_install_app_instance_history(key, edge, app, instance, owner.id)
        self.assertEqual(await center.get_installed_apps(edge), [{"appId": app, "instanceId": instance}])
        info = (await center.is_key_applicable(key, edge, None))["additionalInfo"]
        self.assertEqual(info["registrations"], [{"edgeId": edge, "appId": app}])
        self.assertEqual(info["usages"], [{"appId": app, "installedInstances": 1}])
        _, other = self.inside.device()
        await self.until(lambda: metadata.get_edge(other))
        self.assertFalse((await center.is_key_applicable(key, other, app))["isKeyApplicable"])
        await center.add_deinstall_app_instance_history(edge, app, instance, None)
        self.assertEqual(await center.get_installed_apps(edge), [])
        await center.add_unregister_key_history(edge, app, key, owner)
        self.assertEqual(await center.get_registered_keys(edge, None), [])
        await self.refused(center.get_installed_apps("edge0815"), 1, "Edge not found for id [edge0815]")

    async def test_roles(self) -> None:
        """Q38: guests neither register keys nor get the master key."""
        metadata, guest, _, edge = await self.world("guest")
        center = metadata.app_center
        await self.refused(center.add_register_key_history(edge, "App.X", "key", guest), 1002)
        await self.refused(center.get_suppliable_key(guest, edge, "App.Meter.Socomec"), 1002)
        self.assertTrue(await center.is_app_free(guest, "App.Meter.Shelly"))
        self.assertFalse(await center.is_app_free(guest, "App.Meter.Socomec"))
        self.assertEqual(await center.get_suppliable_key(guest, edge, "App.Meter.Shelly"), "DUMMY_MASTER_KEY")
