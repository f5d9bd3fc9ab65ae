"""The provider and its logins with the real reactor and real threads, from file to session."""

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from openems.backend.events import EventBus
from openems.backend.metadata.file.demo import create_demo_file
from openems.backend.metadata.file.provider import FileMetadata
from openems.backend.metadata.password import PasswordService
from openems.common.errors import OpenemsError
from openems.common.role import Language, Role


class TestThreads(TestCase):
    timeout = 30

    async def begin(self, folder: str) -> tuple[FileMetadata, PasswordService]:
        clock: Any = reactor
        metadata = FileMetadata(
            f"{folder}/metadata.json",
            f"{folder}/state.json",
            EventBus(),
            reactor=clock,
            now=lambda: int(clock.seconds() * 1000),
        )
        await metadata.start()
        service = PasswordService(metadata, reactor=clock, now=lambda: int(clock.seconds() * 1000))
        service.start()
        return metadata, service

    async def test_login_change_restart(self) -> None:
        folder = os.path.abspath(self.mktemp())
        create_demo_file(f"{folder}/metadata.json", "correct horse", [("edge0", "a" * 20)])
        metadata, service = await self.begin(folder)
        try:
            with self.assertRaises(OpenemsError):
                await service.authenticate_with_password("admin", "wrong", "192.0.2.1:1")
            session = await service.authenticate_with_password("admin", "correct horse", "192.0.2.1:1")
            user = await metadata.get_user_by_external_id(session.user_id)
            self.assertIs(metadata.get_user_role(user, "edge0"), Role.ADMIN)
            await gatherResults(
                [Deferred.fromCoroutine(metadata.update_user_settings(user, {str(n): n})) for n in range(20)]
            )
            await metadata.update_user_language(user, Language.FR)
        finally:
            service.stop()
            await metadata.stop()
        metadata, service = await self.begin(folder)
        try:
            again = await service.authenticate_with_token(session.token or "")
            user = await metadata.get_user_by_external_id(again.user_id)
            self.assertIs(user.language, Language.FR)
            self.assertEqual(user.settings, {str(n): n for n in range(20)})
        finally:
            service.stop()
            await metadata.stop()
