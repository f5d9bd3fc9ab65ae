"""The command line's first step: whoever is stopped while the rest is being imported ends quietly."""

from __future__ import annotations

import os
import signal
import sys

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """As :func:`openems.application.command.main`. Until a command runs there is nothing to put away: a signal ends the
    process at once, with 0 for the demo (that is how one ends it), else 130 or 143."""
    demo = sys.argv[1:2] == ["demo"]
    before = [signal.signal(number, lambda number, _: os._exit(0 if demo else 128 + number)) for number in _SIGNALS]
    from openems.application import command

    if not demo:  # which takes the signals over by itself, when it has something to end
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
