"""``python -m services``: the list. ``python -m services all`` or names: installs them; exit 1 if one could not be."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from services import known
from services.framework import Service, ServiceError, cache, progress


def main(names: list[str]) -> int:
    services = known()
    if not names:
        print(f"Cache: {cache()}")
        for name, service in services.items():
            print(f"{name:18} {'installed' if service.installed() else 'absent':10} {service.about}")
        return 0
    unknown = [name for name in names if name != "all" and name not in services]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known are {', '.join(services)}", file=sys.stderr)
        return 2
    wanted = [service for name, service in services.items() if "all" in names or name in names]
    # Two at a time: one compiles while another downloads.
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(install, [service for service in wanted if not service.installed()]))
    return 0 if all(done) else 1


def install(service: Service) -> bool:
    progress(f"{service.name}: installing ({service.about})")
    started = time.monotonic()
    try:
        service.install()
    except ServiceError as error:
        progress(f"{service.name}: NOT installed: {error}")
        return False
    progress(f"{service.name}: installed in {time.monotonic() - started:.0f} s")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
