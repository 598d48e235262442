"""The few API calls that the cluster's own programs need, without loading a client library.

JSON over one HTTPS connection per call, with a client certificate. Not for anything else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any, Self

from nanoclaw_dev.cluster.certificates import Pair, key_pair
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.errors import SetupError

TIMEOUT = 30.0
# Seconds for one call, on a machine that may be busy. A server that is away refuses at once.
SILENCE = 10.0
# Seconds a watch may be silent beyond its end before its connection counts as dead.


UNANSWERED = (OSError, http.client.HTTPException, SetupError)
# What a call raises of a server that is away, or not quite there yet.


class Api:
    """The API server at an address, called as the user of a certificate."""

    def __init__(self, address: str, port: int, *, authority: Pair, user: Pair) -> None:
        self._address, self._port = address, port
        self._tls = ssl.create_default_context(cafile=str(authority.certificate))
        self._tls.load_cert_chain(user.certificate, user.key)

    @classmethod
    def administrator(cls, instance: Instance, address: str) -> Self:
        """The API of a cluster, for whoever may read the certificates in its folder."""
        pki = instance.certificates
        return cls(address, instance.api_port, authority=key_pair(pki, "authority"), user=key_pair(pki, "admin"))

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

    def exists(self, path: str) -> bool:
        """There is an object at `path`, as far as the server can tell by now."""
        with contextlib.suppress(*UNANSWERED):
            return self.get(path) is not None
        return False

    def list(self, path: str) -> dict[str, Any]:
        """The list at `path`, with its resourceVersion."""
        return self._checked(*self._call("GET", path), path)

    def apply(self, path: str, manifest: dict[str, Any]) -> None:
        """Create the object at `path`, or bring it to what the manifest says."""
        query = "?fieldManager=nanoclaw-cluster&force=true"
        kind = "application/apply-patch+yaml"
        status, body = self._call("PATCH", path + query, json.dumps(manifest), {"Content-Type": kind})
        self._checked(status, body, path)

    def create(self, path: str, manifest: dict[str, Any]) -> bool:
        """Add an object to the list at `path`. False when there is one of that name."""
        status, body = self._call("POST", path, json.dumps(manifest), {"Content-Type": "application/json"})
        if status == 409:
            return False
        self._checked(status, body, path)
        return True

    def replace(self, path: str, manifest: dict[str, Any]) -> bool:
        """Put an object in the place of the one at `path`. False when that is not the one it was made from."""
        status, body = self._call("PUT", path, json.dumps(manifest), {"Content-Type": "application/json"})
        if status == 409:
            return False
        self._checked(status, body, path)
        return True

    def delete(self, path: str) -> bool:
        """Delete the object at `path`. False when there is none."""
        status, body = self._call("DELETE", path)
        if status == 404:
            return False
        self._checked(status, body, path)
        return True

    def watch(self, path: str, version: str, *, seconds: int) -> Iterator[dict[str, Any]]:
        """Whatever happens to the objects in the list at `path` after `version`, for some seconds."""
        query = f"?watch=1&resourceVersion={version}&timeoutSeconds={seconds}"
        connection = self._connection(seconds + SILENCE)
        try:
            connection.request("GET", path + query, headers={"Accept": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                self._checked(response.status, response.read(), path)
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def _checked(self, status: int, body: bytes, path: str) -> dict[str, Any]:
        if status >= 300:
            raise SetupError(f"The API server refused {path} with {status}: {body.decode(errors='replace')[:300]}.")
        found = json.loads(body)
        assert isinstance(found, dict)
        return found

    def _call(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = self._connection(TIMEOUT)
        try:
            connection.request(method, path, body, {"Accept": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _connection(self, patience: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._address, self._port, timeout=patience, context=self._tls)
