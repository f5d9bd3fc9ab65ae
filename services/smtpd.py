"""A mail server (aiosmtpd) in a process of its own that behaves as told and keeps what it takes.

``running.port`` takes mails from anybody without TLS. ``info``: ``starttls`` and ``tls``, ports that ask for TLS and
the login ``user``, ``password``; ``silent``, a port that accepts and says nothing; ``ca``, path of the certificate to
trust.
"""

from __future__ import annotations

import json
import sys
from email import message_from_string
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, cast

from services.framework import Running, Service, answers, free_port, run

SERVER = Path(__file__).with_name("_smtpserver.py")


class Mail:
    """One that was taken: the envelope and the message."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.sender: str = record["from"]
        self.to: list[str] = record["to"]
        self.tls: bool = record["tls"]
        self.login: bool = record["login"]
        self.helo: str = record["helo"]
        self.message = cast("EmailMessage", message_from_string(record["mail"], policy=cast(Any, default)))

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        body = self.message.get_body(("plain",))
        return "" if body is None else str(body.get_content())

    @property
    def html(self) -> str:
        body = self.message.get_body(("html",))
        return "" if body is None else str(body.get_content())


def mails(running: Running) -> list[Mail]:
    """In the order they were taken."""
    folder = running.directory / "mails"
    return [Mail(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def attempts(running: Running) -> list[str]:
    """``RCPT address`` and ``DATA mode addresses``, as they came."""
    path = running.directory / "attempts"
    return path.read_text().splitlines() if path.exists() else []


def behave(running: Running, mode: str) -> None:
    """From now on: see ``Handler`` in ``_smtpserver.py``; ``ok`` at the start."""
    temporary = running.directory / "mode.new"
    temporary.write_text(mode)
    temporary.rename(running.directory / "mode")


def forget(running: Running) -> None:
    """What was taken and tried until now; and ``ok`` again."""
    for path in (running.directory / "mails").iterdir():
        path.unlink()
    (running.directory / "attempts").unlink(missing_ok=True)
    behave(running, "ok")


class Smtpd(Service):
    name = "smtpd"
    about = "mail server for tests, aiosmtpd from PyPI"

    def build(self) -> None:
        venv = self.folder() / "venv"
        run([sys.executable, "-m", "venv", venv])
        run([venv / "bin" / "python", "-m", "pip", "install", "-q", "aiosmtpd>=1.4.6", "cryptography>=42"])

    def start(self, directory: Path) -> Running:
        return self.start_at(directory, [free_port() for _ in range(4)])

    def start_at(self, directory: Path, ports: list[int]) -> Running:
        """With ports of one's choice: a server that comes back."""
        (directory / "mails").mkdir(exist_ok=True)
        (directory / "ready").unlink(missing_ok=True)
        running = Running(
            self.name,
            directory,
            port=ports[0],
            info={
                "ports": ports,
                "starttls": ports[1],
                "tls": ports[2],
                "silent": ports[3],
                "user": "mailer",
                "password": "s3cret word",
                "ca": str(directory / "ca.pem"),
            },
        )
        behave(running, "ok")
        running.spawn([self.folder() / "venv" / "bin" / "python", SERVER, directory, *map(str, ports)])
        running.wait_until(lambda: (directory / "ready").exists() and answers(ports[0]))
        return running


SERVICE = Smtpd()
