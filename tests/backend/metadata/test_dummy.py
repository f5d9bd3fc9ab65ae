from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.events import ConfigReceived, EdgesChanged, EventBus, MetadataInitialized
from openems.backend.interfaces import IAppCenterMetadata, IAuthUserPasswordAuthenticationService, IMetadata
from openems.backend.metadata.appcenter import AppCenterMetadata
from openems.backend.metadata.dummy import DummyLogins, DummyMetadata
from openems.backend.models import PageRequest
from openems.common.errors import OpenemsError
from openems.common.role import Language, Role


class TestDummy(SynchronousTestCase):
    """metadata.md 14, 23.3."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = EventBus()
        self.events: list[Any] = []
        for kind in (MetadataInitialized, EdgesChanged):
            self.bus.subscribe(kind, self.events.append)

    def new(self, **options: Any) -> DummyMetadata:
        metadata = DummyMetadata(self.bus, reactor=self.clock, **options)
        self.get(metadata.start())
        return metadata

    def get(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_interface(self) -> None:
        metadata = self.new()
        verifyObject(IMetadata, metadata)
        verifyObject(IAuthUserPasswordAuthenticationService, DummyLogins(metadata))

    def test_start(self) -> None:
        metadata = self.new()
        self.clock.advance(9.9)
        self.assertFalse(metadata.initialized)
        self.clock.advance(0.1)
        self.assertTrue(metadata.initialized)
        self.assertEqual(self.events, [MetadataInitialized()])
        self.assertEqual([edge.id for edge in metadata.edges()], [f"edge{n}" for n in range(11)])
        edge3 = metadata.get_edge("edge3")
        assert edge3 is not None
        self.assertEqual(edge3.comment, "OpenEMS Edge #3")
        self.assertEqual(metadata.apikeys_to_edge_ids(), {f"edge{n}": f"edge{n}" for n in range(11)})

    def test_stop_cancels(self) -> None:
        metadata = self.new()
        self.get(metadata.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_templates(self) -> None:
        self.assertEqual(self.new(edge_id_max=-1).apikeys_to_edge_ids(), {})
        (edge,) = self.new(edge_id_template="fems", edge_id_max=3).edges()
        self.assertEqual((edge.id, edge.comment), ("fems", "OpenEMS Edge #3"))
        self.assertIsNotNone(self.new(edge_id_template="x%03d%%").get_edge("x007%"))
        for template in ("%d%d", "%q", "%"):
            with self.assertRaises(ValueError) as caught:
                self.new(edge_id_template=template)
            self.assertIn("edgeIdTemplate", str(caught.exception))

    def test_automatic_edges(self) -> None:
        self.assertEqual(self.new().edge_id_for_apikey("edge3"), "edge3")
        self.assertEqual(self.events, [])
        for apikey, number in (("edge12", 12), ("EDGE7", 7), ("my-edge-12", 12), ("a1b2", 2)):
            metadata = self.new()
            self.assertEqual(metadata.edge_id_for_apikey(apikey), apikey)
            edge = metadata.get_edge(apikey)
            assert edge is not None
            self.assertEqual(edge.comment, f"OpenEMS Edge #{number}")
        metadata = self.new()
        self.assertEqual(metadata.edge_id_for_apikey("DEMO_API_KEY"), "edge12")
        self.assertEqual(metadata.edge_id_for_apikey("12"), "edge13")
        self.assertEqual(metadata.apikeys_to_edge_ids()["DEMO_API_KEY"], "edge12")  # the right way round
        self.assertEqual(self.new().edge_id_for_apikey("9O8SAilNKoyYPs8ESUF5"), "9O8SAilNKoyYPs8ESUF5")
        with self.assertRaises(OpenemsError):
            self.new().edge_id_for_apikey("edge99999999999")
        self.assertIn(EdgesChanged(), self.events)

    def test_users(self) -> None:
        metadata = self.new()
        mia = self.get(metadata.get_user_by_external_id("mia"))
        self.assertIs(self.get(metadata.get_user_by_external_id("mia")), mia)
        self.assertEqual((mia.id, mia.name, mia.global_role, mia.language), ("mia", "mia", Role.ADMIN, Language.DE))
        self.assertIs(self.get(metadata.update_user_language(mia, Language.EN)).language, Language.EN)
        self.assertIs(self.get(metadata.get_user_by_external_id("mia")).language, Language.DE)
        self.assertIs(self.get(metadata.get_user_by_external_id("ben")).language, Language.EN)
        self.get(metadata.update_user_settings(mia, {"a": 1}))
        for name in ("mia", "ida"):
            self.assertEqual(self.get(metadata.get_user_by_external_id(name)).settings, {"a": 1})
        self.assertIsNone(metadata.get_user("zoe"))
        self.assertIs(metadata.get_user_role(mia, "nope"), Role.ADMIN)

    def test_lists_and_setup_passwords(self) -> None:
        metadata = self.new()
        mia = self.get(metadata.get_user_by_external_id("mia"))
        self.assertEqual(len(self.get(metadata.get_page(mia, PageRequest(page=0)))), 11)
        self.assertEqual(self.get(metadata.get_edge_metadata(mia, "edge3"))["sumState"], "OK")
        failure = self.failureResultOf(Deferred.fromCoroutine(metadata.get_edge_metadata(mia, "x")), OpenemsError)
        self.assertEqual(failure.value.message, "Unable to find edge with id [x]")
        self.assertEqual(metadata.edge_id_for_setup_password("edge3"), "edge3")
        self.assertIsNone(metadata.edge_id_for_setup_password(""))
        edge3 = metadata.get_edge("edge3")
        assert edge3 is not None
        failure = self.failureResultOf(Deferred.fromCoroutine(metadata.add_edge_to_user(mia, edge3)), OpenemsError)
        self.assertEqual(failure.value.message, "DummyMetadata.addEdgeToUser() is not implemented")

    def test_alerting(self) -> None:
        (entry,) = self.get(self.new().get_user_alerting_settings("edge0"))
        self.assertEqual(entry.user_login, "demo")
        self.assertEqual((entry.offline_delay, entry.fault_delay, entry.warning_delay), (5, 10, 15))

    def test_configuration(self) -> None:
        metadata = self.new()
        self.bus.publish(ConfigReceived("edge0", Raw(b'{"components":{"_sum":{}}}')))
        self.clock.advance(1)
        self.assertEqual(bytes(self.get(metadata.get_edge_config("edge0"))), b'{"components":{"_sum":{}}}')

    def test_logins(self) -> None:
        logins = DummyLogins(self.new())
        authenticated = self.get(logins.authenticate_with_password("mia", "anything", "x"))
        self.assertEqual(authenticated.user_id, "mia")
        self.assertEqual(self.get(logins.authenticate_with_token(authenticated.token)), authenticated)
        self.get(logins.logout(authenticated.token))
        failure = self.failureResultOf(
            Deferred.fromCoroutine(logins.authenticate_with_token(authenticated.token)), OpenemsError
        )
        self.assertEqual(failure.value.code, 1003)
        self.assertEqual(self.get(logins.authenticate_with_password("", "", "x")).login, "User #0")


class TestAppCenter(SynchronousTestCase):
    """metadata.md 16.4, 23.5."""

    def get(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_vectors(self) -> None:
        center = AppCenterMetadata()
        verifyObject(IAppCenterMetadata, center)
        self.assertEqual(
            self.get(center.is_key_applicable("K", "edge0", None)),
            {
                "isKeyApplicable": True,
                "additionalInfo": {
                    "keyId": "K",
                    "bundles": [[{"appId": "App.Evcs.Keba"}]],
                    "registrations": [],
                    "usages": [],
                },
            },
        )
        applicable = self.get(center.is_key_applicable("K", "edge0", "A"))
        self.assertEqual(applicable["additionalInfo"]["bundles"], [[{"appId": "A"}]])
        self.assertEqual(self.get(center.get_possible_apps("0000-0000-0000-0000", "edge0")), [[]])
        self.assertEqual(self.get(center.get_possible_apps("K", "edge0")), [[{"appId": "App.Evcs.Keba"}]])
        self.assertEqual(
            self.get(center.get_registered_keys("edge0", None)),
            [{"keyId": "0000-0000-0000-0000", "bundles": [[{"id": 1, "appId": "App.Evcs.Keba"}]]}],
        )
        self.assertEqual(self.get(center.get_installed_apps("edge0")), [])
