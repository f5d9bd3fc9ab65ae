"""``openems-backend timedata copy`` and ``timedata check``: histories of a configuration, without the backend."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from openems.application import config
from openems.application.config import BadConfiguration
from openems.application.histories import Opened, Unusable, opened
from openems.application.progress import Bar
from openems.application.running import in_reactor
from openems.backend.timedata.export import Finding, sharing_a_number
from openems.backend.timedata.transfer import State, Transfer, load_state
from openems.common.resolution import milliseconds


async def copy(
    source: Opened, target: Opened, path: Path, options: argparse.Namespace, *, out: TextIO, going: Callable[[], bool]
) -> int:
    """The exit status: 0 if everything was copied and found again."""
    if source.export is None:
        print(f"{options.source} cannot be read out", file=sys.stderr)
        return 1
    if not source.complete():
        await source.start()
    try:
        # What its last run had no time to write belongs to it.
        await source.flush()
        export: Any = source.export
        if options.java_tables:
            from openems.backend.timedata.timescaledb.javatables import JavaTables

            export = JavaTables(source.provider.pool)
            if not await export.exist():
                print("there are no tables of OpenEMS' own TimescaleDB module", file=sys.stderr)
                return 1
        if target.provider is not source.provider:
            await target.start()
        try:
            return await _copy(export, target, path, options, out, going)
        finally:
            if target.provider is not source.provider:
                await target.provider.stop()
    finally:
        await source.provider.stop()


async def _copy(
    export: Any, target: Opened, path: Path, options: argparse.Namespace, out: TextIO, going: Callable[[], bool]
) -> int:
    edges = await export.export_edges()
    if options.edges:
        unknown = sorted(set(options.edges) - set(edges))
        if unknown:
            print(f"no history of {', '.join(unknown)}", file=sys.stderr)
            return 1
        edges = [edge for edge in edges if edge in set(options.edges)]
    since = options.since
    kind = f"{options.source} (java tables)" if options.java_tables else options.source
    state = State(kind, options.target, since) if options.again else load_state(path, kind, options.target, since)

    def save(state: State) -> None:
        part = path.with_name(path.name + ".part")
        part.write_bytes(msgspec.json.encode(state))
        os.replace(part, path)

    path.parent.mkdir(parents=True, exist_ok=True)
    bar = Bar(out, len(edges))
    transfer = Transfer(
        export, target.provider, target.export, state, save=save, flush=target.flush, progress=bar, going=going
    )
    await transfer.run(edges)
    bar.end()
    return _report(state, edges, target.export is not None, going(), out)


def _report(state: State, edges: Sequence[str], compared: bool, whole: bool, out: TextIO) -> int:
    wrong = 0
    for edge in edges:
        done = state.edges.get(edge)
        if done is None:
            continue
        if not compared:
            verdict = "not compared: the target cannot be read out"
        elif done.verified:
            verdict = "found again"
            if done.coarse:
                verdict += f", but {done.coarse:,} older than what is kept as it came"
        else:
            verdict = f"ONLY {done.found:,} FOUND AGAIN (refused values, names or times; see the log)"
            wrong += 1
        if not done.finished:
            verdict += "; unfinished"
        print(f"{edge}: {done.samples:,} values, checksum {done.checksum:012x}, {verdict}", file=out)
    if not whole:
        print("stopped; the same command goes on from here", file=out)
    return 0 if whole and not wrong else 1


async def check(opened_: Opened, name: str, *, out: TextIO) -> int:
    """1 if something does not work."""
    findings: list[Finding] = list(await opened_.check())
    if opened_.export is not None and not any(finding.level == "error" for finding in findings):
        try:
            findings += [
                Finding(
                    "warning",
                    f"edges {', '.join(names)} share the number {number}",
                    "fine here; in InfluxDB, which keeps numbers only, they would be one",
                )
                for number, names in sharing_a_number(await opened_.export.export_edges()).items()
            ]
        except Exception as error:
            findings.append(Finding("warning", f"edges could not be listed: {type(error).__name__}"))
    for finding in findings:
        print(f"{finding.level:8}{finding.text}" + (f"  -> {finding.hint}" if finding.hint else ""), file=out)
    if any(finding.level == "error" for finding in findings):
        print(f"{name}: does not work", file=out)
        return 1
    print(f"{name}: ok", file=out)
    return 0


def add_to(commands: Any) -> None:
    """``timedata`` with its own commands."""
    group = commands.add_parser("timedata", help="Copy and check histories.", description="Copy and check histories.")
    inner = group.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = inner.add_parser(name, help=text, description=text)
        sub.add_argument("--config", required=True, metavar="FILE", help="the backend's TOML file")
        sub.set_defaults(run=run)
        return sub

    sub = command("copy", run_copy, "Copy history from one provider to another; goes on where it was stopped.")
    sub.add_argument("--from", dest="source", required=True, metavar="NAME", help="id of a provider")
    sub.add_argument("--to", dest="target", required=True, metavar="NAME", help="id of a provider")
    sub.add_argument("--edges", nargs="+", metavar="EDGE", help="only these")
    sub.add_argument("--since", type=_instant, metavar="DATE", help="only from then on: 2026-01-31, UTC, or with time")
    sub.add_argument("--again", action="store_true", help="forget what was copied before")
    sub.add_argument(
        "--java-tables", action="store_true", help="read the tables of OpenEMS' own TimescaleDB module in that database"
    )
    sub = command("check", run_check, "Say what is to be known about a history before it is trusted.")
    sub.add_argument("name", metavar="NAME", help="id of a provider")


def _instant(text: str) -> int:
    try:
        date = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("a date such as 2026-01-31") from None
    return milliseconds(date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC))


def run_copy(options: argparse.Namespace) -> int:
    configuration = config.load(options.config)
    if options.source == options.target and not options.java_tables:
        print("--from and --to are the same", file=sys.stderr)
        return 2
    stopped: list[bool] = []

    async def work(reactor: Any) -> int:
        source = opened(configuration, options.source, reactor)
        target = source if options.source == options.target else opened(configuration, options.target, reactor)
        path = Path(configuration.backend.state_dir) / f"copy-{options.source}-{options.target}.json"
        return await copy(source, target, path, options, out=sys.stdout, going=lambda: not stopped)

    return _run(work, lambda: stopped.append(True))


def run_check(options: argparse.Namespace) -> int:
    configuration = config.load(options.config)

    async def work(reactor: Any) -> int:
        found = opened(configuration, options.name, reactor)
        try:
            return await check(found, options.name, out=sys.stdout)
        finally:
            pool = getattr(found.provider, "pool", None)
            if pool is not None:
                await pool.stop(0.2)

    return _run(work)


def _run(work: Callable[[Any], Awaitable[int]], interrupted: Callable[[], None] | None = None) -> int:
    try:
        return in_reactor(work, interrupted)
    except BadConfiguration:
        raise
    except Unusable as error:
        print(error, file=sys.stderr)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1
