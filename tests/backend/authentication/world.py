"""A Keycloak of the test kit, and the service that is tested against it, on one clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.authentication.keycloak.service import Keycloak
from openems.backend.authentication.keycloak.settings import Oem, Realm
from openems.backend.models import User
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.testing.keycloak import FakeKeycloak
from tests.backend.ui.world import ID, World

OPENEMS = Oem(oem="openems", client_id="openems", client_secret="openems-secret", service_account=True)
ACME = Oem(oem="acme", client_id="acme", client_secret="acme-secret", redirect_uri="http://localhost:4300/")
CALLBACK = "http://localhost:4200/oauthcallback"
PASSWORD = "p&ss w=rd+%~*ä"


class Metadata:
    """Knows the users it is told of by their external id, and can register."""

    initialized = True

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.registered: list[tuple[dict[str, Any], str]] = []
        self.fail: Exception | None = None

    async def get_user_by_external_id(self, user_id: str) -> User:
        if self.fail is not None:
            raise self.fail
        if user_id not in self.known:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return User(id=user_id, user_id=user_id, name="Mia Berg")

    async def register_user(self, record: dict[str, Any], oem: str) -> None:
        if self.fail is not None:
            raise self.fail
        self.registered.append((record, oem))
        self.known.add(record["oauthUid"])


class WithKeycloak(SynchronousTestCase):
    """``self.keycloak`` is tested, ``self.fake`` is what it talks to."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fake = FakeKeycloak(self.clock)
        self.mia = self.fake.add_user("mia@example.com", PASSWORD)
        self.metadata = Metadata()
        self.metadata.known.add(self.mia)
        self.keycloak = self.make()
        self.keycloak.start()
        self.addCleanup(self.clean_up)
        self.fake.pump()

    def clean_up(self) -> None:
        stopped = Deferred.fromCoroutine(self.keycloak.stop())
        self.fake.pump()
        self.successResultOf(stopped)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])

    def make(self, **options: Any) -> Keycloak:
        settings: dict[str, Any] = {
            "reactor": self.clock,
            "now": self.fake.now,
            "agent": self.fake.agent,
            "user_registry": self.metadata,
            **options,
        }
        oems = settings.pop("oems", [OPENEMS, ACME])
        return Keycloak(settings.pop("realm", Realm()), oems, self.metadata, **settings)

    def remake(self, **options: Any) -> None:
        """Another one in its place."""
        stopped = Deferred.fromCoroutine(self.keycloak.stop())
        self.fake.pump()
        self.successResultOf(stopped)
        self.keycloak = self.make(**options)
        self.keycloak.start()
        self.fake.pump()

    def begin(self, work: Any) -> Deferred[Any]:
        running = Deferred.fromCoroutine(work)
        self.fake.pump()
        return running

    def get(self, work: Any, seconds: float = 0.0) -> Any:
        running = self.begin(work)
        if seconds:
            self.fake.advance(seconds)
        return self.successResultOf(running)

    def refused(self, work: Any, code: int = errors.COMMON_AUTHENTICATION_FAILED, seconds: float = 0.0) -> OpenemsError:
        running = self.begin(work)
        if seconds:
            self.fake.advance(seconds)
        error = self.failureResultOf(running, OpenemsError).value
        self.assertEqual(error.code, code, error.message)
        return error

    def start_login(
        self, oem: str = "openems", redirect_uri: str | None = CALLBACK, remote: str = "192.0.2.1:4711"
    ) -> Any:
        return self.get(self.keycloak.initiate_connect(oem, redirect_uri, remote))

    def log_in(self, oem: str = "openems", redirect_uri: str | None = CALLBACK) -> Any:
        started = self.start_login(oem, redirect_uri)
        code = self.fake.browser_login(started.login_url, self.mia)
        return self.get(self.keycloak.token_by_code(oem, started.identifier, code))


class WithUi(WithKeycloak):
    """The UI's server before Keycloak; the users are those of Keycloak's tests."""

    def open(self, **options: Any) -> None:
        self.world = World(
            password=self.keycloak, code_flow=self.keycloak, registration=self.keycloak, reactor=self.clock, **options
        )
        self.world.clock = self.clock
        self.patch(self.world.metadata, "get_user_by_external_id", self.metadata.get_user_by_external_id)
        self.world.start()
        self.addCleanup(self.close)

    def close(self) -> None:
        stopped = Deferred.fromCoroutine(self.world.server.stop())
        self.fake.advance(5)
        self.successResultOf(stopped)

    def log_in_ui(self) -> Any:
        ui = self.world.connect()
        started = self.start_login()
        code = self.fake.browser_login(started.login_url, self.mia)
        payload = {
            "jsonrpc": "2.0", "id": ID, "method": "getTokenByCode",
            "params": {"oem": "openems", "identifier": started.identifier, "code": code},
        }  # fmt: skip
        ui.send("authenticateWithOAuth", {"payload": payload})
        self.fake.pump()
        (reply,) = ui.connection.take()
        self.assertIn("result", reply)
        return ui
