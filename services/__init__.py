"""The services tests and benchmarks may need; ``python -m services`` installs them."""

from __future__ import annotations

import importlib
import pkgutil

from services.framework import Service


def known() -> dict[str, Service]:
    """By name: every module of this package that has a ``SERVICE`` (or several, ``SERVICES``)."""
    found: dict[str, Service] = {}
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name.startswith("_") or module_info.name == "framework":
            continue
        module = importlib.import_module(f"services.{module_info.name}")
        for service in (*getattr(module, "SERVICES", ()), *([module.SERVICE] if hasattr(module, "SERVICE") else [])):
            found[service.name] = service
    return dict(sorted(found.items()))
