"""Who may do what (ui.md 16, b2b.md 4): every method, asked by everybody, on a way that a request comes."""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b.credentials import Credentials
from openems.backend.b2b.methods import METHODS
from openems.backend.b2b.rest import Backend2BackendRest
from openems.backend.b2b.websocket import Backend2BackendWebsocket
from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.models import SetupProtocolCoreInfo, User
from openems.backend.ui.methods import HANDLERS
from openems.common import errors
from openems.common.methods import names
from openems.common.role import Role
from openems.testing.connections import FakeConnection
from openems.testing.services import FakeEdgeManager, FakeTimedata
from tests.backend.b2b.http import Connection, request
from tests.backend.b2b.world import basic
from tests.backend.ui.world import ID, INNER, Metadata, Password, Ui, World

#: What a method needs, if not a role for edge0.
NOTHING, LOGIN = "nothing", "login"
REFUSALS = {
    errors.COMMON_USER_NOT_AUTHENTICATED,
    errors.COMMON_ROLE_ACCESS_DENIED,
    errors.COMMON_ROLE_UNDEFINED,
    errors.COMMON_AUTHENTICATION_FAILED,
}
#: Who asks: the role he has for edge0; LOGIN: for edge1 only; NOTHING: he has not logged in.
CALLERS = (NOTHING, LOGIN, Role.GUEST, Role.OWNER, Role.INSTALLER, Role.ADMIN)
RANK: dict[Any, int] = {caller: rank for rank, caller in enumerate(CALLERS)}

EDGE = {"edgeId": "edge0"}
DAY = {"timezone": "UTC", "fromDate": "2026-04-01", "toDate": "2026-04-01", "channels": ["_sum/EssSoc"]}
PERSON = {
    "firstname": "Mia", "lastname": "Mai", "phone": "1", "email": "mia@example.org", "role": "owner",
    "address": {"street": "A", "zip": "1", "city": "B", "country": "de"},
}  # fmt: skip
SETTINGS = {"userLogin": "anna@example.org", "offlineEdgeDelay": 1, "faultEdgeDelay": 1, "warningEdgeDelay": 1}


def call(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": INNER, "method": method, "params": params}


def component(method: str, component_id: str = "_host", **params: Any) -> dict[str, Any]:
    return {"componentId": component_id, "payload": call(method, params)}


#: (name, params, what is needed). Several with one name: what differs is in the params.
TOP: list[tuple[str, Any, Any]] = [
    ("authenticateWithPassword", {"username": "anna@example.org", "password": "s3cret"}, NOTHING),
    ("authenticateWithToken", {"token": "token-1"}, NOTHING),
    ("authenticateWithOAuth", {"payload": call("initiateConnect", {"oem": "x"})}, NOTHING),
    (
        "authenticateWithOAuth",
        {"payload": call("getTokenByCode", {"oem": "x", "identifier": "i", "code": "c"})},
        NOTHING,
    ),
    (
        "authenticateWithOAuth",
        {"payload": call("getTokenByRefreshToken", {"oem": "x", "refreshToken": "r"})},
        NOTHING,
    ),
    ("registerUser", {"user": PERSON, "oem": "x"}, NOTHING),
    ("logout", {}, NOTHING),
    ("subscribeEdges", {"edges": ["edge0"]}, Role.GUEST),
    ("subscribeEdges", {"edges": ["edge1", "edge0"]}, Role.GUEST),
    ("getEdges", {"page": 0}, LOGIN),
    ("getEdge", EDGE, LOGIN),
    ("getUserInformation", {}, LOGIN),
    ("setUserInformation", {"user": {}}, LOGIN),
    ("updateUserLanguage", {"language": "EN"}, LOGIN),
    ("updateUserSettings", {"settings": {}}, LOGIN),
    ("getUserAlertingConfigs", EDGE, Role.GUEST),
    ("setUserAlertingConfigs", {**EDGE, "userSettings": [SETTINGS]}, Role.GUEST),
    ("getProtocolsCoreInfo", EDGE, Role.OWNER),
    ("getLatestSetupProtocolCoreInfo", EDGE, Role.OWNER),
    ("getSetupProtocol", {"setupProtocolId": 7}, None),  # tests.backend.ui.test_session
    ("getSetupProtocolData", EDGE, Role.GUEST),
    ("submitSetupProtocol", {"protocol": {"edge": {"id": "edge0"}, "customer": PERSON}}, Role.INSTALLER),
    ("addEdgeToUser", {"setupPassword": "3rzE-K9pA-qV8i-Ape7"}, LOGIN),
    ("getEmsType", EDGE, Role.GUEST),
    ("getEdgesStatus", {"edgeIds": ["edge0"]}, Role.GUEST),
    ("getEdgesStatus", {"edgeIds": ["edge1", "edge0"]}, Role.GUEST),
    ("getEdgesChannelsValues", {"ids": ["edge0"], "channels": ["a/B"]}, Role.GUEST),
    ("getEdgesChannelsValues", {"ids": ["edge1", "edge0"], "channels": []}, Role.GUEST),
    ("setGridConnSchedule", {"id": "edge0", "schedule": []}, Role.ADMIN),
    ("fooBar", EDGE, LOGIN),
]
KEY = {"key": "AAAA-BBBB-CCCC-DDDD", "appId": "App.X"}
INSTALL = component("addAppInstance", "_appManager", appId="App.X", properties={})
PAYLOADS: list[tuple[str, Any, Any]] = [
    ("subscribeChannels", {"count": 0, "channels": ["a/B"]}, Role.GUEST),
    ("subscribeSystemLog", {"subscribe": True}, Role.OWNER),
    ("subscribeSystemLog", {"subscribe": False}, Role.OWNER),
    ("simulation", {}, Role.GUEST),
    ("getEdgeConfig", {}, Role.GUEST),
    ("queryHistoricTimeseriesData", {**DAY, "resolution": {"value": 1, "unit": "Hours"}}, Role.GUEST),
    ("queryHistoricTimeseriesEnergy", DAY, Role.GUEST),
    ("queryHistoricTimeseriesEnergyPerPeriod", {**DAY, "resolution": {"value": 1, "unit": "Hours"}}, Role.GUEST),
    ("queryHistoricTimeseriesExportXlxs", DAY, Role.GUEST),
    ("appCenter", {"payload": call("addRegisterKeyHistory", KEY)}, Role.OWNER),
    ("appCenter", {"payload": call("addUnregisterKeyHistory", KEY)}, Role.OWNER),
    ("appCenter", {"payload": call("getRegisteredKeys", {})}, Role.OWNER),
    ("appCenter", {"payload": call("isAppFree", {"appId": "App.X"})}, Role.GUEST),
    ("appCenter", {"payload": call("isKeyApplicable", KEY)}, Role.GUEST),
    ("appCenter", {"payload": call("getPossibleApps", KEY)}, Role.GUEST),
    (
        "appCenter",
        {"payload": call("installAppWithSuppliedKey", {"installRequest": call("componentJsonApi", INSTALL)})},
        Role.GUEST,
    ),
    ("componentJsonApi", component("executeSystemCommand", command="ls"), Role.GUEST),
    ("componentJsonApi", component("executeSystemRestart"), Role.GUEST),
    ("createComponentConfig", {}, Role.GUEST),
    ("updateComponentConfig", {}, Role.GUEST),
    ("deleteComponentConfig", {}, Role.GUEST),
    ("setChannelValue", {}, Role.GUEST),
    ("routes", {}, Role.GUEST),
    ("fooBar", {}, Role.GUEST),
]


class Fleet(Metadata):
    audit = 0

    async def get_edge_config(self, edge_id: str) -> Raw:
        return Raw(b'{"components":{"_sum":{}},"factories":{}}')

    def log_generic_system_log(self, *arguments: Any) -> None:
        self.audit += 1


class AppCenter:
    async def anything(self, *arguments: Any) -> Any:
        return []

    add_register_key_history = add_unregister_key_history = get_registered_keys = is_app_free = anything
    get_possible_apps = is_key_applicable = get_suppliable_key = anything


class Simulation:
    async def handle_request(self, *arguments: Any) -> Any:
        return {}


class Roles(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.edges = FakeEdgeManager()
        self.edges.connected = {"edge0", "edge1"}

    def world(self, caller: Any) -> World:
        world = World(simulation=Simulation(), request_limit=1000, reactor=self.clock)
        self.metadata = Fleet(world.events)
        self.metadata.users["sub-alice"] = User(id="alice", user_id="sub-alice", name="Alice")
        self.metadata.protocols["edge0"] = [SetupProtocolCoreInfo(id=7, create_date=None, type="setup-protocol")]
        self.metadata.roles = {"edge1": Role.ADMIN}
        if isinstance(caller, Role):
            self.metadata.roles["edge0"] = caller
        self.handler = JsonRpcRequestHandler(
            self.metadata,
            self.edges,
            TimedataManager([FakeTimedata()]),
            reactor=self.clock,
            now=lambda: 0,
            app_center=AppCenter(),
            in_thread=self.in_thread,
        )
        world.server.metadata = world.server.logins._metadata = self.metadata
        world.server.edge_manager = self.edges
        world.server.handler = self.handler
        return world

    @staticmethod
    async def in_thread(function: Any, *arguments: Any) -> bytes:
        return b"xlsx"

    def check(self, caller: Any, name: str, needed: Any, reply: Any) -> None:
        code = reply.get("error", {}).get("code")
        what = f"{name} asked by {caller}: {reply}"
        if RANK[caller] >= RANK[needed]:
            self.assertNotIn(code, REFUSALS, what)
            return
        expected = errors.COMMON_USER_NOT_AUTHENTICATED
        if caller is not NOTHING:
            expected = errors.COMMON_ROLE_UNDEFINED if caller is LOGIN else errors.COMMON_ROLE_ACCESS_DENIED
        self.assertEqual(code, expected, what)

    def refused_leaves_nothing(self, caller: Any, needed: Any, ui: Ui) -> None:
        """Not even a trace: nothing was watched, nobody was asked, nothing was changed."""
        if RANK[caller] < RANK[needed]:
            self.assertEqual((self.edges.requests, self.metadata.calls, self.metadata.audit), ([], [], 0))
            self.assertEqual((ui.session.watcher.channels, ui.session.system_logs), ({}, set()))
            self.assertNotIn("edge0", ui.session.watcher.edges)

    def test_ui(self) -> None:
        for caller in CALLERS:
            for method, params, needed in TOP:
                if needed is None:
                    continue
                world = self.world(caller)
                ui = world.connect() if caller is NOTHING else world.login()
                reply = next(m for m in ui.ask_all(method, params) if m.get("id") == ID)
                self.check(caller, method, needed, reply)
                self.refused_leaves_nothing(caller, needed, ui)

    def test_ui_edge_rpc(self) -> None:
        for caller in CALLERS:
            for method, params, needed in PAYLOADS:
                world = self.world(caller)
                ui = world.connect() if caller is NOTHING else world.login()
                self.edges.requests.clear()
                reply = next(m for m in ui.edge_rpc(method, params) if m.get("id") == ID)
                self.check(caller, f"edgeRpc/{method}", needed, reply)
                self.refused_leaves_nothing(caller, needed, ui)
                for _, _, role, _ in self.edges.requests:
                    self.assertIs(role, caller, "the edge judges by the role the user has there")

    def test_ui_protocols(self) -> None:
        """A protocol belongs to an edge: who is no owner of it does not get it by its number."""
        for caller in CALLERS:
            world = self.world(caller)
            ui = world.connect() if caller is NOTHING else world.login()
            ui.ask_all("subscribeEdges", {"edges": ["edge0"]})
            reply = ui.ask("getSetupProtocol", {"setupProtocolId": 7})
            self.assertEqual("result" in reply, RANK[caller] >= RANK[Role.OWNER], f"{caller}: {reply}")

    def test_ui_alerting_of_others(self) -> None:
        others = {**SETTINGS, "userLogin": "mia@example.org"}
        for caller in CALLERS:
            world = self.world(caller)
            ui = world.connect() if caller is NOTHING else world.login()
            reply = ui.ask("setUserAlertingConfigs", {**EDGE, "userSettings": [SETTINGS, others]})
            self.assertEqual("result" in reply, caller is Role.ADMIN, f"{caller}: {reply}")
            self.assertEqual(bool(self.metadata.calls), caller is Role.ADMIN)

    def test_b2b_rest(self) -> None:
        for caller in CALLERS:
            self.world(caller)
            credentials = self.credentials()
            rest = Backend2BackendRest(self.metadata, self.handler, credentials, reactor=self.clock, version="1")  # type: ignore[arg-type]
            table = [(m, p, LOGIN if m == "subscribeEdgesChannels" else n) for m, p, n in self.b2b_table()]
            for method, params, needed in table:
                self.edges.requests.clear()
                connection = Connection(rest)
                body = {"method": method, "params": params, "id": ID}
                connection.send(request(body, auth=None if caller is NOTHING else basic()))
                reply = connection.reply()
                if caller is NOTHING:
                    self.assertEqual((reply.status, reply.error[0]), (401, errors.COMMON_AUTHENTICATION_FAILED))
                    self.assertEqual(self.edges.requests, [])
                else:
                    self.check(caller, method, needed, reply.json)
                self.clock.advance(1)

    def test_b2b_websocket(self) -> None:
        for caller in CALLERS:
            self.world(caller)
            credentials = self.credentials()
            server = Backend2BackendWebsocket(
                self.metadata, self.edges, self.handler, credentials, reactor=self.clock  # type: ignore[arg-type]
            )  # fmt: skip
            for method, params, needed in self.b2b_table():
                headers = {} if caller is NOTHING else {"authorization": basic()}
                connection = FakeConnection(headers, self.clock)
                connection.open(server.endpoint(connection))
                connection.receive({"method": method, "params": params, "id": ID})
                if caller is NOTHING:
                    self.assertEqual((connection.close_code, connection.sent), (1000, []))
                    continue
                self.check(caller, method, needed, next(m for m in connection.take() if m.get("id") == ID))
                connection.lose()

    def credentials(self) -> Credentials:
        password = Password()
        return Credentials(password, self.metadata, reactor=self.clock, rate=1000, burst=1000)  # type: ignore[arg-type]

    @staticmethod
    def b2b_table() -> list[tuple[str, Any, Any]]:
        """What UIs alone may ask is unknown here, logins included."""
        core = [row for row in TOP if row[0] in names.CORE]
        unknown = [(method, params, LOGIN) for method, params, _ in TOP if method not in names.CORE]
        watched = [
            ("subscribeEdgesChannels", {"count": 1, "ids": ["edge0"], "channels": ["a/B"]}, Role.GUEST),
            ("subscribeEdgesChannels", {"count": 1, "ids": ["edge1", "edge0"], "channels": ["a/B"]}, Role.GUEST),
        ]
        wrapped = [
            ("edgeRpc", {**EDGE, "payload": call(method, params)}, needed)
            for method, params, needed in PAYLOADS
            # Subscriptions are a UI's; to an edge they are a request like any other, which it judges.
            if method not in ("subscribeChannels", "subscribeSystemLog", "simulation")
        ]
        return core + unknown + watched + wrapped

    def test_the_tables_are_complete(self) -> None:
        top = {method for method, _, _ in TOP} | {"edgeRpc"}
        self.assertEqual((HANDLERS.keys() | names.CORE | names.AUTHENTICATION) - top, set())
        self.assertEqual(names.EDGE_RPC - {method for method, _, _ in PAYLOADS}, set())
        inner = {params["payload"]["method"] for method, params, _ in PAYLOADS if method == "appCenter"}
        self.assertEqual(names.APP_CENTER - inner, set())
        self.assertEqual({method.name for method in METHODS} - names.CORE, set())
