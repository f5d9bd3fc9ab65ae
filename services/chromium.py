"""Headless Chromium of the machine's Debian: pages as pictures and as what became of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from services.framework import Running, Service, ServiceError, apt

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--mute-audio",
)
SECONDS = 60.0


def program() -> str:
    """Path of the browser. ServiceError where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise ServiceError("there is no chromium")
    return found


def screenshot(
    page: str | Path,
    picture: Path,
    *,
    width: int = 800,
    height: int = 1200,
    virtual_time: int = 0,
    flags: Sequence[str] = (),
    seconds: float = SECONDS,
) -> Path:
    """``page``: an HTML file or a URL. ``virtual_time``: milliseconds of the page's own time before the picture, for
    pages with scripts. Returns the PNG."""
    picture.unlink(missing_ok=True)
    options = [f"--screenshot={picture.absolute()}", f"--window-size={width},{height}", *flags]
    if virtual_time:
        options.append(f"--virtual-time-budget={virtual_time}")
    browse(page, options, seconds=seconds)
    if not picture.exists():
        raise ServiceError("chromium made no picture")
    return picture


def dump_dom(page: str | Path, *, virtual_time: int = 0, flags: Sequence[str] = (), seconds: float = SECONDS) -> str:
    """The page as HTML after its scripts have run."""
    options = ["--dump-dom", *flags]
    if virtual_time:
        options.append(f"--virtual-time-budget={virtual_time}")
    return browse(page, options, seconds=seconds)


def browse(page: str | Path, options: Sequence[str], *, seconds: float = SECONDS) -> str:
    """Runs the browser once with a profile of its own; its standard output. ServiceError when it fails or hangs."""
    url = Path(page).absolute().as_uri() if isinstance(page, Path) else page
    with tempfile.TemporaryDirectory(prefix="openems-chromium-") as profile:
        command = [program(), *FLAGS, f"--user-data-dir={profile}", *options, url]
        # A group of its own: the browser is many processes.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise ServiceError(f"chromium is not through after {seconds:.0f} s: {url}") from None
        finally:
            _end(process)
    if process.returncode:
        raise ServiceError(f"chromium: exit {process.returncode}\n{err[-2000:].decode(errors='replace')}")
    return out.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Chromium(Service):
    """Nothing runs between two pages: :meth:`start` only sees whether the browser works. Use :func:`screenshot` and
    :func:`dump_dom`."""

    name = "chromium"
    about = "Chromium and ChromeDriver, Debian's packages"

    def build(self) -> None:
        apt("chromium", "chromium-driver", "fonts-dejavu-core")

    def installed(self) -> bool:
        return super().installed() and shutil.which("chromium") is not None

    def start(self, directory: Path) -> Running:
        page = directory / "page.html"
        page.write_text("<p id=a></p><script>document.getElementById('a').textContent = 'works'</script>")
        if "works" not in dump_dom(page):
            raise ServiceError("chromium does not show a page")
        return Running(self.name, directory, info={"program": program()})


SERVICE = Chromium()
