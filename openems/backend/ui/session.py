"""One UI connection: who is logged in, what he asks, what he is told (ui.md 2 to 14).

What happens to a request, in this order (ui.md 4.1):

1. ``authenticateWith...``, ``registerUser``, ``logout``: without login, and not limited by the session's bucket.
2. All others but ``edgeRpc``: the rate limit, else 4005.
3. Without a user: 1001. A session has a user or it has none; nothing else is asked for (ui.md 19, 1).
4. The method, here or in the core handler (4001 if nobody knows it), which checks the role for the edge.

Logins and logouts of a session run one after the other, and requests that arrive meanwhile wait for their end: they are
judged by the user that was to be when they were sent. User and token change together, only after a login has fully
succeeded; subscriptions end with every change.

Every request gets exactly one reply; pushes go to a session only as long as its user has a role for the edge.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.interfaces import IEndpoint
from openems.backend.models import User
from openems.backend.ui import parameters
from openems.backend.ui.login import LoggedIn
from openems.backend.ui.ratelimit import TokenBucket
from openems.backend.ui.subscriptions import Watcher, edge_rpc
from openems.common import errors, jsonrpc
from openems.common.channel import check_address
from openems.common.errors import OpenemsError, generic, outcome
from openems.common.jsonrpc import EMPTY, Members, Notification, Request, Success
from openems.common.role import Language, Role
from openems.websocket.peer import Refused

if TYPE_CHECKING:
    from openems.backend.ui.server import UiWebsocket
    from openems.websocket.peer import Connection

MAX_EDGES = 1_000
MAX_CHANNELS = 2_000
MAX_SETTINGS = 64 * 1024
#: logMessage notifications a second (ui.md 4.2).
LOG_MESSAGES = 5.0
#: Seconds for which the result of an OAuth code is repeated on the same connection (ui.md 19, 9).
CODE_RESULT = 5.0
#: Setup protocols a session remembers as its user's own.
MAX_PROTOCOLS = 1_000

AUTHENTICATION = frozenset(
    {"authenticateWithToken", "authenticateWithPassword", "registerUser", "authenticateWithOAuth", "logout"}
)
CONTEXT = "Ui.Websocket"


@implementer(IEndpoint)
class Session:
    """Made by :meth:`UiWebsocket.endpoint` for each connection."""

    _log = Logger()

    def __init__(self, server: UiWebsocket, connection: Connection) -> None:
        now = server.reactor.seconds()
        self.connection = connection
        self.id = connection.id
        self.user: User | None = None
        self.token: str | None = None
        self.watcher = Watcher(connection)
        self.system_logs: set[str] = set()
        #: When metadata last confirmed the user, in the reactor's seconds.
        self.validated = now
        #: When the user logged in.
        self.since = now
        self._server = server
        self._requests = TokenBucket(server.request_limit, now=now)
        self._log_messages = TokenBucket(LOG_MESSAGES, now=now)
        self._login = DeferredLock()
        self._closed = False
        self._code_result: tuple[str, str, float, dict[str, Any]] | None = None
        self._protocols: dict[int, None] = {}
        self._replies: dict[Deferred[Any], Deferred[Any]] = {}

    def __str__(self) -> str:
        """For log lines; the token itself never gets there (ui.md 19, 20)."""
        user_id = "UNKNOWN" if self.user is None else self.user.user_id
        return f"UiWebsocket.WsData [userId={user_id}, token={'UNKNOWN' if self.token is None else 'HIDDEN'}]"

    # --- IEndpoint

    def opened(self) -> None:
        if not self._server.admit(self):
            raise Refused()

    def received(self, text: bytes) -> bool:
        return False

    def request(self, request: Request) -> Awaitable[Any]:
        work = Deferred.fromCoroutine(self._observed(request))
        if work.called:
            return work
        # The reply is a Deferred of its own, so that a stopping server can answer before the work is done.
        reply: Deferred[Any] = Deferred(lambda _: work.cancel())
        self._replies[reply] = work

        def done(result: Any) -> None:
            self._replies.pop(reply, None)
            if not reply.called:
                if isinstance(result, Failure):
                    reply.errback(result)
                else:
                    reply.callback(result)

        work.addBoth(done)
        return reply

    def notification(self, notification: Notification) -> None:
        """Only logMessage exists (ui.md 13). The lines of one peer's nonsense are limited by the connection."""
        now = self._server.reactor.seconds()
        if notification.method != "logMessage":
            if self._requests.take(now):
                raise generic("Unhandled Notification")
            self._server.dropped_notifications += 1
            return
        if not self._log_messages.take(now):
            self._server.dropped_notifications += 1
            return
        level, text = parameters.log_message(notification.members())
        user = self.user
        who = "NOT AUTHENTICATED" if user is None else f"{user.id}:{user.name}"
        self._log.info("User [{who}] {severity}-Message: {text}", who=who, severity=level, text=text)

    def closed(self) -> None:
        self._closed = True
        self._server.forget(self)
        if self.token is not None:
            self._server.logins.connection_closed(self.token)
        self._forget_user()

    # --- for the server

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._replies)

    def answer_pending(self, error: OpenemsError) -> int:
        """The server stops: answer what is under way; the number of requests."""
        pending = list(self._replies.items())
        self._replies.clear()
        for reply, work in pending:
            reply.errback(error)
            work.cancel()
        return len(pending)

    def forward(self, edge_id: str, notification: Notification) -> bool:
        """A notification of an edge for this session alone: a line of the system log (ui.md 10.4). False if nobody is
        logged in any more or may not see it."""
        if notification.method == "systemLog":
            if not self._may(edge_id, Role.OWNER):
                return False
            if self.connection.waiting > self._server.slow:
                self._server.dropped_lines += 1
                return True
            notification = _three_digits(notification)
        elif not self._may(edge_id, Role.GUEST):
            return False
        return self.connection.send(edge_rpc(edge_id, notification))

    def check_roles(self) -> None:
        """End the subscriptions of edges for which the user has no role any more (ui.md 19, 3)."""
        subscriptions = self._server.subscriptions
        lost = [edge_id for edge_id in self.watcher.edges if not self._may(edge_id, Role.GUEST)]
        if lost:
            self._log.info(
                "{session}: role withdrawn for {edges}", session=str(self), edges=", ".join(sorted(lost)[:5])
            )
            subscriptions.set_edges(self.watcher, self.watcher.edges.difference(lost))
        for edge_id in [edge_id for edge_id in self.watcher.channels if not self._may(edge_id, Role.GUEST)]:
            subscriptions.set_channels(self.watcher, edge_id, ())
        for edge_id in [edge_id for edge_id in self.system_logs if not self._may(edge_id, Role.OWNER)]:
            self._end_system_log(edge_id)

    async def revalidate(self) -> None:
        """Take over what changed in the user; end the session if he is gone (ui.md 19, 4): by dropping TCP, so that
        the UI comes back and gets 1003 for its token."""
        user = self.user
        self.validated = self._server.reactor.seconds()
        if user is None:
            return
        try:
            if not await self._server.logins.still_valid(self.token, user.user_id):
                raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
            changed = await self._server.metadata.get_user_by_external_id(user.user_id)
        except OpenemsError as e:
            if e.code == errors.COMMON_AUTHENTICATION_FAILED and self.user is user:
                self.end("the user does not exist any more")
            return
        self._changed(user, changed)

    def end(self, reason: str) -> None:
        """By dropping TCP, without a Close frame: the UI comes back then, and has to log in."""
        self._log.info("{session}: dropped, {reason}", session=str(self), reason=reason)
        if self.token is not None:
            self._server.logins.connection_closed(self.token)
        self._forget_user()
        self.connection.drop()

    def _may(self, edge_id: str, required: Role) -> bool:
        user = self.user
        if user is None:
            return False
        role = self._server.metadata.get_user_role(user, edge_id)
        return role is not None and role.is_at_least(required)

    # --- dispatch

    async def _observed(self, request: Request) -> Any:
        observe = self._server.observe
        if observe is None:
            return await self._handle(request)
        begun = self._server.reactor.seconds()
        result = "error"
        try:
            answer = await self._handle(request)
            result = "ok"
            return answer
        except OpenemsError as e:
            result = outcome(e)
            raise
        except CancelledError:
            result = "cancelled"
            raise
        finally:
            name = label(request)
            observe(name, self._server.reactor.seconds() - begun)
            if self._server.observe_result is not None:
                self._server.observe_result(name, result)

    async def _handle(self, request: Request) -> Any:
        server = self._server
        if server.stopping:
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        method = request.method
        if method in AUTHENTICATION:
            return await self._authenticate(request)
        if method != "edgeRpc" and not self._requests.take(server.reactor.seconds()):
            server.limited += 1
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        if self._login.locked:
            await self._login.acquire()
            self._login.release()
        if self.user is None or self._closed:
            if not server.metadata.initialized:
                raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
            raise OpenemsError(errors.COMMON_USER_NOT_AUTHENTICATED, "[user]")
        handler = _HANDLERS.get(method)
        if handler is None:
            return await server.handler.handle_request(CONTEXT, self.user, request)
        # Encoded here: a reply that cannot be built is this request's error (T043 of every reply builder).
        return jsonrpc.raw(await handler(self, self.user, request))

    def _assert_role(self, user: User, edge_id: str, required: Role, resource: str) -> Role:
        """ui.md 4.3: 1005 without a role for the edge, 1002 with too low a one."""
        role = self._server.metadata.get_user_role(user, edge_id)
        if role is None:
            raise OpenemsError(errors.COMMON_ROLE_UNDEFINED, resource, user.id)
        if not role.is_at_least(required):
            raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, resource, role.name)
        return role

    # --- logins (ui.md 5, 6)

    async def _authenticate(self, request: Request) -> Any:
        logins = self._server.logins
        remote = self.connection.remote
        if request.method == "registerUser":
            await logins.register(request.members(), remote)
            return EMPTY
        if request.method == "authenticateWithOAuth":
            payload = _oauth_payload(request)
            if payload.method == "initiateConnect":
                return await logins.oauth_start(payload, remote)
            if payload.method == "getTokenByCode":
                return await self._exclusive(lambda: self._by_code(payload))
            if payload.method == "getTokenByRefreshToken":
                return await self._exclusive(lambda: self._log_in(logins.oauth_by_refresh_token(payload, remote)))
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, payload.method)
        if request.method == "logout":
            return await self._exclusive(self._log_out)
        if request.method == "authenticateWithPassword":
            return await self._exclusive(lambda: self._log_in(logins.with_password(request.members(), remote)))
        return await self._exclusive(lambda: self._log_in(logins.with_token(request.members(), remote)))

    async def _exclusive(self, work: Callable[[], Awaitable[Any]]) -> Any:
        await self._login.acquire()
        try:
            return await work()
        finally:
            self._login.release()

    async def _log_in(self, login: Awaitable[LoggedIn]) -> dict[str, Any]:
        logged_in = await login
        if self._closed:
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        self._forget_user()
        self.user, self.token = logged_in.user, logged_in.token
        self.validated = self.since = self._server.reactor.seconds()
        self._log.info("{session} {remote}: logged in", session=str(self), remote=self.connection.remote)
        return logged_in.result

    async def _by_code(self, payload: Request) -> dict[str, Any]:
        # The UI may send the same code again at the next change of its state, and would log out at a refusal.
        members = payload.members()
        identifier, code = members.optional_string("identifier"), members.optional_string("code")
        now = self._server.reactor.seconds()
        known = self._code_result
        if known is not None and known[:2] == (identifier, code) and now - known[2] < CODE_RESULT:
            return known[3]
        result = await self._log_in(self._server.logins.oauth_by_code(payload, self.connection.remote))
        if identifier is not None and code is not None:
            self._code_result = (identifier, code, self._server.reactor.seconds(), result)
        return result

    async def _log_out(self) -> Raw:
        token = self.token
        self._forget_user()
        if token is not None:
            self._server.logins.logout(token)
        return EMPTY

    def _forget_user(self) -> None:
        """Everything that belongs to the user, subscriptions first: nothing is pushed to nobody."""
        self._server.subscriptions.remove(self.watcher)
        if self.system_logs:
            self.system_logs.clear()
            self._server.edge_manager.unsubscribe_system_logs(self.id)
        self.user = None
        self.token = None
        self._code_result = None
        self._protocols.clear()

    # --- edgeRpc (ui.md 10, 11)

    async def _edge_rpc(self, user: User, request: Request) -> Any:
        members = request.members()
        edge_id = members.string("edgeId")
        payload = members.request()
        if payload.method == "subscribeChannels":
            self._assert_role(user, edge_id, Role.GUEST, "edgeRpc")
            result: Any = self._subscribe_channels(edge_id, payload)
        elif payload.method == "subscribeSystemLog":
            self._assert_role(user, edge_id, Role.GUEST, "edgeRpc")
            role = self._assert_role(user, edge_id, Role.OWNER, payload.method)
            result = await self._subscribe_system_log(user, edge_id, role, payload)
        elif payload.method == "simulation":
            self._assert_role(user, edge_id, Role.GUEST, "edgeRpc")
            if self._server.simulation is None:
                raise generic("simulation unavailable")
            result = await self._server.simulation.handle_request(edge_id, user, payload)
        else:
            return await self._server.handler.handle_request(CONTEXT, user, request)
        return {"payload": Raw(Success(payload.id, jsonrpc.raw(result)).encode())}

    def _subscribe_channels(self, edge_id: str, payload: Request) -> Raw:
        """The set replaces the old one; ``count`` is read but every request wins, in order of arrival (ui.md 19, 23).
        Addresses need not exist nor be well formed."""
        members = payload.members()
        members.integer("count")
        channels = members.strings("channels")
        if len(channels) > MAX_CHANNELS:
            raise generic(f"More than {MAX_CHANNELS} channels for one Edge")
        for channel in channels:
            if len(channel) > parameters.MAX_TEXT:
                check_address(channel)
        if channels and edge_id not in self.watcher.channels and len(self.watcher.channels) >= MAX_EDGES:
            raise generic(f"Channels of more than {MAX_EDGES} Edges")
        self._server.subscriptions.set_channels(self.watcher, edge_id, channels)
        return EMPTY

    async def _subscribe_system_log(self, user: User, edge_id: str, role: Role, payload: Request) -> Raw:
        """Remembered also where the edge is offline (ui.md 10.4): the edge side asks it when it connects."""
        if payload.members().boolean("subscribe"):
            if edge_id not in self.system_logs and len(self.system_logs) >= MAX_EDGES:
                raise generic(f"System logs of more than {MAX_EDGES} Edges")
            self.system_logs.add(edge_id)
        else:
            self.system_logs.discard(edge_id)
        return await self._server.edge_manager.subscribe_system_log(edge_id, user, role, self.id, payload)

    def _end_system_log(self, edge_id: str) -> None:
        user = self.user
        self.system_logs.discard(edge_id)
        if user is None:
            return
        request = Request("subscribeSystemLog", Raw(b'{"subscribe":false}'), jsonrpc.new_id())

        async def unsubscribe() -> None:
            await self._server.edge_manager.subscribe_system_log(edge_id, user, Role.GUEST, self.id, request)

        def failed(failure: Failure) -> None:
            # The subscription is forgotten in any case; whether the edge was there to hear it does not matter here.
            if not isinstance(failure.value, OpenemsError):
                self._log.failure("{edge}: end of system log failed", failure=failure, edge=edge_id)

        Deferred.fromCoroutine(unsubscribe()).addErrback(failed)

    async def _subscribe_edges(self, user: User, request: Request) -> Raw:
        edges = [_primitive_text(element) for element in request.members().array("edges")]
        if len(edges) > MAX_EDGES:
            raise generic(f"More than {MAX_EDGES} Edges")
        for edge_id in edges:
            self._assert_role(user, edge_id, Role.GUEST, request.method)
        self._server.subscriptions.set_edges(self.watcher, frozenset(edges))
        return EMPTY

    # --- edges and user (ui.md 7)

    async def _get_edges(self, user: User, request: Request) -> Any:
        page = parameters.page_request(request.members())
        return {"edges": await self._server.metadata.get_page(user, page)}

    async def _get_edge(self, user: User, request: Request) -> Any:
        edge_id = request.members().string("edgeId")
        edge = await self._server.metadata.get_edge_metadata(user, edge_id)
        if edge is None:
            raise generic(f"Unable to find edge with id [{errors.short(edge_id, 100)}]")
        return {"edge": edge}

    async def _get_user_information(self, user: User, request: Request) -> Any:
        return {"user": await self._server.metadata.get_user_information(user)}

    async def _set_user_information(self, user: User, request: Request) -> Raw:
        information = request.members().object("user")
        await self._server.metadata.set_user_information(user, information)
        return EMPTY

    async def _update_user_language(self, user: User, request: Request) -> Raw:
        language = Language.parse(request.members().string("language"))
        self._changed(user, await self._server.metadata.update_user_language(user, language))
        return EMPTY

    async def _update_user_settings(self, user: User, request: Request) -> Raw:
        settings = request.members().object("settings")
        if len(bytes(request.params)) > MAX_SETTINGS:
            raise generic(f"Settings are longer than {MAX_SETTINGS} bytes")
        self._changed(user, await self._server.metadata.update_user_settings(user, settings))
        return EMPTY

    def _changed(self, user: User, changed: User) -> None:
        # The answer may come after another login.
        if self.user is not None and self.user.user_id == user.user_id:
            self.user = changed

    async def _get_ems_type(self, user: User, request: Request) -> Any:
        edge_id = request.members().string("edgeId")
        self._assert_role(user, edge_id, Role.GUEST, request.method)
        ems_type = await self._server.metadata.get_ems_type(edge_id)
        return EMPTY if ems_type is None else {"emsType": ems_type}

    # --- alerting settings (ui.md 8)

    async def _get_user_alerting_configs(self, user: User, request: Request) -> Any:
        edge_id = request.members().string("edgeId")
        role = self._assert_role(user, edge_id, Role.GUEST, request.method)
        settings = await self._server.metadata.get_user_alerting_settings(edge_id)
        own = {"userLogin": user.id, "offlineEdgeDelay": 0, "faultEdgeDelay": 0, "warningEdgeDelay": 0}
        others = []
        for entry in settings:
            if entry.user_login == user.id:
                own = parameters.alerting_json(entry)
            elif role is Role.ADMIN:
                others.append(parameters.alerting_json(entry))
        return {"currentUserSettings": own, "otherUsersSettings": others}

    async def _set_user_alerting_configs(self, user: User, request: Request) -> Raw:
        members = request.members()
        edge_id = members.string("edgeId")
        settings = parameters.alerting_settings(members)
        role = self._assert_role(user, edge_id, Role.GUEST, request.method)
        if role is not Role.ADMIN and any(entry.user_login != user.id for entry in settings):
            raise generic(f"Not allowed to update/set alerting information for other users as user [{user.id}]")
        await self._server.metadata.set_user_alerting_settings(user, edge_id, settings)
        return EMPTY

    # --- setup (ui.md 9)

    async def _add_edge_to_user(self, user: User, request: Request) -> Any:
        metadata = self._server.metadata
        setup_password = request.members().string("setupPassword")
        # Knowing a setup password is all it takes, so it must not be guessed (the UI repeats a refused one once).
        if not self._server.setup_attempts.take(user.user_id, self._server.reactor.seconds()):
            self._server.limited += 1
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        edge_id = metadata.edge_id_for_setup_password(setup_password)
        edge = None if edge_id is None else metadata.get_edge(edge_id)
        if edge is None:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        await metadata.add_edge_to_user(user, edge)
        result = {"edge": edge.json()}
        try:
            serial_number = await metadata.get_serial_number(edge.id)
        except OpenemsError as e:
            # The edge has been added: this must not look like a failure.
            self._log.warn("{edge}: no serial number: {reason}", edge=edge.id, reason=e.message)
            serial_number = None
        if serial_number is not None:
            result["serialNumber"] = serial_number
        return result

    async def _submit_setup_protocol(self, user: User, request: Request) -> Any:
        protocol = request.members().object("protocol")
        members = Members(protocol)
        edge_id = Members(members.object("edge")).string("id")
        customer = members.object("customer")
        self._assert_role(user, edge_id, Role.INSTALLER, request.method)
        choose = self._server.random.choice
        customer["role"] = Role.OWNER.name
        customer["password"] = "".join(
            choose(parameters.GENERATED_ALPHABET) for _ in range(parameters.GENERATED_LENGTH)
        )
        record = parameters.registration_record({**customer, "includePasswordInRegistrationEmail": True})
        await self._server.logins.register_customer(record, self.connection.remote)
        protocol_id = await self._server.metadata.submit_setup_protocol(user, protocol)
        self._own_protocols([protocol_id])
        return {"setupProtocolId": protocol_id}

    async def _get_setup_protocol(self, user: User, request: Request) -> Any:
        """Only protocols of edges the user owns: those listed to him before, or of an edge his page is open for
        (ui.md 19, 13)."""
        protocol_id = request.members().integer("setupProtocolId")
        if user.global_role is not Role.ADMIN and protocol_id not in self._protocols:
            for edge_id in sorted(self.watcher.edges)[:10]:
                if self._may(edge_id, Role.OWNER):
                    await self._list_protocols(edge_id)
            if protocol_id not in self._protocols:
                raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, request.method, user.global_role.name)
        pdf = await self._server.metadata.get_setup_protocol(user, protocol_id)
        return {"payload": base64.b64encode(pdf).decode()}

    async def _get_setup_protocol_data(self, user: User, request: Request) -> Any:
        edge_id = request.members().string("edgeId")
        self._assert_role(user, edge_id, Role.GUEST, request.method)
        return await self._server.metadata.get_setup_protocol_data(user, edge_id) or EMPTY

    async def _get_latest_setup_protocol_core_info(self, user: User, request: Request) -> Any:
        edge_id = request.members().string("edgeId")
        self._assert_role(user, edge_id, Role.OWNER, request.method)
        infos = await self._list_protocols(edge_id)
        return parameters.core_info_json(infos[0]) if infos else EMPTY

    async def _get_protocols_core_info(self, user: User, request: Request) -> Any:
        edge_id = request.members().string("edgeId")
        self._assert_role(user, edge_id, Role.OWNER, request.method)
        return {"setupProtocols": [parameters.core_info_json(info) for info in await self._list_protocols(edge_id)]}

    async def _list_protocols(self, edge_id: str) -> list[Any]:
        user = self.user
        infos = await self._server.metadata.get_setup_protocols_core_info(edge_id)
        if self.user is user:
            self._own_protocols([info.id for info in infos])
        return list(infos)

    def _own_protocols(self, ids: list[int]) -> None:
        for protocol_id in ids:
            self._protocols[protocol_id] = None
        while len(self._protocols) > MAX_PROTOCOLS:
            del self._protocols[next(iter(self._protocols))]


_HANDLERS: dict[str, Callable[[Session, User, Request], Awaitable[Any]]] = {
    "edgeRpc": Session._edge_rpc,
    "subscribeEdges": Session._subscribe_edges,
    "getEdges": Session._get_edges,
    "getEdge": Session._get_edge,
    "getUserInformation": Session._get_user_information,
    "setUserInformation": Session._set_user_information,
    "updateUserLanguage": Session._update_user_language,
    "updateUserSettings": Session._update_user_settings,
    "getEmsType": Session._get_ems_type,
    "getUserAlertingConfigs": Session._get_user_alerting_configs,
    "setUserAlertingConfigs": Session._set_user_alerting_configs,
    "addEdgeToUser": Session._add_edge_to_user,
    "submitSetupProtocol": Session._submit_setup_protocol,
    "getSetupProtocol": Session._get_setup_protocol,
    "getSetupProtocolData": Session._get_setup_protocol_data,
    "getLatestSetupProtocolCoreInfo": Session._get_latest_setup_protocol_core_info,
    "getProtocolsCoreInfo": Session._get_protocols_core_info,
}

#: Method names that may become a metric's label (ui.md 16); all others are ``other``.
_LABELS = {
    "": {*_HANDLERS, *AUTHENTICATION, "getEdgesStatus", "getEdgesChannelsValues", "setGridConnSchedule"},
    "authenticateWithOAuth": {"initiateConnect", "getTokenByCode", "getTokenByRefreshToken"},
    "edgeRpc": {
        "subscribeChannels", "subscribeSystemLog", "simulation", "getEdgeConfig", "queryHistoricTimeseriesData",
        "queryHistoricTimeseriesEnergy", "queryHistoricTimeseriesEnergyPerPeriod",
        "queryHistoricTimeseriesExportXlxs", "appCenter", "createComponentConfig", "updateComponentConfig",
        "deleteComponentConfig", "setChannelValue", "routes", "componentJsonApi",
    },
    "appCenter": {
        "getRegisteredKeys", "isAppFree", "isKeyApplicable", "getPossibleApps", "addRegisterKeyHistory",
        "addUnregisterKeyHistory", "installAppWithSuppliedKey",
    },
    "componentJsonApi": {
        "executeSystemCommand", "executeSystemUpdate", "executeSystemRestart", "getSystemUpdateState",
        "getNetworkConfig", "setNetworkConfig", "getNetworkInfo", "getChannel", "getChannelsOfComponent",
        "getStateChannelsOfComponent", "getDigitalInputChannelsOfComponents", "getPropertiesOfFactory",
        "getAllComponentFactories", "channelExportXlsx", "getApps", "getApp", "getAppAssistant", "getAppDescriptor",
        "getAppInstances", "queryAppInstancesByFilter", "addAppInstance", "updateAppInstance", "deleteAppInstance",
        "updateAppConfig", "getUpdateables", "getUpdateState", "executeUpdate", "getSchedule", "getOneTasks",
        "getAllTasks", "addTask", "updateTask", "deleteTask", "getModbusProtocol", "getModbusProtocolExportXlsx",
        "geocode", "dailyWeatherForecast", "hourlyWeatherForecast", "getAllOAuthProvider", "initiateConnect",
        "connect", "disconnectOAuthConnection", "getOAuthConnectionState",
    },
}  # fmt: skip


def label(request: Request) -> str:
    """The fully qualified method (wire.md 1.10) out of a bounded set of names, whatever peers send.

    >>> label(Request("fooBar", EMPTY, "00000000-0000-0000-0000-000000000000"))
    'other'
    """
    if request.method not in _LABELS[""]:
        return "other"
    names = [request.method]
    known = _LABELS.get(request.method)
    if known is None:
        return request.method
    try:
        value = jsonrpc.loads(request.params)
    except ValueError:
        return request.method
    while known is not None:
        payload = value.get("payload") if isinstance(value, dict) else None
        method = payload.get("method") if isinstance(payload, dict) else None
        if not isinstance(method, str):
            break
        names.append(method if method in known else "other")
        known = _LABELS.get(method) if method in known else None
        value = payload.get("params") if isinstance(payload, dict) else None
    return "/".join(names)


def _oauth_payload(request: Request) -> Request:
    """The nested request; errors that would print its secrets are made without them (auth.md 12, S12)."""
    try:
        return request.members().request()
    except OpenemsError as e:
        if e.code == errors.JSON_NO_OBJECT_MEMBER or len(e.data) < 2:
            raise OpenemsError(e.code, *e.data[:1], *["{}"] * (len(e.data) - 1)) from None
        raise OpenemsError(e.code, e.data[0], "{}", *e.data[2:]) from None


def _primitive_text(element: Any) -> str:
    """Numbers become their text, as Java reads this list (wire.md 6.3)."""
    if isinstance(element, str):
        return element
    if isinstance(element, bool | int | float):
        return errors.json_text(element)
    raise generic(f"Not an Edge id: {errors.short(errors.json_text(element), 100)}")


def _three_digits(notification: Notification) -> Notification:
    """The line's time with milliseconds (ui.md 15.9); everything else verbatim."""
    try:
        params = jsonrpc.loads(notification.params)
    except ValueError:
        return notification
    line = params.get("line") if isinstance(params, dict) else None
    time = line.get("time") if isinstance(line, dict) else None
    if not isinstance(line, dict) or not isinstance(time, str):
        return notification
    exact = parameters.with_milliseconds(time)
    if exact == time:
        return notification
    line["time"] = exact
    return Notification(notification.method, jsonrpc.raw(params))
