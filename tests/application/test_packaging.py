"""What a packager meets: declared dependencies, their lowest versions, what the plugins need of a missing driver."""

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
OURS = {"openems", "tests", "services", "bench"}
#: What a service installs for itself, beside the interpreter of the tests; what is looked for and done without.
ELSEWHERE = {"services": {"aiosmtpd"}, "tests": {"atheris", "pytest"}}
BOUND = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)>=([0-9][0-9.]*)$")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, list[tuple[str, str]]]:
    """By extra ("" for all): names and lowest versions."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    groups = {"": settings["options"]["install_requires"], **settings["options.extras_require"]}
    found = {}
    for extra, text in groups.items():
        matches = [(line, BOUND.match(line)) for line in text.split("\n") if line]
        unreadable = [line for line, match in matches if match is None]
        assert not unreadable, f"not NAME>=VERSION: {unreadable}"
        found[extra] = [(match[1], match[2]) for _, match in matches if match is not None]
    return found


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """Name and place of each import of what is neither ours nor Python's."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in (name.partition(".")[0] for name in names):
                if name not in OURS and name not in sys.stdlib_module_names:
                    yield name, str(path.relative_to(ROOT))


class PackagingTests(SynchronousTestCase):
    def assert_declared(self, folder: str, extras: tuple[str, ...]) -> None:
        groups = declared()
        known = {normal(name) for extra in extras for name, _ in groups[extra]}
        distributions = packages_distributions()
        elsewhere = ELSEWHERE.get(folder, set())
        undeclared = {
            f"{name} ({place})"
            for name, place in imported(folder)
            if name not in elsewhere and known.isdisjoint(map(normal, distributions.get(name, [name])))
        }
        self.assertEqual(set(), undeclared)

    def test_what_the_backend_imports_is_declared(self) -> None:
        self.assert_declared("openems", ("", "postgres"))

    def test_what_the_tests_import_is_declared(self) -> None:
        for folder in ("tests", "bench", "services"):
            self.assert_declared(folder, ("", "postgres", "test"))

    def test_lowest_versions_are_those_of_setup_cfg(self) -> None:
        """constraints/lowest.txt is what ``tox -e lowest`` installs."""
        promised = {f"{name}=={version}" for group in declared().values() for name, version in group}
        lines = (ROOT / "constraints" / "lowest.txt").read_text().splitlines()
        self.assertEqual(promised, {line for line in lines if line and not line.startswith("#")})

    def test_locked_versions_are_allowed_and_carry_hashes(self) -> None:
        groups = declared()
        for kind, extras in (("run", ("", "postgres")), ("test", ("", "postgres", "test"))):
            text = (ROOT / "constraints" / f"{kind}.txt").read_text().replace("\\\n", " ")
            pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(.*)$", text, re.MULTILINE)
            locked = {normal(name): version for name, version, _ in pins}
            self.assertEqual([], [name for name, _, rest in pins if "--hash=sha256:" not in rest])
            for name, lowest in (pair for extra in extras for pair in groups[extra]):
                self.assertIn(normal(name), locked, kind)
                self.assertGreaterEqual(numbers(locked[normal(name)]), numbers(lowest), name)

    def test_nothing_needs_the_postgres_driver_until_it_is_configured(self) -> None:
        """Of an installation without the extra ``postgres``."""
        code = (
            "import sys\n"
            "sys.modules['psycopg2'] = sys.modules['txpostgres'] = None\n"
            "from openems.application import backend, command, edgeapplication, service, simulator\n"
            "from twisted.plugins.openems import backend\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual((0, ""), (done.returncode, done.stderr))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])
