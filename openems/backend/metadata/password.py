"""Logins by password and by session token for Metadata.File (metadata.md 20.4, 20.5).

Passwords are Argon2id hashes in the metadata file. A session token is 256 random bits; only its SHA-256 is kept, in
the state file, so that sessions survive a restart and a copy of the file opens none. Wrong attempts get slower
(:mod:`openems.backend.metadata.gate`).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import argon2
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from openems.backend.interfaces import IAuthUserPasswordAuthenticationService
from openems.backend.metadata.file.model import FileUser
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.file.state import InThread, TokenState
from openems.backend.metadata.file.users import ADMIN
from openems.backend.metadata.gate import MAX_LOGIN, MAX_PASSWORD, Attempt, Gate, Wrong
from openems.backend.models import Authenticated
from openems.common import errors
from openems.common.digest import keyed
from openems.common.errors import OpenemsError

DAY = 86_400_000
#: A session ends this long after it was last used, in milliseconds.
SESSION_LIFE = 365 * DAY
#: The use of a session is noted at most this often: each note writes the state file.
NOTE_USE = 3_600_000
#: sessions of one user; the one unused for longest goes first.
MAX_SESSIONS = 20
#: seconds a verified password is taken without verifying again (a REST client sends it with each request).
TRUST = 60.0
#: threads that verify, 64 MiB each.
THREADS = 2
MAX_REMEMBERED = 1000
MAX_TOKEN = 512

#: What an unknown user's password is compared with, so that it takes as long as a known one's, where nobody has any.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$L1b1NjppUoj/KIEORq1pof4waLxklM0mqKZzt9nCsKI"


def hash_password(password: str) -> str:
    """The Argon2id hash for ``passwordHash``, in PHC form. Takes about 0.1 s and 64 MiB."""
    return argon2.PasswordHasher().hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    try:
        return argon2.PasswordHasher().verify(password_hash, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


class _Remembered:
    """A login that succeeded: for a client that sends its password each time it stays one session."""

    __slots__ = ("authenticated", "until")

    def __init__(self, authenticated: Authenticated, until: float) -> None:
        self.authenticated = authenticated
        self.until = until


@implementer(IAuthUserPasswordAuthenticationService)
class PasswordService:
    """``start`` and ``stop`` belong to the own thread pool; with ``in_thread`` there is none."""

    _log = Logger()

    def __init__(
        self,
        metadata: FileMetadata,
        *,
        reactor: Any,
        now: Callable[[], int],
        in_thread: InThread | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.gate = Gate(reactor=reactor)
        self._metadata = metadata
        self._reactor = reactor
        self._now = now
        self._random_bytes = random_bytes
        self._salt = random_bytes(16)
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._pool: ThreadPool | None = None
        if in_thread is None:
            self._pool = pool = ThreadPool(0, THREADS, "passwords")
            in_thread = lambda f: deferToThreadPool(reactor, pool, f)  # noqa: E731
        self._in_thread = in_thread

    def start(self) -> None:
        if self._pool is not None:
            self._pool.start()

    def stop(self) -> None:
        if self._pool is not None and self._pool.started:
            self._pool.stop()

    def debug_metrics(self) -> dict[str, int | float]:
        return {
            "Authentication.Password/Refused": self.gate.refused,
            "Authentication.Password/Overloaded": self.gate.overloaded,
            "Authentication.Password/Sessions": len(self._metadata.state.tokens),
        }

    # Passwords

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        if len(username) > MAX_LOGIN or len(password) > MAX_PASSWORD:
            raise self.gate.refusal()
        attempt = Attempt(self._salt, username, password, remote)
        if not self._metadata.initialized:
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        if not self._metadata.logins_checked:
            # Whatever is typed, this is the one user there is (metadata.md 20.3).
            remembered = self._still_good(attempt.key)
            return remembered.authenticated if remembered else self._open_session(ADMIN, "", attempt.key)
        remembered = self._still_good(attempt.key)
        if remembered is not None and remembered.until > self._reactor.seconds():
            return remembered.authenticated
        user = await self.gate.verified(attempt, lambda: self._verified(attempt.login, password))
        remembered = self._still_good(attempt.key)
        if remembered is not None:
            remembered.until = self._reactor.seconds() + TRUST
            return remembered.authenticated
        return self._open_session(attempt.login, credential_of(user), attempt.key)

    async def _verified(self, login: str, password: str) -> FileUser:
        """Raises :class:`Wrong`."""
        password_hash = await self._verify(login, password)
        # The file may have changed meanwhile.
        user = self._metadata.file_user(login)
        if user is None or user.password_hash is None or password_hash != user.password_hash:
            raise Wrong
        return user

    async def _verify(self, login: str, password: str) -> str | None:
        """The hash that the password fits, or None; takes the same time for an unknown user."""
        user = self._metadata.file_user(login)
        password_hash = user.password_hash if user is not None else None
        compared = password_hash or self._hash_of_another(login)
        fits = await self._in_thread(lambda: verify_password(compared, password))
        if not fits or password_hash is None:
            return None
        if argon2.PasswordHasher().check_needs_rehash(password_hash):
            self._log.info("the password hash of user {login!r} is weaker than those of hash-password", login=login)
        return password_hash

    def _hash_of_another(self, login: str) -> str:
        """For somebody who has none; whether it fits is of no importance. One of the users' own, always the same for
        the same name: hashes may be more or less costly, and that must not tell who exists (auth.md S14)."""
        users = self._metadata.users.users or {}
        hashes = [user.password_hash for user in users.values() if user.password_hash]
        return hashes[int.from_bytes(keyed(self._salt, login)[:8]) % len(hashes)] if hashes else _NOBODY

    def _still_good(self, attempt: bytes) -> _Remembered | None:
        """What is remembered of this login, if its session is still open; it ends with a change of the password."""
        remembered = self._remembered.get(attempt)
        if remembered is None:
            return None
        if self._session(remembered.authenticated.token or "") is None:
            del self._remembered[attempt]
            return None
        self._remembered.move_to_end(attempt)
        return remembered

    # Sessions

    def _open_session(self, login: str, credential: str, attempt: bytes) -> Authenticated:
        token = base64.urlsafe_b64encode(self._random_bytes(32)).rstrip(b"=").decode()
        now = self._now()
        tokens = self._metadata.state.tokens
        own = sorted((session.used, key) for key, session in tokens.items() if session.login == login)
        for _, key in own[: max(0, len(own) + 1 - MAX_SESSIONS)]:
            del tokens[key]
        tokens[token_key(token)] = TokenState(login=login, created=now, used=now, credential=credential)
        self._metadata.touch()
        authenticated = Authenticated(user_id=login, login=login, token=token)
        self._remembered[attempt] = _Remembered(authenticated, self._reactor.seconds() + TRUST)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return authenticated

    def _session(self, token: str) -> TokenState | None:
        """The open session of ``token``; one that is over is removed."""
        key = token_key(token)
        session = self._metadata.state.tokens.get(key)
        if session is None:
            return None
        if self._metadata.logins_checked:
            user = self._metadata.file_user(session.login)
            good = user is not None and session.credential == credential_of(user)
        else:
            good = session.login == ADMIN
        if not good or self._now() - session.used > SESSION_LIFE:
            del self._metadata.state.tokens[key]
            self._metadata.touch()
            return None
        return session

    async def authenticate_with_token(self, token: str) -> Authenticated:
        if not self._metadata.initialized:
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        session = self._session(token) if 0 < len(token) <= MAX_TOKEN else None
        if session is None:
            raise self.gate.refusal()
        now = self._now()
        if now - session.used > NOTE_USE:
            session.used = now
            self._metadata.touch()
        return Authenticated(user_id=session.login, login=session.login, token=token)

    async def logout(self, token: str) -> None:
        """On disk before this returns. An unknown token is no error."""
        if self._metadata.state.tokens.pop(token_key(token), None) is not None:
            await self._metadata.flush()


def token_key(token: str) -> str:
    """Under which a session is kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def credential_of(user: FileUser) -> str:
    """Tells whether the password is still the one of the login, without telling the hash."""
    return hashlib.sha256((user.password_hash or "").encode()).hexdigest()[:16]
