"""The command line: ``openems-backend``."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable, Sequence

from openems.application import config, drivers, felix, mail_command, metadata_command, timedata_command
from openems.application.config import BadConfiguration


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BadConfiguration as e:
        print("\n".join(e.problems), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openems-backend", description="The server itself is started by: twistd -n openems-backend --config FILE"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    sub = command("check-config", _check_config, "Read a configuration as the server would; name all that is wrong.")
    sub.add_argument("file", metavar="FILE", help="a TOML file, or a Felix configuration folder")
    command("hash-password", _hash_password, "Ask for a password; print its hash for the metadata file.")
    sub = command("check-metadata", _check_metadata, "Read a metadata file; name all that is wrong or doubtful.")
    sub.add_argument("file", metavar="FILE")
    sub = command("convert-felix", _convert_felix, "Print a Felix configuration folder as TOML.")
    sub.add_argument("folder", metavar="DIR")
    command("config-docs", _config_docs, "Print the documentation of all sections and keys.")
    timedata_command.add_to(commands)
    metadata_command.add_to(commands)
    mail_command.add_to(commands)
    sub = command("demo", _demo, "Start a backend and a simulated fleet on loopback; Ctrl-C stops both.")
    sub.add_argument("--offset", type=_offset, default=0, metavar="N", help="added to every port")
    sub.add_argument(
        "--admin-password", type=_text, metavar="P", help="of the login admin; else a random one, shown once"
    )
    sub.add_argument("--state", type=_text, default="var", metavar="DIR", help="where everything is stored (./var)")
    sub.add_argument("--edges", type=_edges, metavar="N", help="number of edges (3)")
    return parser


def _offset(text: str) -> int:
    return _number(text, 0, 50_000)


def _edges(text: str) -> int:
    return _number(text, 1, 10_000)


def _number(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")
    return number


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def _check_config(options: argparse.Namespace) -> int:
    import os

    if os.path.isdir(options.file):
        configuration, notes = felix.load(options.file)
        for note in notes:
            print(note)
    else:
        configuration = config.load(options.file)
    for name, port in config.listeners(configuration).items():
        print(f"[{name}] port {configuration.port(port)}")
    absent = drivers.missing(configuration)
    if absent:
        print("\n".join(absent), file=sys.stderr)
        return 1
    print(f"{options.file}: ok")
    return 0


def _hash_password(options: argparse.Namespace) -> int:
    from openems.backend.metadata.password import hash_password

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Again: "):
            print("The two are not the same.", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        print("An empty password is refused.", file=sys.stderr)
        return 1
    print(hash_password(password))
    return 0


def _check_metadata(options: argparse.Namespace) -> int:
    from openems.backend.metadata.file.check import check_metadata

    findings = check_metadata(options.file)
    for finding in findings:
        print(finding)
    if any(finding.startswith("error") for finding in findings):
        return 1
    print(f"{options.file}: ok")
    return 0


def _convert_felix(options: argparse.Namespace) -> int:
    imported = felix.convert(felix.read_folder(options.folder))
    sys.stdout.write(imported.toml())
    imported.configuration(options.folder)
    return 0


def _config_docs(options: argparse.Namespace) -> int:
    sys.stdout.write(config.documentation())
    return 0


def _demo(options: argparse.Namespace) -> int:
    from openems.application.demo import run

    return run(
        offset=options.offset, admin_password=options.admin_password, state_dir=options.state, edges=options.edges
    )
