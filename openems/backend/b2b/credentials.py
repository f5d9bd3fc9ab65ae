"""Who is asking: Basic authentication of both B2B servers (b2b.md 2.3, 3.2; quirks 7, 8).

Rules
- What was verified is remembered for ``TRUST`` seconds, what was refused for ``DISTRUST``, under a keyed hash whose
  key is made at start: neither password nor a hash that anybody could guess from is kept.
- Equal credentials that are being verified are verified once.
- Verifications are limited for each address, those that are remembered are not.
- A verification leaves no session behind, wherever passwords are judged.
- Every verification ends within ``TIMEOUT`` seconds. It goes on when its clients have gone: after wrong attempts it
  waits for longer than many clients do, and who comes again with the right password must find it done.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.backend.authentication.choice import check_password
from openems.backend.interfaces import IAuthUserPasswordAuthenticationService, IMetadata
from openems.backend.models import User
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.ratelimit import PerPeer
from openems.websocket.proxies import host_of

TRUST = 60.0
DISTRUST = 5.0
#: Longer than wrong attempts delay a right one, at most 30 s, or that one would never get in.
TIMEOUT = 45.0
#: Verifications a second and address, and how many at once after a pause.
RATE = 2.0
BURST = 20.0
#: Verifications under way, in all and for one address.
MAX_WAITING = 200
MAX_WAITING_FOR_ADDRESS = 20
#: Clients of one address that wait for them.
MAX_CLIENTS_OF_ADDRESS = 1000
MAX_REMEMBERED = 10_000
#: Longer headers are no credentials.
MAX_HEADER = 8 * 1024


class TooMany(OpenemsError):
    """4005: this address has to wait before it may try again."""

    def __init__(self) -> None:
        super().__init__(errors.JSONRPC_TOO_MANY_REQUESTS)


def rest_credentials(header: str) -> tuple[str, str] | None:
    """``Authorization`` as REST reads it: scheme and credentials divided by one blank, further words ignored.

    >>> rest_credentials("bASIC YWxpY2U6czNjcmV0 extra")
    ('alice', 's3cret')
    """
    parts = header.split(" ")
    if len(header) > MAX_HEADER or len(parts) < 2 or parts[0].lower() != "basic":
        return None
    return _decoded(parts[1])


def websocket_credentials(header: str) -> tuple[str, str] | None:
    """``Authorization`` as the WebSocket reads it: no blank is needed after the scheme.

    >>> websocket_credentials("BasicYWxpY2U6czNjcmV0")
    ('alice', 's3cret')
    """
    header = header.strip()
    if len(header) > MAX_HEADER or header[:5].lower() != "basic":
        return None
    return _decoded(header[5:].strip())


def _decoded(text: str) -> tuple[str, str] | None:
    text = text.rstrip("=")
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        decoded_text = decoded.decode()
    except UnicodeDecodeError:
        # As Python's requests and others send what is no ASCII.
        decoded_text = decoded.decode("latin-1")
    username, colon, password = decoded_text.partition(":")
    return (username, password) if colon else None


class Login(NamedTuple):
    """``still_valid()`` is False when the user was disabled or removed since where his password is judged, True while
    nobody can tell."""

    user: User
    still_valid: Callable[[], Awaitable[bool]]


class _Check:
    """One verification and those who wait for it."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running: Deferred[None] | None = None
        self.waiting: set[Deferred[Login]] = set()


class Credentials:
    """Shared by the B2B servers. ``password`` None: nobody can log in. ``forget`` when a user or his password has
    changed."""

    _log = Logger()

    def __init__(
        self,
        password: IAuthUserPasswordAuthenticationService | None,
        metadata: IMetadata,
        *,
        reactor: Any,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        rate: float = RATE,
        burst: float = BURST,
    ) -> None:
        self._password: Any = password
        self._metadata: Any = metadata
        self._reactor = reactor
        self._salt = random_bytes(32)
        self._limits = PerPeer(rate, burst=burst)
        #: digest -> (login or None where refused, until)
        self._remembered: OrderedDict[bytes, tuple[Login | None, float]] = OrderedDict()
        self._checks: dict[bytes, _Check] = {}
        self._addresses: Counter[str] = Counter()
        self._clients: Counter[str] = Counter()
        self._generation = 0
        #: Verifications made, logins refused, checks refused because an address has too many.
        self.verified = 0
        self.refused = 0
        self.limited = 0

    async def user(self, username: str, password: str, remote: str) -> User:
        """As :meth:`login`."""
        return (await self.login(username, password, remote)).user

    async def login(self, username: str, password: str, remote: str) -> Login:
        """1003 if they do not fit, 1006 if nobody can tell now, :class:`TooMany`."""
        digest = self._digest(username, password)
        known = self._known(digest)
        if known is not None:
            return known
        if not self._metadata.initialized or self._password is None:
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        return await self._join(digest, username, password, remote)

    async def rest_user(self, username: str, password: str, remote: str) -> User:
        """As the Java program, REST takes credentials trimmed; but first as they are."""
        trimmed = _trim(username), _trim(password)
        try:
            return await self.user(username, password, remote)
        except OpenemsError as e:
            if e.code != errors.COMMON_AUTHENTICATION_FAILED or trimmed == (username, password):
                raise
        return await self.user(*trimmed, remote)

    def forget(self) -> None:
        """Users or passwords changed: everything is verified anew, what is under way is not remembered."""
        self._remembered.clear()
        self._generation += 1

    def stop(self) -> None:
        """A server has stopped: what nobody waits for is not verified."""
        for check in tuple(self._checks.values()):
            if check.running is not None and not check.waiting:
                check.running.cancel()

    # --- what is known

    def _known(self, digest: bytes) -> Login | None:
        remembered = self._remembered.get(digest)
        if remembered is None:
            return None
        login, until = remembered
        if until <= self._reactor.seconds():
            del self._remembered[digest]
            return None
        if login is None:
            self.refused += 1
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        return login

    def _remember(self, digest: bytes, login: Login | None, seconds: float) -> None:
        self._remembered.pop(digest, None)
        self._remembered[digest] = (login, self._reactor.seconds() + seconds)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _digest(self, username: str, password: str) -> bytes:
        digest = hashlib.blake2b(key=self._salt, digest_size=32)
        for part in (username, password):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(data), data))
        return digest.digest()

    # --- what has to be verified

    async def _join(self, digest: bytes, username: str, password: str, remote: str) -> Login:
        address = host_of(remote)
        if self._clients[address] >= MAX_CLIENTS_OF_ADDRESS:
            self.limited += 1
            raise TooMany()
        check = self._checks.get(digest) or self._start(digest, address)
        mine: Deferred[Login] = Deferred(check.waiting.discard)
        check.waiting.add(mine)
        if check.running is None:
            check.running = running = Deferred.fromCoroutine(self._verify(digest, check, username, password, remote))
            if not running.called:
                running.addTimeout(TIMEOUT, self._reactor)
            running.addErrback(self._failed, check)
        self._clients[address] += 1
        try:
            return await mine
        finally:
            self._clients[address] -= 1
            if not self._clients[address]:
                del self._clients[address]

    def _start(self, digest: bytes, address: str) -> _Check:
        if len(self._checks) >= MAX_WAITING or self._addresses[address] >= MAX_WAITING_FOR_ADDRESS:
            self.limited += 1
            raise TooMany()
        if not self._limits.take(address, self._reactor.seconds()):
            self.limited += 1
            raise TooMany()
        check = self._checks[digest] = _Check()
        self._addresses[address] += 1
        return check

    async def _verify(self, digest: bytes, check: _Check, username: str, password: str, remote: str) -> None:
        generation = self._generation
        address = host_of(remote)
        self.verified += 1
        try:
            checked = await check_password(self._password, username, password, remote)
            login = Login(await self._metadata.get_user_by_external_id(checked.user_id), checked.still_valid)
        except OpenemsError as e:
            if e.code == errors.COMMON_AUTHENTICATION_FAILED:
                self.refused += 1
                if generation == self._generation:
                    self._remember(digest, None, DISTRUST)
            if e.code == errors.JSONRPC_UNHANDLED_METHOD:
                # Nobody takes passwords here.
                raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
            raise
        finally:
            self._checks.pop(digest, None)
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
        if generation == self._generation:
            self._remember(digest, login, TRUST)
        check.running = None  # whoever is answered now ends nothing any more
        for waiting in _taken(check.waiting):
            waiting.callback(login)

    def _failed(self, failure: Failure, check: _Check) -> None:
        error = failure.value
        if isinstance(error, CancelledError | TimeoutError):
            error = OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        elif not isinstance(error, OpenemsError):
            self._log.failure("B2B: a login could not be verified", failure=failure)
            error = OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        for waiting in _taken(check.waiting):
            waiting.errback(error)


def _taken(waiting: set[Deferred[Login]]) -> Iterator[Deferred[Login]]:
    """All that wait; one that is answered may make another stop waiting."""
    while waiting:
        deferred = waiting.pop()
        if not deferred.called:
            yield deferred


def _trim(text: str) -> str:
    """Java's trim: everything up to U+0020."""
    return text.strip("".join(map(chr, range(0x21))))
