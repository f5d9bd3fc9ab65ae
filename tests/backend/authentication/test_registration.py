"""New users (auth.md 8.6, S14, S15, S21, Q9, Q19)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from openems.backend.authentication.keycloak.registration import MAX_RUNNING
from openems.common import errors
from openems.common.errors import generic
from tests.backend.authentication.world import ACME, WithKeycloak


def record(**changes: Any) -> dict[str, Any]:
    return {
        "firstname": "Jan", "lastname": "Öztürk-Meyer", "phone": "+49 9903 1", "email": "Jan@example.com",
        "password": "correct horse", "role": "INSTALLER", "includePasswordInRegistrationEmail": False,
        "address": {"street": "Hauptstr. 1", "zip": "94469", "city": "Deggendorf", "country": "DE"}, **changes,
    }  # fmt: skip


class Registrations(WithKeycloak):
    def asked(self, method: str = "") -> list[Any]:
        return [asked for asked in self.fake.asked if asked.path.startswith("/admin") and method in ("", asked.method)]

    def test_registered(self) -> None:
        self.get(self.keycloak.register_user(record()))
        (asked,) = self.asked()
        self.assertEqual(
            asked.body,
            {
                "username": "Jan@example.com", "email": "Jan@example.com", "firstName": "Jan",
                "lastName": "Öztürk-Meyer", "enabled": True,
                "credentials": [{"type": "password", "value": "correct horse", "temporary": False}],
            },
        )  # fmt: skip
        ((known, oem),) = self.metadata.registered
        self.assertEqual(oem, "openems")
        self.assertEqual((known["oauthProviderId"], known["role"], known["phone"]), (-1, "INSTALLER", "+49 9903 1"))
        self.assertIn(known["oauthUid"], self.fake.users)

    def test_without_a_password(self) -> None:
        self.get(self.keycloak.register_user({k: v for k, v in record().items() if k != "password"}))
        self.assertNotIn("credentials", self.asked()[0].body)

    def test_s15_metadata_fails(self) -> None:
        self.metadata.fail = generic("User already exists with email [..]")
        error = self.refused(self.keycloak.register_user(record()), 1)
        self.assertEqual(error.message, "User already exists with email [..]")
        self.assertEqual([asked.method for asked in self.asked()], ["POST", "DELETE"])
        self.assertEqual(list(self.fake.users), [self.mia])
        self.metadata.fail = ValueError("marker")
        self.refused(self.keycloak.register_user(record()), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.assertEqual(list(self.fake.users), [self.mia])
        self.assertEqual(self.keycloak.debug_metrics()["auth0/Undone"], 2)

    def test_s15_who_asked_has_gone(self) -> None:
        """Metadata takes longer than anybody waits: a user is in both in the end, or in neither."""
        for number, (fails, users) in enumerate(((False, 2), (True, 2))):
            waiting: Deferred[None] = Deferred()

            async def slow(record: dict[str, Any], oem: str, waiting: Any = waiting) -> None:
                await waiting

            self.patch(self.metadata, "register_user", slow)
            running = self.begin(self.keycloak.register_user(record(email=f"slow{number}@example.com")))
            running.cancel()
            self.failureResultOf(running, CancelledError)
            self.fake.pump()
            self.assertEqual([asked.method for asked in self.asked("DELETE")], [])
            if fails:
                waiting.errback(generic("no"))
            else:
                waiting.callback(None)
            self.fake.pump()
            self.assertEqual(len(self.fake.users), users)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/Undone"], 1)

    def test_s15_many_at_once(self) -> None:
        async def slow(record: dict[str, Any], oem: str) -> None:
            await Deferred()

        self.patch(self.metadata, "register_user", slow)
        running = [
            self.begin(self.keycloak.register_user(record(email=f"n{number}@example.com")))
            for number in range(MAX_RUNNING)
        ]
        self.refused(self.keycloak.register_user(record()), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.remake()
        for outcome in running:
            self.failureResultOf(outcome)

    def test_s15_what_cannot_be_undone_is_told(self) -> None:
        self.metadata.fail = generic("no")
        self.fake.answer = lambda asked: (500, {}, b"") if asked.method == "DELETE" else None
        self.refused(self.keycloak.register_user(record()), 1)
        self.assertEqual(self.keycloak.debug_metrics()["auth0/LeftOver"], 1)

    def test_s15_roles(self) -> None:
        for role in ("ADMIN", "GUEST"):
            self.refused(self.keycloak.register_user(record(role=role)), 1)
        self.assertEqual(self.fake.asked[1:], [])

    def test_s15_what_no_server_would_take(self) -> None:
        for changes in (
            {"firstname": ""}, {"firstname": "a\r\nb"}, {"lastname": "<script>"}, {"lastname": "x" * 256},
            {"email": "jan"},
            {"email": "a b@example.com"}, {"email": "@example.com"}, {"email": "jan@"}, {"email": "a\0@example.com"},
            {"password": ""}, {"password": "x" * 1025}, {"password": "a\nb"}, {"phone": "x\0"},
            {"address": {"street": "x" * 300}},
        ):  # fmt: skip
            error = self.refused(self.keycloak.register_user(record(**changes)), 1)
            for value in changes.values():
                if len(str(value)) > 2:
                    self.assertNotIn(str(value), error.message)
        self.assertEqual(self.fake.asked[1:], [])

    def test_409(self) -> None:
        error = self.refused(self.keycloak.register_user(record(email="mia@example.com")), 1)
        self.assertEqual(error.message, "Http 409 Conflict")
        self.remake(neutral_registration=True)
        self.get(self.keycloak.register_user(record(email="mia@example.com")))
        self.assertEqual(self.metadata.registered, [])

    def test_q19_a_user_that_exists(self) -> None:
        existing = record(email="mia@example.com")
        self.get(self.keycloak.register_user_if_not_exist(existing))
        self.assertEqual(self.metadata.registered, [])
        self.metadata.known.clear()
        self.get(self.keycloak.register_user_if_not_exist(existing))
        ((known, _),) = self.metadata.registered
        self.assertEqual(known["oauthUid"], self.mia)
        # His password is his own: the one that was made up for a new user is not.
        self.assertNotIn("password", known)

    def test_q19_another_users_name(self) -> None:
        self.fake.users[self.mia]["email"] = "jan@example.com"
        self.fake.answer = lambda asked: (
            (200, {"content-type": "application/json"}, b"[]")
            if asked.method == "GET" and "/users" in asked.path
            else None
        )
        error = self.refused(self.keycloak.register_user_if_not_exist(record()), 1)
        self.assertEqual(error.message, "Http 409 Conflict")

    def test_rules_of_keycloak(self) -> None:
        for body, told in (
            (b'{"field":"firstName","errorMessage":"error-person-name-invalid-character","params":["marker"]}',
             "firstName: error-person-name-invalid-character"),
            (b'{"error":"invalidPasswordMinLengthMessage","error_description":"Invalid password: marker"}',
             "invalidPasswordMinLengthMessage"),
            (b'{"errorMessage":"User name is marker"}', ""),
            (b'{"errors":[{"field":"x y","errorMessage":"error-invalid-length"}, 5]}', "error-invalid-length"),
            (b"<html>marker", ""),
        ):  # fmt: skip
            self.fake.answer = lambda asked, body=body: (
                (400, {"content-type": "application/json"}, body) if asked.path.startswith("/admin") else None
            )
            error = self.refused(self.keycloak.register_user(record()), 1)
            self.assertEqual(error.message, "Http 400 Bad Request" + (f" ({told})" if told else ""))

    def test_s21_location(self) -> None:
        """Q9: in whatever letters; and nothing but a user's id goes into another path."""
        for location, good in (
            ("http://localhost:7900/admin/realms/openems/users/7c9e6679-7425-40de-944b-e07fc1f90ae7", True),
            ("http://localhost:7900/admin/realms/openems/users/../../x", False),
            ("7c9e6679-7425-40de-944b-e07fc1f90ae7%2f..", False),
            ("", False),
        ):
            self.fake.answer = lambda asked, location=location: (
                (201, {"location": location} if location else {}, b"") if asked.path.startswith("/admin") else None
            )
            if good:
                self.get(self.keycloak.register_user(record()))
                self.assertEqual(self.metadata.registered[-1][0]["oauthUid"], location[-36:])
            else:
                self.refused(self.keycloak.register_user(record()), errors.COMMON_SERVICE_NOT_AVAILABLE)

    def test_nothing_is_created_where_metadata_cannot(self) -> None:
        self.remake(user_registry=None)
        self.refused(self.keycloak.register_user(record()), 1)
        self.remake(oems=[ACME])
        self.refused(self.keycloak.register_user(record()), 1)
        self.assertEqual(self.asked(), [])

    def test_the_administrators_token_is_used_again(self) -> None:
        self.get(self.keycloak.register_user(record()))
        self.get(self.keycloak.register_user(record(email="b@example.com")))
        self.assertEqual(len(self.fake.posts("client_credentials")), 1)
        self.fake.advance(280, step=10)
        self.get(self.keycloak.register_user(record(email="c@example.com")))
        self.assertEqual(len(self.fake.posts("client_credentials")), 2)

    def test_a_token_that_ended_early(self) -> None:
        self.get(self.keycloak.register_user(record()))
        refused = []

        def once(asked: Any) -> Any:
            if asked.path.startswith("/admin") and not refused:
                refused.append(asked)
                return 401, {"content-type": "application/json"}, b'{"error":"HTTP 401 Unauthorized"}'
            return None

        self.fake.answer = once
        self.get(self.keycloak.register_user(record(email="b@example.com")))
        self.assertEqual(len(self.fake.posts("client_credentials")), 2)

    def test_without_the_right(self) -> None:
        self.fake.answer = lambda asked: (403, {}, b"") if asked.path.startswith("/admin") else None
        self.refused(self.keycloak.register_user(record()), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.assertIn("manage-users", self.keycloak.problems()[0])
        self.flushLoggedErrors()

    def test_a_secret_that_is_wrong_is_told(self) -> None:
        self.fake.clients["openems"] = "another"
        self.refused(self.keycloak.register_user(record()), errors.COMMON_SERVICE_NOT_AVAILABLE)
        self.assertIn("is not accepted", self.keycloak.problems()[0])

    def test_names_are_encoded_in_paths(self) -> None:
        """S27: a realm with a slash stays one segment."""
        from openems.backend.authentication.keycloak.settings import Realm

        realm = Realm(realm="a/../b c", base_url="http://localhost:7900/")
        self.assertEqual(
            realm.admin_url("users", "x/y"), "http://localhost:7900/admin/realms/a%2F..%2Fb%20c/users/x%2Fy"
        )
