"""Nobody learns who exists: the same answer, byte by byte, after the same work (auth.md S14).

200 tries of each kind, one kind after the other in turns, so that whatever else the machine does meets all of them
alike. Compared is the processor time of this thread, which others do not disturb, and how often a hash was computed or
Keycloak was asked.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable

import argon2
from twisted.internet.defer import execute

from openems.backend.metadata import password as passwords
from openems.backend.metadata.password import PasswordService
from openems.backend.metadata.throttle import FORGET
from openems.common import jsonrpc
from tests.backend.authentication.world import PASSWORD, WithUi
from tests.backend.metadata.file.test_provider import NOW, ProviderTestCase
from tests.backend.ui.world import World

TRIES = 200
#: Of the usual time: more is told apart. Without the hash a try takes a tenth of it.
NOISE = 0.2
#: Costs milliseconds and not a tenth of a second.
HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=4096, parallelism=1)


class Compared(ProviderTestCase):
    def compare(self, kinds: dict[str, Callable[[int], None]]) -> dict[str, float]:
        """Kind -> median of the processor seconds of its tries."""
        turns = [(kind, number) for number in range(TRIES) for kind in kinds]
        order = random.Random(7)
        for begin in range(0, len(turns), len(kinds)):
            part = turns[begin : begin + len(kinds)]
            order.shuffle(part)
            turns[begin : begin + len(kinds)] = part
        spent: dict[str, list[float]] = {kind: [] for kind in kinds}
        for kind, number in turns:
            # Wrong attempts of before are forgotten.
            self.clock.advance(FORGET + 1)
            begun = time.thread_time()
            kinds[kind](number)
            spent[kind].append(time.thread_time() - begun)
        medians = {kind: statistics.median(seconds) for kind, seconds in spent.items()}
        usual = statistics.median(medians.values())
        for kind, median in medians.items():
            self.assertLess(abs(median - usual), NOISE * usual, f"{kind}: {medians}")
        return medians


class File(Compared):
    """The passwords of a metadata file."""

    def setUp(self) -> None:
        super().setUp()
        body = self.example(
            lambda body: body["users"].update(
                known={"passwordHash": HASHER.hash("right")},
                disabled={"passwordHash": HASHER.hash("right"), "enabled": False},
                without={},
            )
        )
        for name in ("mia@example.org", "ops@example.org"):
            body["users"].get(name, {}).pop("passwordHash", None)
        self.write(body)
        self.metadata = self.start()
        self.service = PasswordService(
            self.metadata, reactor=self.clock, now=lambda: NOW, in_thread=lambda f: execute(f)
        )
        self.world = World(password=self.service, reactor=self.clock)
        self.world.clock = self.clock
        self.patch(self.world.metadata, "get_user_by_external_id", self.metadata.get_user_by_external_id)
        self.told: set[bytes] = set()

    def ask(self, login: str, password: str, number: int) -> None:
        ui = self.uis[number]
        number_ = jsonrpc.new_id()
        ui.send("authenticateWithPassword", {"username": login, "password": password}, number_)
        (text,) = ui.connection.sent
        ui.connection.sent.clear()
        self.told.add(text.replace(number_.encode(), b"ID"))

    def kinds(self) -> dict[str, Callable[[int], None]]:
        self.uis = [self.world.connect(remote=f"192.0.2.{number}:1") for number in range(TRIES)]
        return {
            "wrong password": lambda number: self.ask("known", f"wrong {number}", number),
            "unknown": lambda number: self.ask("nobody", f"wrong {number}", number),
            "disabled": lambda number: self.ask("disabled", f"wrong {number}", number),
            "disabled, right password": lambda number: self.ask("disabled", "right", number),
            "without a password": lambda number: self.ask("without", f"wrong {number}", number),
            "unknown, each by another name": lambda number: self.ask(f"nobody{number}", "right", number),
        }

    def test_s14(self) -> None:
        computed: Counter[str] = Counter()
        verify = passwords.verify_password

        def counted(password_hash: str, password: str) -> bool:
            computed[password_hash.rpartition("$")[0].rpartition("$")[0]] += 1
            return verify(password_hash, password)

        self.patch(passwords, "verify_password", counted)
        kinds = self.kinds()
        self.compare(kinds)
        self.assertEqual(
            self.told,
            {b'{"jsonrpc":"2.0","id":"ID","error":{"code":1003,"message":"Authentication failed","data":[]}}'},
        )
        # One hash for each try, all of the same cost.
        self.assertEqual(list(computed.values()), [TRIES * len(kinds)])

    def test_s14_this_test_can_fail(self) -> None:
        """Who computes no hash for unknown names is found out."""
        verify = passwords.verify_password
        own = [user.password_hash for user in (self.metadata.users.users or {}).values()]
        self.patch(PasswordService, "_hash_of_another", lambda *_: "")
        self.patch(passwords, "verify_password", lambda h, p: verify(h, p) if h in own else False)
        with self.assertRaises(AssertionError):
            self.compare(self.kinds())


class AtKeycloak(WithUi):
    """What is ours to decide there: one question to Keycloak for each try, and nothing else."""

    def test_s14(self) -> None:
        self.open()
        self.fake.add_user("off@example.com", PASSWORD, enabled=False)
        self.fake.add_user("stranger@example.com", PASSWORD)
        told: set[bytes] = set()
        asked: dict[str, set[tuple[str, ...]]] = {}

        def ask(kind: str, login: str, password: str, number: int) -> None:
            before = len(self.fake.asked)
            ui = self.world.connect(remote=f"192.0.{number % 200}.{len(kind)}:1")
            number_ = jsonrpc.new_id()
            ui.send("authenticateWithPassword", {"username": login, "password": password}, number_)
            self.fake.pump()
            told.add(b"".join(ui.connection.sent).replace(number_.encode(), b"ID"))
            paths = tuple(each.path.rpartition("/")[2] for each in self.fake.asked[before:])
            asked.setdefault(kind, set()).add(paths)

        for number in range(TRIES):
            for kind, login, password in (
                ("wrong password", "mia@example.com", f"wrong {number}"),
                ("unknown", "nobody@example.com", f"wrong {number}"),
                ("disabled", "off@example.com", PASSWORD),
                ("unknown to metadata", "stranger@example.com", PASSWORD),
            ):
                # Failures of one name are kept apart, whoever's it is.
                self.fake.advance(1.0, step=1.0)
                ask(kind, login, password, number)
        self.assertEqual(len(told), 1, told)
        self.assertIn(b'"code":1003,"message":"Authentication failed","data":[]', told.pop())
        # Whose password was right has a session, which is ended; who knows it learns nothing new.
        for kind in ("wrong password", "unknown", "disabled"):
            self.assertEqual(asked[kind], {("token",)}, kind)
        self.assertEqual(asked["unknown to metadata"], {("token", "logout")})
        self.assertEqual(self.fake.sessions, {})

    def test_s14_waits_are_the_same(self) -> None:
        """Attempts of one name, whether there is such a user or not."""
        self.open()
        times: dict[str, list[float]] = {}
        for name in ("mia@example.com", "nobody@example.com"):
            begun = self.clock.seconds()
            for number in range(4):
                running = self.begin(
                    self.keycloak.authenticate_with_password(name, f"wrong {number}", f"192.0.2.{number}:1")
                )
                while not running.called:
                    self.fake.advance(0.25, step=0.25)
                self.failureResultOf(running)
                times.setdefault(name, []).append(round(self.clock.seconds() - begun, 2))
        self.assertEqual(times["mia@example.com"], times["nobody@example.com"])
