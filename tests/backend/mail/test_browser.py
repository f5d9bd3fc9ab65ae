"""All mails in a real browser: nothing is wider than the window, nothing is asked of the network."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.mail.render import NAMES, Oem, Templates, sample_facts
from openems.common.role import Language
from services.chromium import dump_dom, screenshot
from tests.real import real

MEASURE = """<script>
window.onload = function () {
  var found = [];
  document.querySelectorAll('iframe').forEach(function (frame) {
    var page = frame.contentDocument.documentElement;
    found.push({name: frame.title, width: page.scrollWidth, inner: frame.clientWidth, height: page.scrollHeight,
                remote: frame.contentWindow.performance.getEntriesByType('resource').length,
                text: frame.contentDocument.body.innerText.length, lang: page.lang});
  });
  document.getElementById('found').textContent = JSON.stringify(found);
};
</script><pre id="found"></pre>"""


class Browser(SynchronousTestCase):
    def setUp(self) -> None:
        real("chromium")
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.templates = Templates(
            Oem(name="ACME", signature="ACME", imprint="ACME GmbH\nGraz", base_url="https://ems.example.org")
        )

    def test_every_mail_fits(self) -> None:
        frames = []
        for language in Language:
            for name in NAMES:
                for width in (360, 700):
                    facts = replace(sample_facts(), language=language, edge_name="Haus " + "x" * 150, login="m" * 60)
                    page = html.escape(self.templates.render(name, facts).html)
                    frames.append(
                        f'<iframe title="{language.value} {name}" width="{width}" height="900" srcdoc="{page}"></iframe>'  # noqa: E501
                    )
        path = self.folder / "all.html"
        path.write_text("<!DOCTYPE html><meta charset=utf-8>" + "".join(frames) + MEASURE)
        match = re.search(r'<pre id="found">(.*?)</pre>', dump_dom(path), re.DOTALL)
        assert match is not None
        found = json.loads(html.unescape(match.group(1)))
        self.assertEqual(len(found), len(Language) * len(NAMES) * 2)
        for frame in found:
            self.assertLessEqual(frame["width"], frame["inner"], frame)
            self.assertEqual(frame["remote"], 0, frame)
            self.assertGreater(frame["text"], 100, frame)
            self.assertGreater(frame["height"], 200, frame)
            self.assertEqual(frame["lang"].upper(), frame["name"][:2].replace("CZ", "CS"))

    def test_a_picture(self) -> None:
        path = self.folder / "mail.html"
        path.write_text(self.templates.render("alerting_sum_state", sample_facts()).html)
        picture = screenshot(path, self.folder / "mail.png", width=700, height=1100)
        data = picture.read_bytes()
        self.assertTrue(data.startswith(b"\x89PNG"))
        # An empty page of that size has a tenth of it.
        self.assertGreater(len(data), 20_000)
