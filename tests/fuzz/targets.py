"""``python -m tests.fuzz.targets NAME [--seconds N] [--plain]``: one target, fuzzed.

With atheris (``pip install 'openems-backend[fuzz]'``) guided by what of the code an input reaches; ``--plain`` needs
nothing and only spoils the inputs of the corpus. What breaks a promise is written to the current directory
(``crash-...``) and ends the run. ``--merge FOLDER`` adds to the
corpus those inputs of a folder that reach something new.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.plain import CORPUS, Spoiler, corpus

LONGEST_INPUT = 4096


def guided(name: str, seconds: int, folder: str | None, merge: str | None, engine: list[str] | None) -> None:
    """Does not return. ``engine``: the engine's own arguments, which starts itself again to merge."""
    import atheris

    with atheris.instrument_imports(include=["openems", "json", "autobahn.websocket", "tests.fuzz.frames"]):
        from tests.fuzz import borders

    def one(text: bytes) -> None:
        borders.run(name, text)

    own = CORPUS / name
    arguments = [_itself(name), f"-max_len={LONGEST_INPUT}", "-timeout=20", "-rss_limit_mb=1500"]
    if engine:
        arguments += engine
    elif merge:
        arguments += ["-set_cover_merge=1", str(own), merge]
    else:
        # The first folder takes what is new.
        arguments += [f"-max_total_time={seconds}", folder or tempfile.mkdtemp(prefix=f"fuzz-{name}-"), str(own)]
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def _itself(name: str) -> str:
    """What the engine takes for its program."""
    script = Path(tempfile.mkdtemp(prefix="fuzz-"), "program")
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m tests.fuzz.targets {name} --engine \"$@\"\n")
    script.chmod(0o700)
    return str(script)


def plain(name: str, seconds: float, seed: int) -> int:
    """The number of inputs that were tried; raises at the first that breaks a promise."""
    from tests.fuzz import borders

    spoiler = Spoiler(seed, corpus(name))
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        text = spoiler.input()
        count += 1
        try:
            borders.run(name, text)
        except Exception:
            Path(f"crash-{name}").write_bytes(text)
            raise
    return count


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=sorted(path.name for path in CORPUS.iterdir()))
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--plain", action="store_true")
    options.add_argument("--folder", help="where new inputs go (default: a temporary folder)")
    options.add_argument("--merge", help="a folder whose inputs are added to the corpus")
    options.add_argument("--engine", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.plain:
        print(f"{plain(chosen.name, chosen.seconds, chosen.seed)} inputs, seed {chosen.seed}: no promise was broken")
    else:
        guided(chosen.name, chosen.seconds, chosen.folder, chosen.merge, chosen.engine)


if __name__ == "__main__":
    main()
