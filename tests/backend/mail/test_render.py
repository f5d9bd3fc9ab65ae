"""Every template in every language; names of edges and users can do no harm; templates of an OEM."""

from __future__ import annotations

import tempfile
import tomllib
from email import message_from_bytes
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.mail.message import BadAddress, Sender, address, compose, key_of
from openems.backend.mail.render import (
    BADGES,
    NAMES,
    OWN,
    BadTemplates,
    Oem,
    Templates,
    clean,
    in_words,
    sample_facts,
)
from openems.common.role import Language

OEM = Oem(
    name="ACME", signature="Your ACME team", imprint="ACME GmbH, Ring 1, Graz", base_url="https://ems.example.org/"
)
TEMPLATES = Templates(OEM)
SENDER = Sender(address="ems@acme.example", name="ACME Energie", reply_to="help@acme.example")


class Page(HTMLParser):
    """Balanced tags, what they refer to, the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("href", "src", "background", "srcset")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    lighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


class AllTemplates(SynchronousTestCase):
    def test_every_language_has_every_text(self) -> None:
        def keys(value: object, path: str = "") -> set[str]:
            if isinstance(value, dict):
                return {k for name, inner in value.items() for k in keys(inner, f"{path}.{name}")}
            if isinstance(value, list) and "duration" not in path and ".delay." not in path:
                return {f"{path}[{len(value)}]"}
            return {path}

        found = {
            language: keys(tomllib.loads((OWN / f"{language.value.lower()}.toml").read_text())) for language in Language
        }
        for language, those in found.items():
            self.assertEqual(those, found[Language.EN], language)

    def test_every_mail(self) -> None:
        seen = set()
        for language in Language:
            for name in NAMES:
                for state in ("Warning", "Fault"):
                    rendered = TEMPLATES.render(name, replace(sample_facts(), language=language, state=state))
                    page = Page(rendered.html)
                    self.assertEqual(page.open, [])
                    self.assertNotIn("img", page.tags)
                    self.assertNotIn("script", page.tags)
                    self.assertTrue(all(r.startswith("https://ems.example.org/device/edge0/") for r in page.references))
                    for text in (rendered.text, page.text):
                        self.assertIn("ACME GmbH", text)
                        self.assertNotIn("{{", text)
                        self.assertNotIn("None", text)
                    if name in ("alerting_offline", "alerting_sum_state"):
                        for part in ("edge0", "Tal, Graz", "Home 10", "2026.4.0", "Europe/Berlin", "UTC",
                                     "mia@example.org", "Mia Berg", "15 "):  # fmt: skip
                            self.assertIn(part, rendered.text)
                            self.assertIn(part, page.text)
                        self.assertIn("/device/edge0/live", rendered.text)
                        self.assertTrue(rendered.settings_link.endswith("/device/edge0/settings/alerting"))
                        self.assertIn(rendered.settings_link, rendered.text)
                    self.assertEqual("Haus 2" in rendered.text, name == "alerting_digest")
                    seen.add((rendered.subject, rendered.text))
        # Warning and Fault differ in one of the four templates.
        self.assertEqual(len(seen), len(Language) * 6)

    def test_without_what_may_be_missing(self) -> None:
        bare = Templates(Oem())
        facts = replace(
            sample_facts(), firstname="", lastname="", edge_name="", producttype="", version="", lastmessage=None,
            delay=0, timezone=None, login="",
        )  # fmt: skip
        for language in Language:
            for name in NAMES:
                rendered = bare.render(name, replace(facts, language=language))
                for text in (rendered.text, rendered.html):
                    self.assertNotIn("None", text)
                    self.assertNotIn("()", text)
                    self.assertNotIn('href=""', text)
                self.assertNotIn("\n\n\n", rendered.text)

    def test_times(self) -> None:
        said = {
            Language.EN: "2026-04-20 12:10 (Europe/Berlin)",
            Language.DE: "20.04.2026 12:10 (Europe/Berlin)",
            Language.CZ: "20. 4. 2026 12:10 (Europe/Berlin)",
            Language.NL: "20-04-2026 12:10 (Europe/Berlin)",
            Language.ES: "20/04/2026 12:10 (Europe/Berlin)",
            Language.FR: "20/04/2026 12:10 (Europe/Berlin)",
        }
        for language, text in said.items():
            rendered = TEMPLATES.render("alerting_offline", replace(sample_facts(), language=language))
            self.assertIn(text, rendered.text)
        for zone in ("Not/There", "../../etc/passwd", "", "\0"):
            rendered = TEMPLATES.render("alerting_offline", replace(sample_facts(), timezone=zone))
            self.assertIn("2026-04-20 10:10 (UTC)", rendered.text)

    def test_words(self) -> None:
        cz = tomllib.loads((OWN / "cz.toml").read_text())
        en = tomllib.loads((OWN / "en.toml").read_text())
        self.assertEqual(in_words(1500, en["duration"]), "1 day 1 hour")
        self.assertEqual(in_words(0, en["duration"]), "0 minutes")
        self.assertEqual(in_words(1, en["duration"]), "1 minute")
        self.assertEqual(
            [in_words(n, cz["duration"]) for n in (1, 2, 4, 5, 120, 300)],
            ["1 minuta", "2 minuty", "4 minuty", "5 minut", "2 hodiny", "5 hodin"],
        )
        self.assertEqual([in_words(n, cz["delay"]) for n in (1, 15, 60)], ["1 minutě", "15 minutách", "1 hodině"])

    def test_colours_can_be_read(self) -> None:
        for color, background in BADGES.values():
            self.assertGreater(contrast(color, background), 7)
        for color, background in (("#1c2733", "#ffffff"), ("#4a5a6a", "#ffffff"), ("#0b5394", "#ffffff")):
            self.assertGreater(contrast(color, background), 4.5)


class Harm(SynchronousTestCase):
    EVIL = (
        "x\r\nBcc: victim@example.org",
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}{% for x in y %}",
        "{{ ''.__class__.__mro__ }}",
        "\u202ereversed\u2066",
        "a\0b\x1b[31m",
        "e" * 5000,
        "\ud800",
    )

    def mail(self, evil: str, language: Language = Language.EN, name: str = "alerting_sum_state") -> bytes:
        facts = replace(
            sample_facts(), edge_name=evil, firstname=evil, lastname=evil, edge_id=evil, producttype=evil, version=evil,
            state=evil, language=language, login=evil,
        )  # fmt: skip
        rendered = TEMPLATES.render(name, facts)
        page = Page(rendered.html)
        self.assertFalse({"script", "img"} & set(page.tags))
        self.assertNotIn("49", rendered.text.replace(evil, "") if "7 * 7" in evil else "")
        return compose(
            rendered, SENDER, "mia@example.org", recipient_name=f"{evil} {evil}", key=key_of("t", evil, evil, 1),
            template="alerting_sum_state", edge_id=evil, thread=evil, date=0,
        )  # fmt: skip

    def check(self, data: bytes, *, link: bool = True) -> None:
        data.decode("ascii")
        self.assertLess(max(map(len, data.split(b"\r\n"))), 999)
        self.assertNotIn(b"\n", data.replace(b"\r\n", b""))
        message = message_from_bytes(data, policy=default)  # type: ignore[arg-type]
        self.assertEqual(
            sorted(message.keys()),
            sorted(
                ["Date", "Message-ID", "From", "To", "Reply-To", "Subject", "Auto-Submitted", "Precedence",
                 "In-Reply-To", "References", *(["List-Unsubscribe"] if link else []), "X-OpenEMS-Template",
                 "X-OpenEMS-Edge", "MIME-Version", "Content-Type"]
            ),
        )  # fmt: skip
        self.assertEqual([a.addr_spec for a in message["To"].addresses], ["mia@example.org"])
        self.assertEqual([a.addr_spec for a in message["From"].addresses], ["ems@acme.example"])
        types = [part.get_content_type() for part in message.walk()]
        self.assertEqual(types, ["multipart/alternative", "text/plain", "text/html"])
        self.assertEqual([part.defects for part in message.walk()], [[], [], []])
        self.assertEqual([name for name in message if message[name].defects], [])

    def test_names(self) -> None:
        for evil in self.EVIL:
            # No header has room for a link of thousands of characters.
            self.check(self.mail(evil), link=len(evil) < 5000)

    def test_names_of_any_length_are_one_name(self) -> None:
        """What must be quoted in a short name must be so in one that does not fit in a line, too."""
        for name in ("Berg, Mia", 'Anna "Anni" Berg', "Jan <jan@example.org>", "Bürger, Björn", "=?utf-8?q?x?=", "😀,"):
            for words in (1, 4, 40):
                long = " ".join([name] * words)
                sender = Sender(address="ems@acme.example", name=long)
                data = compose(
                    TEMPLATES.render("test", sample_facts()), sender, "mia@example.org", recipient_name=long,
                    key="0" * 32, template="test", date=0,
                )  # fmt: skip
                self.assertLess(max(map(len, data.split(b"\r\n"))), 79)
                message = message_from_bytes(data, policy=default)  # type: ignore[arg-type]
                for header, expected in (("From", "ems@acme.example"), ("To", "mia@example.org")):
                    self.assertEqual(message[header].defects, ())
                    (mailbox,) = message[header].addresses
                    self.assertEqual(mailbox.addr_spec, expected)
                    # The library puts a blank between two encoded words.
                    self.assertEqual(mailbox.display_name.replace(" ", ""), clean(long).replace(" ", ""))

    def test_ids_and_links_of_any_length_stay_what_they_are(self) -> None:
        sender = Sender(address="ems@notifications.customer-portal.energy-company.example")
        rendered = Templates(Oem(base_url="https://monitoring.energy-company.example/portal/with/a/long/path")).render(
            "alerting_offline", replace(sample_facts(), edge_id="edge4711")
        )
        data = compose(
            rendered, sender, "mia@example.org", key="0" * 32, template="alerting_offline", thread="t", date=0
        )
        link = "https://monitoring.energy-company.example/portal/with/a/long/path/device/edge4711/settings/alerting"
        self.assertIn(f"\r\nList-Unsubscribe: <{link}>\r\n".encode(), data)
        for header in (b"Message-ID", b"In-Reply-To", b"References"):
            self.assertRegex(
                data, header + rb": <[0-9a-f.thread]+@notifications.customer-portal.energy-company.example>"
            )

    @given(evil=st.text(max_size=80), language=st.sampled_from(Language), name=st.sampled_from(NAMES))
    def test_any_name(self, evil: str, language: Language, name: str) -> None:
        data = self.mail(evil, language, name)
        data.decode("ascii")
        message = message_from_bytes(data, policy=default)  # type: ignore[arg-type]
        self.assertEqual([a.addr_spec for a in message["To"].addresses], ["mia@example.org"])
        self.assertIsNone(message["Bcc"])

    def test_values_are_no_templates(self) -> None:
        rendered = TEMPLATES.render("alerting_offline", replace(sample_facts(), edge_name="{{ 7 * 7 }}"))
        self.assertIn("{{ 7 * 7 }}", rendered.subject)

    @given(text=st.text(max_size=300))
    def test_clean(self, text: str) -> None:
        self.assertLessEqual(len(clean(text)), 200)
        self.assertEqual(clean(text).splitlines(), [clean(text)] if clean(text) else [])

    def test_addresses(self) -> None:
        good = {
            "mia@example.org": "mia@example.org",
            " Mia.Berg+ems@Example.ORG ": "Mia.Berg+ems@example.org",
            "mia@bücher.example": "mia@xn--bcher-kva.example",
            "o'neil@example.org": "o'neil@example.org",
        }
        for text, expected in good.items():
            self.assertEqual(address(text), expected)
        for text in ("", "mia", "@example.org", "mia@", "mia@example..org", "mia@-x.org", "mia berg@example.org",
                     "mia@exa mple.org", "mia@example.org\r\nX: y", "mia\n@example.org", "<mia@example.org>",
                     "a@b@example.org", '"a b"@example.org', "mia@[127.0.0.1]", ".mia@example.org", "mia.@example.org",
                     "mía@example.org", "x" * 65 + "@example.org", "m@" + "x" * 64 + ".org", "a,b@example.org",
                     "mia@example.org, jan@example.org", "mia@example.org\0"):  # fmt: skip
            with self.assertRaises(BadAddress, msg=text):
                address(text)

    @given(text=st.text(max_size=60))
    def test_any_address(self, text: str) -> None:
        try:
            made = address(text)
        except BadAddress:
            return
        self.assertTrue(made.isascii())
        self.assertFalse(set(made) & set(' \t\r\n<>,;:"()[]\\\0'))
        self.assertEqual(made.count("@"), 1)

    def test_the_same_arguments_give_the_same_bytes(self) -> None:
        self.assertEqual(self.mail("x"), self.mail("x"))
        keys = {key_of(*a) for a in (("a", "b", "c", 1), ("a", "b", "c", 2), ("a", "bc", "", 1), ("ab", "", "c", 1))}
        self.assertEqual(len(keys), 4)


class OfAnOem(SynchronousTestCase):
    def folder(self, **files: str) -> str:
        folder = tempfile.mkdtemp(dir=self.parent())
        for name, text in files.items():
            Path(folder, name.replace("__", ".")).write_text(text)
        return folder

    def parent(self) -> str:
        path = Path(self.mktemp())
        path.mkdir()
        return str(path)

    def test_some_texts_and_a_layout(self) -> None:
        folder = self.folder(
            en__toml='[alerting_offline]\nsubject = "Lost {{ edge }}"\n',
            layout__html="<!DOCTYPE html><html lang='{{ locale }}'><body>{{ fact }} {{ edge_name }}</body></html>",
        )
        templates = Templates(OEM, folder)
        rendered = templates.render("alerting_offline", replace(sample_facts(), edge_name="<b>"))
        self.assertEqual(rendered.subject, "Lost edge0 (<b>)")
        self.assertIn("&lt;b&gt;", rendered.html)
        self.assertIn("Check the power supply", rendered.text)
        german = templates.render("alerting_offline", replace(sample_facts(), language=Language.DE))
        self.assertEqual(german.subject, "edge0 (Tal, Graz) ist offline")

    def test_mistakes_are_found_at_the_start(self) -> None:
        for files, said in (
            ({"en__toml": "[alerting_offline]\nsubject = 'x {{ egde }}'\n"}, "language EN.*egde"),
            ({"en__toml": "[alerting_ofline]\nsubject = 'x'\n"}, "alerting_ofline"),
            ({"de__toml": "x = ="}, "de.toml"),
            ({"en__toml": "common = 3"}, "common"),
            ({"layout__txt": "{{ nothing_like_it }}"}, "nothing_like_it"),
            ({"en__toml": "[test]\nfact = '{{ 7 / 0 }}'\n"}, "ZeroDivisionError"),
            ({"de__toml": "[alerting_offline]\nsujbect = 'x'\n"}, "de.toml: alerting_offline.sujbect"),
            ({"de__toml": "[test]\ntodo = 'Call us'\n"}, "de.toml: test.todo: is no list"),
            ({"de__toml": "[states]\nFault = 3\n"}, "de.toml: states.Fault: is no str"),
            # Found with a reader whose name nobody knows, an edge without one.
            ({"en__toml": "[common]\nsalutation = 'Dear {{ frist }},'\n"}, "frist"),
            ({"layout__html": "{% if name %}{{ name }}{% else %}{{ lgoin }}{% endif %}"}, "lgoin"),
            ({"layout__txt": "{{ edge_name or egde_id }}"}, "egde_id"),
            ({"layout__txt": "{% if badge and state == words.ok %}{% endif %}"}, "ok"),
            ({"layout__html": "{% if %}"}, "TemplateSyntaxError"),
            ({"en__toml": "[test]\nfact = \"{{ ''.__class__.__mro__[1].__subclasses__() }}\"\n"}, "SecurityError"),
        ):
            with self.assertRaises(BadTemplates) as raised:
                Templates(OEM, self.folder(**files))
            self.assertRegex(str(raised.exception), said)
        with self.assertRaises(BadTemplates):
            Templates(OEM, "/nowhere/at/all")
        folder = self.folder()
        Path(folder, "layout.txt").write_bytes(b"\xff\xfe")
        with self.assertRaisesRegex(BadTemplates, "UnicodeDecodeError"):
            Templates(OEM, folder)

    def test_words_of_its_own(self) -> None:
        """For a layout of its own."""
        folder = self.folder(
            layout__txt="{{ fact }} {{ words.hotline }}",
            **{f"{language.value.lower()}__toml": "[common]\nhotline = '0123'\n" for language in Language},
        )
        self.assertTrue(Templates(OEM, folder).render("test", sample_facts()).text.endswith(" 0123\n"))
