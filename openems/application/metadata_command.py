"""``openems-backend metadata copy``: edges and users between a metadata file and Odoo, without the backend."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from openems.application import config
from openems.application.config import BadConfiguration
from openems.application.config.metadata import MetadataOdoo
from openems.application.odoo import settings_of
from openems.application.running import in_reactor
from openems.backend.metadata.file.check import BadFile, read_model
from openems.backend.metadata.file.state import State
from openems.common.atomicfile import write_atomically
from openems.common.errors import OpenemsError
from openems.http.concurrency import Concurrency
from openems.http.exchange import Exchange


def add_to(commands: Any) -> None:
    text = "Edges and users: copy them between a metadata file and Odoo."
    group = commands.add_parser("metadata", help=text, description=text)
    actions = group.add_subparsers(required=True, metavar="ACTION")
    text = (
        "Copy from SOURCE to TARGET; one is a metadata file (.json), the other a configuration (.toml) with "
        "[metadata.odoo]. What is there already stays. Passwords are not copied."
    )
    sub = actions.add_parser("copy", help=text, description=text)
    sub.add_argument("source", metavar="SOURCE")
    sub.add_argument("target", metavar="TARGET")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sub.add_argument("--state", metavar="FILE", help="the state file of the metadata file, where it has another place")
    sub.set_defaults(run=copy)


def copy(options: argparse.Namespace) -> int:
    """0: copied; 1: something is wrong, and is named."""
    to_odoo = options.target.endswith(".toml")
    if to_odoo == options.source.endswith(".toml"):
        print(
            "One of the two is a configuration (.toml) with [metadata.odoo], the other a file (.json)", file=sys.stderr
        )
        return 1
    section = config.load(options.target if to_odoo else options.source).metadata_odoo
    if section is None:
        say("The configuration has no [metadata.odoo]")
        return 1
    if not to_odoo and os.path.exists(options.target):
        say(f"{options.target} is there already")
        return 1
    work = _into_odoo if to_odoo else _out_of_odoo
    try:
        in_reactor(lambda reactor: work(reactor, section, options))
    except (OpenemsError, BadFile, BadConfiguration) as e:
        say(str(e))
        return 1
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr)


async def _into_odoo(reactor: Any, section: MetadataOdoo, options: argparse.Namespace) -> None:
    model, warnings = read_model(options.source)
    for warning in warnings:
        say(str(warning))
    path = options.state or f"{os.path.splitext(options.source)[0]}-state.json"
    state = State()
    if options.state or os.path.exists(path):
        try:
            state = msgspec.json.decode(Path(path).read_bytes(), type=State)
        except (OSError, msgspec.DecodeError) as e:
            raise BadFile(path, [str(e)]) from None
    rpc, transfer = _copy(reactor, section, options.dry_run)
    try:
        await transfer.to_odoo(model, state)
    finally:
        await rpc.close()
    print(transfer.summary())


async def _out_of_odoo(reactor: Any, section: MetadataOdoo, options: argparse.Namespace) -> None:
    rpc, transfer = _copy(reactor, section, options.dry_run)
    try:
        document = await transfer.from_odoo()
    finally:
        await rpc.close()
    if not options.dry_run:
        # It holds API keys: for its owner only.
        write_atomically(options.target, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        say(f"{options.target}: users need passwords there (openems-backend hash-password)")
    print(transfer.summary())


def _copy(reactor: Any, section: MetadataOdoo, dry: bool) -> tuple[Any, Any]:
    from openems.backend.metadata.odoo.copy import Copy
    from openems.backend.metadata.odoo.partners import Models
    from openems.backend.metadata.odoo.rpc import OdooRpc

    settings = settings_of(section)
    exchange = Exchange(
        reactor=reactor,
        concurrency=Concurrency(4, 100),
        allow_plain_http=True,
        persistent=False,
    )
    rpc = OdooRpc(
        exchange,
        url=settings.url,
        database=settings.database,
        login=settings.login,
        password=settings.password,
        uid=settings.uid,
        reactor=reactor,
    )
    return rpc, Copy(Models(rpc), say=say, dry=dry)
