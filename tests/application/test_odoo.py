"""The section ``[metadata.odoo]``: OpenEMS's names, its Felix file, what it becomes (metadata-odoo.md 2)."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from openems.application import config, felix
from openems.application.config import BadConfiguration
from openems.application.odoo import settings_of

FELIX = """service.pid="Metadata.Odoo"
database="prod"
odooProtocol="HTTPS"
odooHost="odoo.example.com"
odooPort=I"443"
odooUid=I"2"
odooPassword="secret-1"
pgHost="db.example.com"
pgPort=I"5433"
pgUser="odoo"
pgPassword="secret-2"
pgConnectionPoolSize=I"40"
poolSize=I"10"
debugMode="OFF"
"""


class Section(SynchronousTestCase):
    def test_felix(self) -> None:
        folder = self.mktemp()
        os.makedirs(f"{folder}/Metadata")
        with open(f"{folder}/Metadata/Odoo.config", "w") as file:
            file.write(FELIX)
        configuration, _ = felix.load(folder)
        section = configuration.metadata_odoo
        assert section is not None
        settings = settings_of(section)
        self.assertEqual((settings.url, settings.uid), ("https://odoo.example.com:443", 2))
        self.assertEqual(
            (settings.pg_host, settings.pg_port, settings.pg_password), ("db.example.com", 5433, "secret-2")
        )
        for text in (repr(section), repr(settings), repr(configuration)):
            self.assertNotIn("secret-", text)

    def test_names(self) -> None:
        text = '[metadata.odoo]\ndatabase = "prod"\nodooPassword = "x"\nauthOAuthProviderName = "Keycloak"\n'
        section = config.parse(text, "f.toml").metadata_odoo
        assert section is not None
        self.assertEqual(settings_of(section).auth_oauth_provider_name, "Keycloak")

    def test_refusals(self) -> None:
        for text, problem in (
            ("[metadata.odoo]\n", "f.toml: [metadata.odoo] database: is required"),
            (
                '[metadata.odoo]\ndatabase = "p"\nodooPassword = "x"\neventPoolSize = 5\n',
                "f.toml: [metadata.odoo] eventPoolSize: has no effect here, there are no message threads; leave it out",
            ),
            (
                '[metadata.odoo]\ndatabase = "p"\nodooPassword = "x"\n[metadata.dummy]\n',
                "f.toml: [metadata.dummy] and [metadata.odoo] exclude each other",
            ),
        ):
            with self.assertRaises(BadConfiguration) as caught:
                config.parse(text, "f.toml")
            self.assertIn(problem, caught.exception.problems)
