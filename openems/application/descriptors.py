"""Every connection is a file descriptor, and the usual limit of 1024 is for programs with few."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """The process may open as many files as the administrator allows it; the number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # some systems have a lower limit that they do not tell
    return soft
