"""README.md, CONTRIBUTING.md and docs/: what they point at is there, what they say to write is accepted."""

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openems.application import command, config

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Of a piece of a configuration: secrets that are not here, and the sections that the reader of the page has already.
OF_THE_PLACE = re.compile("cannot read |the environment has no |nothing says which edges exist")
#: TOML that is no configuration: texts of mails.
OTHER_TOML = "[alerting_offline]"


def found(pattern: str) -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"), re.DOTALL):
            yield path, match[1]


class DocumentsTests(SynchronousTestCase):
    def test_links_and_paths(self) -> None:
        absent = [
            (path.name, target)
            for path, target in found(r"\]\(([^)#\s]+)[^)]*\)")
            if "://" not in target and not (path.parent / target).exists()
        ]
        self.assertEqual(absent, [])
        folders = "openems|tests|bench|services|deploy|examples|constraints"
        absent = [
            (path.name, name) for path, name in found(rf"`((?:{folders})/[a-z0-9_./-]*)`") if not (ROOT / name).exists()
        ]
        self.assertEqual(absent, [])

    def test_configurations_are_accepted(self) -> None:
        blocks = [(path, text) for path, text in found(r"```toml\n(.*?)```") if OTHER_TOML not in text]
        self.assertGreater(len(blocks), 10)
        for path, text in blocks:
            try:
                config.parse(text, path.name)
            except config.BadConfiguration as e:
                self.assertEqual([problem for problem in e.problems if not OF_THE_PLACE.search(problem)], [])

    def test_commands_exist(self) -> None:
        known = set(re.findall(r"\./dev (\w+)", "\n".join(re.findall(r"^\./dev.*", (ROOT / "dev").read_text(), re.M))))
        asked = {(path.name, name) for path, name in found(r"(?:`|^|\n)\./dev ([a-z]+)")}
        self.assertEqual({(where, name) for where, name in asked if name not in known}, set())

        actions = {text for action in command._parser()._subparsers._group_actions for text in action.choices}  # type: ignore[union-attr]
        asked = {(path.name, name) for path, name in found(r"(?:`|\n)openems-backend ([a-z-]+)")}
        self.assertGreater(len(asked), 5)
        self.assertEqual({(where, name) for where, name in asked if name not in actions}, set())
