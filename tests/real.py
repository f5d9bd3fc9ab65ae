"""Real services in tests: each is started once for the whole run and ended with it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from unittest import SkipTest

from services import known
from services.framework import Running, ServiceError

_started: dict[str, Running | ServiceError] = {}


def absent(name: str, reason: str) -> None:
    """Skips the test by the service's name; where everything must be there (CI), fails it."""
    text = f"{name}: {reason}"
    if os.environ.get("CI") == "true":
        raise AssertionError(f"{text} (under CI=true every service must be there)")
    raise SkipTest(text)


def real(name: str) -> Running:
    """The running service ``name``, shared by all tests of this process: take a database, realm, bucket of your own.
    Call it in ``setUp``."""
    if name not in _started:
        service = known()[name]
        if not service.installed():
            absent(name, f"not installed; ./dev services {name} installs it")
        try:
            _started[name] = fresh(name)
        except ServiceError as error:
            _started[name] = error
    running = _started[name]
    if isinstance(running, ServiceError):
        absent(name, f"does not start: {running}")
        raise running
    return running


def fresh(name: str) -> Running:
    """An instance of one's own, for tests that stop or break it: end it with ``addCleanup(running.stop)``."""
    service = known()[name]
    if not service.installed():
        absent(name, f"not installed; ./dev services {name} installs it")
    # Not below the checkout: a service may run as another user, who must get there.
    directory = Path(tempfile.mkdtemp(prefix=f"openems-{name}-"))
    directory.chmod(0o755)
    running = service.start(directory)
    running.on_stop(lambda: shutil.rmtree(directory, ignore_errors=True))
    atexit.register(running.stop)
    return running
