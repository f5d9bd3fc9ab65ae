import os
import signal
import stat
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

import openems
from openems.common.atomicfile import write_atomically

_WRITER = """
import sys
import openems
from openems.common.atomicfile import write_atomically
number = 0
while True:
    write_atomically(sys.argv[1], b"<%d%s>" % (number, b"." * 100_000), backup=sys.argv[1] + ".bak")
    number += 1
"""


class TestWriteAtomically(SynchronousTestCase):
    def test_replaces_and_keeps_the_old_one(self) -> None:
        path = os.path.abspath(self.mktemp())
        for data in (b"1", b"22", b"3"):
            write_atomically(path, data, backup=path + ".bak")
        with open(path, "rb") as file, open(path + ".bak", "rb") as backup:
            self.assertEqual((file.read(), backup.read()), (b"3", b"22"))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertFalse(os.path.exists(path + ".tmp"))

    def test_kill_leaves_a_whole_file(self) -> None:
        path = os.path.abspath(self.mktemp())
        environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(openems.__file__))}
        for wait in (0.05, 0.08, 0.13):
            process = subprocess.Popen([sys.executable, "-c", _WRITER, path], env=environment)
            deadline = time.monotonic() + 20
            while not os.path.exists(path) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(wait)  # a real process: there is no clock to advance
            process.send_signal(signal.SIGKILL)
            self.assertEqual(process.wait(), -signal.SIGKILL)
            self.assertTrue(os.path.exists(path))
            for name in (path, path + ".bak"):
                if os.path.exists(name):
                    with open(name, "rb") as file:
                        data = file.read()
                    self.assertTrue(data.startswith(b"<") and data.endswith(b".>"), name)
