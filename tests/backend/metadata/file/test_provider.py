import contextlib
import copy
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.events import ConfigReceived, EdgesChanged, EventBus, MetadataInitialized, OnlineSet
from openems.backend.interfaces import IMetadata
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.file.state import Locked, NewerState
from openems.backend.models import PageRequest, User, UserAlertingSettings
from openems.common.errors import OpenemsError
from openems.common.role import Language, Level, Role
from openems.common.semver import SemanticVersion
from tests.backend.metadata.file.test_model import EXAMPLE

NOW = 1_776_684_000_000
COMPLETE = b'{"components":{"_sum":{"alias":"","properties":{"n":12345678901234567890}}},"factories":{}}'


@contextlib.contextmanager
def captured_logs() -> Iterator[list[Any]]:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(events.append)


class ProviderTestCase(SynchronousTestCase):
    """A provider on a file in a temporary folder, with a clock and without threads."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.path = os.path.join(self.folder, "metadata.json")
        self.state_path = os.path.join(self.folder, "state", "metadata-state.json")
        self.events: list[Any] = []
        self.running: list[FileMetadata] = []
        self.bus = EventBus()

    def tearDown(self) -> None:
        for provider in self.running:
            provider.file.release()

    def write(self, body: Any) -> None:
        """As an editor does: a new file in place of the old one."""
        with open(self.path + "~", "w") as file:
            file.write(body if isinstance(body, str) else json.dumps(body))
        os.replace(self.path + "~", self.path)

    def get(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def error(self, coroutine: Any) -> OpenemsError:
        failure: Failure = self.failureResultOf(Deferred.fromCoroutine(coroutine), OpenemsError)
        error = failure.value
        assert isinstance(error, OpenemsError)
        return error

    def start(self, **options: Any) -> FileMetadata:
        self.bus = EventBus()
        self.events = []
        for kind in (MetadataInitialized, EdgesChanged, OnlineSet):
            self.bus.subscribe(kind, self.events.append)
        options.setdefault("in_thread", execute)
        provider = FileMetadata(
            self.path,
            self.state_path,
            self.bus,
            reactor=self.clock,
            now=lambda: NOW + int(self.clock.seconds() * 1000),
            **options,
        )
        self.get(provider.start())
        self.running.append(provider)
        return provider

    def kill(self, provider: FileMetadata) -> None:
        """Nothing is written any more, as after ``kill -9``."""
        provider.file.release()
        provider.watch.stop()

    def example(self, change: Callable[[dict[str, Any]], None] = lambda body: None) -> dict[str, Any]:
        body = copy.deepcopy(EXAMPLE)
        change(body)
        return body

    def look(self) -> None:
        for _ in range(3):
            self.clock.advance(1)

    def user(self, provider: FileMetadata, login: str = "mia@example.org") -> User:
        user: User = self.get(provider.get_user_by_external_id(login))
        return user


class TestEdges(ProviderTestCase):
    def test_interface(self) -> None:
        self.write(EXAMPLE)
        verifyObject(IMetadata, self.start())

    def test_lookups(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        self.assertEqual(self.events, [MetadataInitialized()])
        self.assertEqual(provider.apikeys_to_edge_ids(), {"kQ7v2mXc0Zt9Lr4B": "edge0", "Wm1xP8uYd5Ns3HqE": "edge1"})
        self.assertEqual(provider.edge_id_for_apikey("kQ7v2mXc0Zt9Lr4B"), "edge0")
        self.assertIsNone(provider.edge_id_for_apikey("kq7v2mxc0zt9lr4b"))
        self.assertEqual(provider.edge_id_for_setup_password("3f9a-71cc-0b2e-d814"), "edge0")
        self.assertIsNone(provider.edge_id_for_setup_password(""))
        self.assertEqual(self.get(provider.get_ems_type("edge0")), "HOME10")
        self.assertEqual(self.get(provider.get_serial_number("edge0")), "SN-0001")
        self.assertIsNone(self.get(provider.get_ems_type("nope")))
        self.assertEqual(provider.health(), [])

    def test_roles_23_6(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        mia, ops = self.user(provider), self.user(provider, "ops@example.org")
        roles = [provider.get_user_role(mia, f"edge{number}") for number in range(3)]
        self.assertEqual(roles, [Role.OWNER, Role.GUEST, None])
        self.assertIs(provider.get_user_role(ops, "edge1"), Role.ADMIN)
        self.assertIsNone(provider.get_user_role(ops, "nope"))
        self.assertEqual(self.user(provider, "MIA@example.org"), mia)
        self.assertEqual(self.user(provider, "0a4c1f2e-8f8a-4c36-9d2f-1c0f7d1b2a33"), mia)
        self.assertEqual(self.error(provider.get_user_by_external_id("0a4c1f2e-0000")).code, 1003)
        self.assertTrue(mia.has_multiple_edges)
        self.assertIs(mia.language, Language.EN)

    def test_lists_show_visible_edges_only(self) -> None:
        self.write(self.example(lambda body: body["users"]["mia@example.org"]["roles"].pop("edge1")))
        provider = self.start()
        mia = self.user(provider)
        self.assertFalse(mia.has_multiple_edges)
        (edge,) = self.get(provider.get_page(mia, PageRequest(page=0)))
        self.assertEqual((edge["id"], edge["role"], edge["settings"]), ("edge0", "owner", {"color": "blue"}))
        self.assertEqual(self.get(provider.get_edge_metadata(mia, "edge0")), edge)
        for edge_id in ("edge1", "nope"):
            error = self.error(provider.get_edge_metadata(mia, edge_id))
            self.assertEqual((error.code, error.message), (1, f"Unable to find edge with id [{edge_id}]"))

    def test_what_there_is_not(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        error = self.error(provider.get_setup_protocol(self.user(provider), 1))
        self.assertEqual((error.code, error.message), (1, "FileMetadata.getSetupProtocol() is not implemented"))


class TestReload(ProviderTestCase):
    def test_t003_file_appears_later(self) -> None:
        provider = self.start()
        self.assertFalse(provider.initialized)
        self.assertIn(self.path, provider.health()[0])
        self.assertIn("does not exist", provider.health()[0])
        self.assertEqual(self.error(provider.get_user_by_external_id("x")).code, 1003)
        with captured_logs() as logs:
            self.clock.pump([1] * 60)
        self.assertEqual(logs, [])  # said once, at start
        refresh = provider.watch.job
        self.assertEqual((refresh.last_success, refresh.failures), (None, 60))
        self.write('{edges:{edge0:{apikey:"key-a",comment:""}}}')
        self.look()
        self.assertEqual(refresh.last_success, NOW + 63_000)
        self.assertEqual(self.events, [MetadataInitialized()])
        self.assertEqual(provider.edge_id_for_apikey("key-a"), "edge0")

    def test_t001_changes_are_announced(self) -> None:
        self.write({"edges": {"edge0": {"apikey": "key-a", "comment": ""}}})
        provider = self.start()
        edge = provider.get_edge("edge0")
        assert edge is not None
        edge.set_online(True)
        edge.set_lastmessage(NOW)
        two = {
            "edge0": {"apikey": "key-c", "comment": "new"},
            "edge2": {"apikey": "key-b", "comment": ""},
        }
        self.write({"edges": two})
        self.look()
        self.assertEqual(self.events, [MetadataInitialized(), OnlineSet("edge0", True), EdgesChanged()])
        self.assertEqual(provider.apikeys_to_edge_ids(), {"key-c": "edge0", "key-b": "edge2"})
        self.assertIs(provider.get_edge("edge0"), edge)
        self.assertEqual((edge.comment, edge.online, edge.lastmessage), ("new", True, NOW))
        self.write({"edges": {"edge2": two["edge2"], "edge0": {**two["edge0"], "enabled": False}}})
        self.look()
        self.assertEqual(self.events[3:], [OnlineSet("edge0", False), EdgesChanged()])
        self.assertIsNone(provider.get_edge("edge0"))
        self.assertIsNone(provider.edge_id_for_apikey("key-c"))

    def test_a_changed_comment_is_no_change_of_the_map(self) -> None:
        self.write(EXAMPLE)
        self.start()
        self.write(self.example(lambda body: body["edges"]["edge1"].update(comment="x")))
        self.look()
        self.assertEqual(self.events, [MetadataInitialized()])

    def test_broken_file_keeps_the_data_and_is_reported_once(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        good = json.dumps(EXAMPLE)
        for broken in (good[: len(good) // 2], "", '{"edges":{}}', '{"edges":{"edge0":{"comment":""}}}'):
            self.write(broken)
            with captured_logs() as logs:
                self.clock.pump([1] * 10)
            self.assertEqual(len([log for log in logs if log["log_level"].name == "error"]), 1, broken)
            self.assertEqual(len(provider.edges()), 2)
            self.assertEqual(provider.debug_metrics()["Metadata.File/Valid"], 0)
            self.assertIn("no edges any more" if broken == '{"edges":{}}' else "line 1", provider.health()[0])
        os.unlink(self.path)
        self.look()
        self.assertIn("does not exist", provider.health()[0])
        self.assertEqual(len(provider.edges()), 2)
        self.write(EXAMPLE)
        self.look()
        self.assertEqual(provider.health(), [])
        self.assertEqual(provider.debug_metrics()["Metadata.File/Valid"], 1)
        self.assertEqual(self.events, [MetadataInitialized()])

    def test_the_same_fault_again_is_not_logged_again(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        with captured_logs() as logs:
            for _ in range(5):
                self.write("{edges")
                self.look()
        self.assertEqual(provider.watch.refusals, 5)
        self.assertEqual(len([log for log in logs if log["log_level"].name == "error"]), 1)

    def test_a_file_that_still_grows_is_not_read(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        for number in range(5):
            self.write({"edges": {f"edge{n}": {"apikey": f"k{n}", "comment": ""} for n in range(number + 3)}})
            self.clock.advance(1)
            self.assertEqual(len(provider.edges()), 2)
        self.look()
        self.assertEqual(len(provider.edges()), 7)

    def test_symlink_swap(self) -> None:
        for name, number in (("a", 1), ("b", 3)):
            with open(os.path.join(self.folder, name), "w") as file:
                json.dump({"edges": {f"edge{n}": {"apikey": f"k{n}", "comment": ""} for n in range(number)}}, file)
        os.symlink("a", self.path)
        provider = self.start()
        os.symlink("b", self.path + "~")
        os.replace(self.path + "~", self.path)
        self.look()
        self.assertEqual(len(provider.edges()), 3)

    def test_role_lowered_takes_effect_with_the_next_check(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        mia = self.user(provider)
        ended: list[set[str]] = []
        provider.on_users_changed = ended.append
        self.write(self.example(lambda body: body["users"]["mia@example.org"]["roles"].update(edge0="guest")))
        self.look()
        self.assertIs(provider.get_user_role(mia, "edge0"), Role.GUEST)
        self.assertEqual(ended, [])
        self.write(self.example(lambda body: body["users"]["mia@example.org"].update(enabled=False)))
        self.look()
        self.assertIsNone(provider.get_user_role(mia, "edge0"))
        self.assertEqual(self.get(provider.get_page(mia, PageRequest(page=0))), [])
        self.assertEqual(ended, [{"mia@example.org"}])
        self.assertEqual(self.error(provider.update_user_settings(mia, {})).code, 1004)


class TestWithoutUsers(ProviderTestCase):
    """metadata.md 20.3."""

    def setUp(self) -> None:
        super().setUp()
        self.write({"edges": {"edge0": {"apikey": "k", "comment": ""}, "edge1": {"apikey": "l", "comment": ""}}})

    def test_default(self) -> None:
        provider = self.start()
        self.assertTrue(provider.logins_checked)
        self.assertEqual(self.error(provider.get_user_by_external_id("admin")).code, 1003)
        self.assertIn("every login is refused", provider.warnings()[0])
        self.assertEqual(provider.health(), [])

    def test_any_login(self) -> None:
        with captured_logs() as logs:
            provider = self.start(allow_any_login=True)
        self.assertIn("LOGINS ARE NOT CHECKED", "".join(log["log_format"] or "" for log in logs))
        self.assertFalse(provider.logins_checked)
        user = self.user(provider, "whoever")
        self.assertEqual(
            user.json(),
            {
                "id": "admin",
                "name": "Administrator",
                "language": "DE",
                "hasMultipleEdges": True,
                "settings": {},
                "globalRole": "admin",
            },
        )
        self.assertIs(provider.get_user_role(user, "edge1"), Role.ADMIN)
        self.assertIsNone(provider.get_user_role(user, "nope"))
        self.get(provider.update_user_language(user, Language.EN))
        self.get(provider.update_user_settings(user, {"theme": "dark"}))
        self.get(provider.update_user_settings(user, {"x": 1}))
        again = self.user(provider, "whoever")
        self.assertEqual((again.language, again.settings), (Language.EN, {"theme": "dark", "x": 1}))

    def test_a_file_with_users_always_checks(self) -> None:
        self.write(EXAMPLE)
        provider = self.start(allow_any_login=True)
        self.assertTrue(provider.logins_checked)
        self.assertEqual(self.error(provider.get_user_by_external_id("admin")).code, 1003)


class TestState(ProviderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(EXAMPLE)

    def test_answered_actions_survive_a_kill(self) -> None:
        provider = self.start()
        mia, edge1 = self.user(provider), provider.get_edge("edge1")
        assert edge1 is not None
        self.assertEqual(provider.debug_metrics()["Metadata.File/StateWaiting"], 0)
        provider.file.touch()
        self.assertEqual(provider.debug_metrics()["Metadata.File/StateWaiting"], 1)
        self.assertEqual(self.get(provider.update_user_settings(mia, {"theme": "dark"})).settings, {"theme": "dark"})
        self.get(provider.update_user_settings(mia, {"x": 1}))
        self.get(provider.update_user_language(mia, Language.FR))
        self.get(provider.set_user_information(mia, {"phone": "+43 1", "address": {"city": "Wien", "country": "AT"}}))
        self.get(provider.add_edge_to_user(mia, edge1))
        own = UserAlertingSettings(edge_id="edge0", user_login=mia.id, offline_delay=15, last_offline=NOW)
        self.get(provider.set_user_alerting_settings(mia, "edge0", [own]))
        self.assertEqual(provider.debug_metrics()["Metadata.File/StateWaiting"], 0)
        self.assertEqual((provider.file.job.last_success, provider.file.job.failures), (NOW, 0))
        self.kill(provider)

        provider = self.start()
        mia = self.user(provider)
        self.assertEqual((mia.settings, mia.language), ({"theme": "dark", "x": 1}, Language.FR))
        self.assertIs(provider.get_user_role(mia, "edge1"), Role.INSTALLER)
        self.assertEqual(self.get(provider.get_user_alerting_settings("edge0")), [own])
        self.assertEqual(
            self.get(provider.get_user_information(mia)),
            {
                "firstname": "Mia",
                "lastname": "Berg",
                "email": "mia@example.org",
                "phone": "+43 1",
                "address": {"street": None, "zip": None, "city": "Wien", "country": "at"},
                "company": {"name": None},
            },
        )

    def test_names_in_mails(self) -> None:
        body = copy.deepcopy(EXAMPLE)
        body["users"]["jan"] = {
            "name": "Jan Weit",
            "information": {"email": "jan@example.org"},
            "roles": {"*": "admin"},
        }
        body["users"]["ops@example.org"] = {"roles": {"*": "admin"}}
        self.write(body)
        provider = self.start()
        names = {}
        for login in ("mia@example.org", "jan", "ops@example.org"):
            recipient = self.get(provider.mail_recipient(login, None))
            names[login] = recipient.firstname, recipient.lastname
        self.assertEqual(
            names, {"mia@example.org": ("Mia", "Berg"), "jan": ("Jan Weit", ""), "ops@example.org": ("", "")}
        )

    def test_answer_waits_for_the_disk(self) -> None:
        disk: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        provider = self.start()
        mia = self.user(provider)

        def slow(f: Callable[[], Any]) -> "Deferred[Any]":
            done: Deferred[Any] = Deferred()
            disk.append((f, done))
            return done

        provider.file._in_thread = slow
        answers = [Deferred.fromCoroutine(provider.update_user_settings(mia, {str(n): n})) for n in range(3)]
        for answer in answers:
            self.assertNoResult(answer)
        self.assertEqual(len(disk), 1)  # one write at a time
        write, done = disk.pop()
        done.callback(write())
        self.assertIsNotNone(self.successResultOf(answers[0]))
        self.assertNoResult(answers[1])
        write, done = disk.pop()  # the rest in one
        done.errback(Failure(OSError(28, "No space left on device")))
        for answer in answers[1:]:
            failure = self.failureResultOf(answer, OpenemsError)
            self.assertEqual(failure.value.message, "The change could not be stored")
        self.assertIn("No space left", provider.health()[0])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        provider.file._in_thread = execute
        self.clock.advance(10)
        self.assertEqual(provider.health(), [])

    def test_r17_running_state_survives_a_restart(self) -> None:
        provider = self.start()
        edge = provider.get_edge("edge0")
        assert edge is not None
        edge.set_version(SemanticVersion(2026, 4, 0))
        edge.set_sum_state(Level.WARNING)
        edge.set_lastmessage(NOW)
        self.clock.advance(10)
        self.kill(provider)
        again = self.start().get_edge("edge0")
        assert again is not None
        self.assertEqual(
            (str(again.version), again.sum_state, again.lastmessage, again.online),
            ("2026.4.0", Level.WARNING, NOW - NOW % 60_000, False),
        )

    def test_stop_writes_everything(self) -> None:
        provider = self.start()
        edge = provider.get_edge("edge0")
        assert edge is not None
        edge.set_version(SemanticVersion(1, 2, 3))
        self.bus.publish(ConfigReceived("edge0", Raw(COMPLETE)))
        self.get(provider.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        provider = self.start()
        again = provider.get_edge("edge0")
        assert again is not None
        self.assertEqual(str(again.version), "1.2.3")
        self.assertEqual(bytes(self.get(provider.get_edge_config("edge0"))), COMPLETE)

    def test_state_of_a_removed_edge_comes_back_with_it(self) -> None:
        provider = self.start()
        edge = provider.get_edge("edge1")
        assert edge is not None
        edge.set_version(SemanticVersion(1, 2, 3))
        self.write(self.example(lambda body: body["edges"].pop("edge1")))
        self.look()
        self.write(EXAMPLE)
        self.look()
        again = provider.get_edge("edge1")
        assert again is not None
        self.assertEqual(str(again.version), "1.2.3")
        self.write(self.example(lambda body: body["edges"].pop("edge1")))
        self.look()
        self.clock.advance(91 * 86_400)
        self.write(self.example(lambda body: (body["edges"].pop("edge1"), body["edges"]["edge0"].pop("settings"))))
        self.look()
        self.assertNotIn("edge1", provider.state.edges)

    def test_corrupt_state_is_set_aside(self) -> None:
        provider = self.start()
        self.get(provider.update_user_settings(self.user(provider), {"a": 1}))
        self.get(provider.update_user_settings(self.user(provider), {"b": 1}))
        self.kill(provider)
        with open(self.state_path, "w") as file:
            file.write('{"version":1,"users":{"mia')
        provider = self.start()
        self.assertEqual(self.user(provider).settings, {"a": 1})  # the backup is one write older
        (message,) = provider.warnings()
        aside = message.rpartition(" ")[2]
        with open(aside) as file:
            self.assertIn('{"mia', file.read())
        self.kill(provider)
        for name in ("", ".bak"):
            with open(self.state_path + name, "w") as file:
                file.write("\0")
        provider = self.start()
        self.assertEqual(self.user(provider).settings, {})
        self.assertEqual(len(provider.warnings()), 2)

    def test_state_of_a_newer_program_is_not_touched(self) -> None:
        self.kill(self.start())
        text = '{"version":2,"users":{"mia":["another shape"]}}'
        with open(self.state_path, "w") as file:
            file.write(text)
        other = FileMetadata(
            self.path, self.state_path, EventBus(), reactor=self.clock, now=lambda: NOW, in_thread=execute
        )
        refused = self.failureResultOf(Deferred.fromCoroutine(other.start()), NewerState)
        self.assertIn(f"{self.state_path} has version 2, this program knows 1", str(refused.value))
        with open(self.state_path) as file:
            self.assertEqual(file.read(), text)
        with open(self.state_path, "w") as file:
            file.write('{"version":1}')
        self.start()  # and nothing keeps it locked

    def test_half_a_write_is_no_write(self) -> None:
        provider = self.start()
        self.get(provider.update_user_settings(self.user(provider), {"a": 1}))
        replace = os.replace
        self.patch(os, "replace", lambda *names: (_ for _ in ()).throw(OSError("killed here")))
        self.error(provider.update_user_settings(self.user(provider), {"b": 1}))
        self.flushLoggedErrors(OSError)
        self.patch(os, "replace", replace)
        self.kill(provider)
        self.assertEqual(self.user(self.start()).settings, {"a": 1})
        self.assertEqual([name for name in os.listdir(os.path.dirname(self.state_path)) if name.endswith(".tmp")], [])

    def test_one_writer(self) -> None:
        self.start()
        other = FileMetadata(
            self.path, self.state_path, EventBus(), reactor=self.clock, now=lambda: NOW, in_thread=execute
        )
        self.failureResultOf(Deferred.fromCoroutine(other.start()), Locked)

    def test_bounds(self) -> None:
        provider = self.start()
        mia = self.user(provider)
        self.assertEqual(self.error(provider.update_user_settings(mia, {"a": "x" * 70_000})).code, 1)
        self.assertEqual(self.error(provider.set_user_information(mia, {"phone": "1" * 2000})).code, 1)
        self.assertEqual(self.error(provider.set_user_information(mia, {"phone": 1})).code, 5010)
        for call in (provider.update_user_settings, provider.set_user_information):
            self.failureResultOf(Deferred.fromCoroutine(call(mia, {"phone": "\ud800"})), UnicodeEncodeError)
        self.assertEqual(self.user(provider).settings, {})
        self.get(provider.update_user_language(mia, Language.NL))


class TestAlerting(ProviderTestCase):
    """ui.md 8 and who may (troubles: owners may not save their own)."""

    def setUp(self) -> None:
        super().setUp()
        self.write(EXAMPLE)
        self.provider = self.start()
        self.mia, self.ops = self.user(self.provider), self.user(self.provider, "ops@example.org")

    def entry(self, login: str, offline: int) -> UserAlertingSettings:
        return UserAlertingSettings(edge_id="edge0", user_login=login, offline_delay=offline)

    def test_initial_values_are_the_file_s(self) -> None:
        (entry,) = self.get(self.provider.get_user_alerting_settings("edge0"))
        self.assertEqual((entry.user_login, entry.offline_delay, entry.fault_delay), ("mia@example.org", 60, 15))
        self.assertEqual(self.get(self.provider.get_user_alerting_settings("edge1")), [])
        self.assertEqual(self.get(self.provider.get_user_alerting_settings("nope")), [])

    def test_who_may(self) -> None:
        settings = self.provider.set_user_alerting_settings
        self.get(settings(self.mia, "edge0", [self.entry(self.mia.id, 5)]))
        self.assertEqual(
            self.error(settings(self.mia, "edge0", [self.entry(self.ops.id, 5)])).message,
            "Not allowed to update/set alerting information for other users as user [mia@example.org]",
        )
        self.assertEqual(self.error(settings(self.mia, "edge9", [self.entry(self.mia.id, 5)])).code, 1005)
        both = [self.entry(self.mia.id, 7), self.entry(self.ops.id, 8)]
        self.get(settings(self.ops, "edge0", both))
        self.assertEqual(self.error(settings(self.ops, "edge0", [self.entry("nobody", 5)])).code, 1004)
        stored = self.get(self.provider.get_user_alerting_settings("edge0"))
        self.assertEqual([entry.offline_delay for entry in stored], [7, 8])

    def test_stamps(self) -> None:
        self.provider.set_last_notification("edge0", self.mia.id, offline=NOW)
        self.provider.set_last_notification("edge0", self.mia.id, sum_state=NOW + 1)
        self.get(self.provider.set_user_alerting_settings(self.mia, "edge0", [self.entry(self.mia.id, 5)]))
        (entry,) = self.get(self.provider.get_user_alerting_settings("edge0"))
        self.assertEqual((entry.offline_delay, entry.last_offline, entry.last_sum_state), (5, NOW, NOW + 1))
        self.assertEqual(self.provider.users.mail_address("MIA@example.org"), "mia@example.org")


class TestSetupProtocols(ProviderTestCase):
    """ui.md 9, metadata.md 20.9."""

    def test_stored(self) -> None:
        self.write(self.example(lambda body: body["users"]["mia@example.org"]["roles"].pop("edge1")))
        provider = self.start()
        mia, ops = self.user(provider), self.user(provider, "ops@example.org")
        protocol = {"edge": {"id": "edge1"}, "customer": {"email": "Mia@example.org", "password": "Xy12"}, "lots": []}
        self.assertEqual(self.get(provider.get_setup_protocols_core_info("edge1")), [])
        self.assertEqual(self.get(provider.get_setup_protocol_data(ops, "edge1")), {})
        self.assertEqual(self.error(provider.submit_setup_protocol(mia, protocol)).code, 1005)
        self.assertEqual(
            self.error(provider.submit_setup_protocol(mia, {**protocol, "edge": {"id": "edge0"}})).code, 1002
        )
        self.assertEqual(self.error(provider.submit_setup_protocol(ops, {"edge": {}})).code, 5010)
        self.assertEqual(self.error(provider.submit_setup_protocol(ops, {"edge": {"id": "edge1"}})).code, 5003)
        self.assertEqual(self.get(provider.submit_setup_protocol(ops, protocol)), 1)
        self.assertEqual(self.get(provider.submit_setup_protocol(ops, {**protocol, "lots": [1]})), 2)
        self.kill(provider)

        provider = self.start()
        self.assertIs(provider.get_user_role(mia, "edge1"), Role.OWNER)
        infos = self.get(provider.get_setup_protocols_core_info("edge1"))
        self.assertEqual(
            [(info.id, info.create_date, info.type) for info in infos],
            [
                (2, NOW, "SETUP_PROTOCOL"),
                (1, NOW, "SETUP_PROTOCOL"),
            ],
        )
        self.assertEqual(
            self.get(provider.get_setup_protocol_data(mia, "edge1")),
            {"edge": {"id": "edge1"}, "customer": {"email": "Mia@example.org"}, "lots": [1]},
        )


class TestAudit(ProviderTestCase):
    def test_lines(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        with captured_logs() as logs:
            provider.log_generic_system_log(
                "edge0", self.user(provider), "Systemupdate", {"command": "rm x\n[fake] line", "password": "pw"}
            )
        self.assertNotIn("rm x", repr(logs))
        with open(provider.audit.path) as file:
            (line,) = file.read().splitlines()
        self.assertEqual(
            json.loads(line),
            {
                "time": "2026-04-20T11:20:00Z",
                "edgeId": "edge0",
                "user": "mia@example.org",
                "teaser": "Systemupdate",
                "values": {"command": "rm x\n[fake] line", "password": "HIDDEN"},
            },
        )

    def test_bounded(self) -> None:
        self.write(EXAMPLE)
        provider = self.start()
        provider.audit._max_size = 1000
        for _ in range(100):
            provider.log_generic_system_log("edge0", self.user(provider), "x", {"a": "y" * 200})
        names = [name for name in os.listdir(os.path.dirname(self.state_path)) if "audit" in name]
        self.assertEqual(len(names), 4)
        for name in names:
            self.assertLessEqual(os.path.getsize(os.path.join(os.path.dirname(self.state_path), name)), 1000)
