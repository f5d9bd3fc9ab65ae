"""A headless Chromium driven by ChromeDriver's HTTP interface. Blocking: call it in a thread."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any

from services.chromium import FLAGS, program
from services.framework import end, free_port

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="openems-chromium-")
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [shutil.which("chromedriver") or "chromedriver", f"--port={port}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        options = {"binary": program(), "args": [*FLAGS, f"--user-data-dir={self._profile}"]}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        end_ = time.monotonic() + 30
        while True:
            try:
                session = self._ask("POST", "/session", {"capabilities": capabilities})
                break
            except urllib.error.URLError:
                if time.monotonic() > end_:
                    self.close()
                    raise
                time.sleep(0.1)
        self._session = f"/session/{session['sessionId']}"

    def close(self) -> None:
        if hasattr(self, "_session"):
            try:
                self._ask("DELETE", self._session)
            except OSError:
                pass
        end(self._process)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str) -> None:
        self._ask("POST", f"{self._session}/url", {"url": url})

    def address(self) -> str:
        return str(self._ask("GET", f"{self._session}/url"))

    def text(self, selector: str = "body") -> str:
        return str(self._ask("GET", f"{self._session}/element/{self._find(selector)}/text"))

    def type(self, selector: str, text: str) -> None:
        self._ask("POST", f"{self._session}/element/{self._find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._ask("POST", f"{self._session}/element/{self._find(selector)}/click", {})

    def wait(self, selector: str, text: str = "", seconds: float = 30.0) -> str:
        """Until there is such an element that holds the text."""
        deadline = time.monotonic() + seconds
        found = ""
        while time.monotonic() < deadline:
            try:
                found = self.text(selector)
                if text in found:
                    return found
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{self.address()}: no {selector} with {text!r}, but {found!r}: {self.text()[:500]!r}")

    def _find(self, selector: str) -> str:
        found = self._ask("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return str(found[_ELEMENT])

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]
