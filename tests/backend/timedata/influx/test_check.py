"""``timedata check``: each kind of trouble with a server is named, on real ones."""

from __future__ import annotations

import io
import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openems.application import config
from openems.application.histories import opened
from openems.application.timedata_command import check as command_check
from openems.backend.timedata.influx.check import check
from services.influxdb2 import call
from tests.backend.timedata.influx.servers import Bucket, bucket

SECRET = "a-secret-of-this-test"


class CheckTests(TestCase):
    timeout = 120  # type: ignore[assignment]

    def token(self, place: Bucket, *actions: str, **changes: Any) -> str:
        [found] = call(f"{place.url}/api/v2/buckets?name={place.name}", token=place.token)["buckets"]
        rights = [
            {"action": action, "resource": {"type": "buckets", "id": found["id"], "orgID": found["orgID"]}}
            for action in actions
        ]
        if changes:
            call(f"{place.url}/api/v2/buckets/{found['id']}", changes, token=place.token, method="PATCH")
        body = {"orgID": found["orgID"], "permissions": rights}
        token: str = call(f"{place.url}/api/v2/authorizations", body, token=place.token)["token"]
        return token

    async def texts(self, place: Bucket, token: str, name: str = "", **options: Any) -> list[str]:
        found = await deferToThread(check, place.url, name or place.name, org=place.org, token=token, **options)
        texts = [f"{finding.level}: {finding.text}" for finding in found]
        self.assertNotIn(token, " ".join(texts))
        self.assertIn("ok: ", texts[0])
        self.assertIn("InfluxDB", texts[0])
        return texts[1:]

    async def test_rights_and_retention(self) -> None:
        place = bucket("influxdb2")
        both = self.token(place, "read", "write")
        keeps, writes = f'ok: bucket "{place.name}" keeps values', f'ok: bucket "{place.name}" can be written'
        self.assertEqual([f"{keeps} for ever", writes], await self.texts(place, both))
        days = [{"type": "expire", "everySeconds": 90 * 86_400}]
        reads = self.token(place, "read", retentionRules=days)
        [kept, refused] = await self.texts(place, reads)
        self.assertEqual(f"{keeps} for 90 days", kept)
        self.assertIn("may not write", refused)
        self.assertEqual([f"{keeps} for 90 days"], await self.texts(place, reads, read_only=True))
        self.assertEqual([], place.query('SELECT * FROM "data"'))

    async def test_no_bucket_no_token_no_organisation(self) -> None:
        place = bucket("influxdb2")
        both = self.token(place, "read", "write")
        [told] = await self.texts(place, both, "nowhere")
        self.assertIn("error: " + place.url + ': there is no bucket "nowhere" for this token', told)
        [told] = await self.texts(place, self.token(place, "write"))
        self.assertIn("there is no bucket", told)
        [told] = await self.texts(place, SECRET)
        self.assertIn("the token is not accepted", told)
        place.org = "nobody"
        [told] = await self.texts(place, both)
        self.assertIn("no such organisation", told)

    async def test_influxdb_1_tells_its_version(self) -> None:
        place = bucket("influxdb1")
        self.assertEqual([], await self.texts(place, "user:word"))

    async def test_no_server_and_one_that_is_silent(self) -> None:
        port: Any = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{port.getHost().port}"
        [silent] = await deferToThread(check, url, "b", org="o", token=SECRET, timeout=0.2)
        await port.stopListening()
        [closed] = await deferToThread(check, url, "b", org="o", token=SECRET)
        for finding in (silent, closed):
            self.assertEqual("error", finding.level)
            self.assertIn(url, finding.text)
            self.assertNotIn(SECRET, finding.text)
        self.assertIn("refused", closed.text)

    async def test_a_token_that_no_header_can_have(self) -> None:
        place = bucket("influxdb2")
        [told] = await deferToThread(check, place.url, "b", org="o", token=f"{SECRET}\n")
        self.assertEqual("error", told.level)
        self.assertNotIn(SECRET, told.text)

    async def test_the_command(self) -> None:
        place = bucket("influxdb2")
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        for token, status, last in ((place.token, 0, "influx0: ok"), (SECRET, 1, "influx0: does not work")):
            text = (
                f'[backend]\nstateDir = "{folder}"\n[metadata.dummy]\n[[timedata.influxdb]]\nid = "influx0"\n'
                f'url = "{place.url}"\norg = "{place.org}"\nbucket = "{place.name}"\napiKey = "{token}"\n'
            )
            found = opened(config.parse(text, "test"), "influx0", reactor)
            out = io.StringIO()
            try:
                self.assertEqual(status, await command_check(found, "influx0", out=out))
            finally:
                await Deferred.fromCoroutine(found.provider.stop())
            self.assertTrue(out.getvalue().endswith(last + "\n"), out.getvalue())
            self.assertEqual(status == 0, "can be read" in out.getvalue())
            self.assertNotIn(token, out.getvalue())
