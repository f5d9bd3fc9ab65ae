"""The wheel that is built of the checkout: all that is in openems/, the plugins, and nothing else."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from twisted.trial.unittest import SynchronousTestCase

from tests.real import absent

ROOT = Path(__file__).parents[2]
PLUGINS = ("openems-backend", "openems-edge-application", "openems-simulator")


class WheelTests(SynchronousTestCase):
    def build(self) -> Path:
        """A copy is built, so that nothing is left in the checkout."""
        source = Path(self.mktemp()).absolute()
        source.mkdir(parents=True)
        for folder in ("openems", "twisted"):
            shutil.copytree(
                ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache")
            )
        for file in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, source)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "-w", "dist", "."], cwd=source, capture_output=True, text=True, timeout=180)
        if done.returncode:
            # It asks a package registry for setuptools.
            absent("pip wheel", done.stderr[-2000:])
        (wheel,) = (source / "dist").glob("*.whl")
        return wheel

    def test_it_is_whole_and_works_without_the_checkout(self) -> None:
        installed = Path(self.mktemp()).absolute()
        with ZipFile(self.build()) as wheel:
            wheel.extractall(installed)
        files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
        metadata = {name for name in files if ".dist-info/" in name}
        ours = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "openems").rglob("*")
            if path.is_file()
            and not any(part.startswith((".", "__pycache__")) for part in path.parts[len(ROOT.parts) :])
        }
        self.assertEqual(files - metadata, ours | {"twisted/plugins/openems.py"})

        (scripts,) = installed.glob("*.dist-info/entry_points.txt")
        entries = configparser.ConfigParser()
        entries.read(scripts)
        self.assertEqual(dict(entries["console_scripts"]), {"openems-backend": "openems.application.__main__:main"})

        environ = {**os.environ, "PYTHONPATH": str(installed)}
        for name in PLUGINS:
            # Its --help is asked, for which the plugin is found and its options are read.
            code = (
                "import sys, openems\n"
                f"assert [*openems.__path__] == [{str(installed / 'openems')!r}], openems.__path__\n"
                f"sys.argv = ['twistd', {name!r}, '--help']\n"
                "from twisted.scripts.twistd import run; run()\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=installed, env=environ, capture_output=True, text=True, timeout=60
            )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn(f"twistd [options] {name}", done.stdout + done.stderr)
