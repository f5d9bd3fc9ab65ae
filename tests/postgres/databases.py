"""Databases of one's own on the real servers."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import psycopg2

from services.framework import Running

_count = itertools.count()


def run_sql(running: Running, *statements: str, database: str = "postgres") -> list[Any]:
    """As superuser, each statement by itself; the rows of the last one. Blocks."""
    connection = psycopg2.connect(
        host="127.0.0.1", port=running.port, user=running.info["user"], password="secret", dbname=database
    )
    try:
        connection.autocommit = True
        rows: list[Any] = []
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.description is not None else []
        return rows
    finally:
        connection.close()


def database(test: Any, running: Running, prefix: str = "test") -> str:
    """The name of a new database, dropped with whatever is connected after the test."""
    name = f"{prefix}_{os.getpid()}_{next(_count)}"
    run_sql(running, f"CREATE DATABASE {name}")
    test.addCleanup(lambda: run_sql(running, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    return name


def role(test: Any, running: Running, name: str, password: str = "role-secret") -> str:
    """A new role that may log in, and nothing else."""
    name = f"{name}_{os.getpid()}_{next(_count)}"
    run_sql(running, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    test.addCleanup(lambda: run_sql(running, f"DROP ROLE IF EXISTS {name}"))
    return name


def again(running: Running, seconds: float = 30.0) -> None:
    """Starts the server that was stopped or killed once more, with its data. Blocks."""
    process = running._processes.pop()
    command = [str(part) for part in process.args]  # type: ignore[union-attr]
    process.wait(20)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not running._processes or running._processes[-1].poll() is not None:
            # What a killed server leaves behind ends a little later, and until then no other may start.
            running._processes.clear()
            running.spawn(command)
        if _answers(running):
            return
        time.sleep(0.05)
    raise AssertionError(f"{running.name} does not start again")


def _answers(running: Running) -> bool:
    try:
        run_sql(running, "SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


__all__ = ["again", "database", "role", "run_sql"]
