"""Files that are never half written (metadata.md 20.8). Everything here blocks; services call it in a thread."""

from __future__ import annotations

import contextlib
import os


def write_atomically(path: str, data: bytes, *, backup: str | None = None) -> None:
    """Replace the file at ``path``: whoever reads sees the old bytes or the new ones, also after a power failure.

    Only the owner may read the new file. ``backup``: where the old file stays.
    """
    # Always the same name: what a killed process left behind is overwritten and does not pile up.
    temporary = path + ".tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if backup is not None:
            _link(path, backup)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(os.path.dirname(os.path.abspath(path)))


def _link(path: str, backup: str) -> None:
    temporary = backup + ".tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(path, temporary)
        os.replace(temporary, backup)
    except OSError:
        # The first write, or a file system without hard links: no backup is better than no state.
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
