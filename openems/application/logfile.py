"""Where the children of the demo write what they log: the newest megabytes of it. Without a bound their debug lines
would fill the disk of whoever lets it run."""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import ILogObserver, textFileLogObserver
from twisted.python.logfile import LogFile

#: Name of the variable with the path, and what twistd is told as ``--logger``.
VARIABLE = "OPENEMS_BACKEND_LOG"
FACTORY = "openems.application.logfile.rotating"
BYTES = 1_000_000
OLD_FILES = 9


def rotating() -> ILogObserver:
    """Raises OSError where it cannot be written."""
    return textFileLogObserver(opened())  # type: ignore[no-any-return]


def opened() -> Any:
    return LogFile.fromFullPath(os.environ[VARIABLE], rotateLength=BYTES, maxRotatedFiles=OLD_FILES)  # type: ignore[no-untyped-call]
