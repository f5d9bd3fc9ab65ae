"""The page of the OpenAPI document: Swagger UI, whose files come with the package swagger-ui-py and are sent from here.

Nothing is loaded from anywhere else, and the browser is told so. Links are relative: a proxy may add a path before.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; frame-ancestors 'none'"
)
PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>OpenEMS Backend to Backend</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
#: Without the badge for which Swagger UI would ask a validator on the internet.
START = b"""SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null,
  docExpansion: "full", defaultModelsExpandDepth: 0, tryItOutEnabled: true,
});
"""
_TYPES = {"swagger-ui.css": b"text/css", "swagger-ui-bundle.js": b"text/javascript"}


def file(name: str) -> tuple[bytes, Path] | None:
    """One of Swagger UI's files: type and where it is."""
    # Found without being imported: its code is for servers of other kinds.
    spec = find_spec("swagger_ui")
    if name not in _TYPES or spec is None or not spec.submodule_search_locations:
        return None
    return _TYPES[name], Path(spec.submodule_search_locations[0], "static", name)
