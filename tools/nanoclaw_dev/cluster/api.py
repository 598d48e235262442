"""The few API calls that starting a cluster needs, without loading a client library.

JSON over one HTTPS connection per call, with a client certificate. Not for anything else.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from nanoclaw_dev.cluster.certificates import Pair
from nanoclaw_dev.errors import SetupError

TIMEOUT = 5.0
# Seconds for one call, on a machine that may be busy.


class Api:
    """The API server at an address, called as the user of a certificate."""

    def __init__(self, address: str, port: int, *, authority: Pair, user: Pair) -> None:
        self._address, self._port = address, port
        self._tls = ssl.create_default_context(cafile=str(authority.certificate))
        self._tls.load_cert_chain(user.certificate, user.key)

    def ready(self) -> bool:
        """The server answers, and says that it and its store are ready."""
        try:
            status, _ = self._call("GET", "/readyz")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at `path`; None when there is none."""
        status, body = self._call("GET", path)
        if status == 404:
            return None
        return self._checked(status, body, path)

    def apply(self, path: str, manifest: dict[str, Any]) -> None:
        """Create the object at `path`, or bring it to what the manifest says."""
        query = "?fieldManager=nanoclaw-cluster&force=true"
        kind = "application/apply-patch+yaml"
        status, body = self._call("PATCH", path + query, json.dumps(manifest), {"Content-Type": kind})
        self._checked(status, body, path)

    def _checked(self, status: int, body: bytes, path: str) -> dict[str, Any]:
        if status >= 300:
            raise SetupError(f"The API server refused {path} with {status}: {body.decode(errors='replace')[:300]}.")
        found = json.loads(body)
        assert isinstance(found, dict)
        return found

    def _call(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(self._address, self._port, timeout=TIMEOUT, context=self._tls)
        try:
            connection.request(method, path, body, {"Accept": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
