"""The controller's certificate towards the pods: made once, by itself, and trusted by name of nobody else.

Pods are told the certificate itself, so there is no authority to trust. It lives for ten years and is made anew a year
before its end, or when the name it is for has changed; streams of pods that know the old one then end.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nanoclaw_runtime.contract import layout

FILE: Final = f"{layout.STORE_DIR}/bridge.pem"
"""Below the tree: key and certificate, readable by us alone."""
LIFE: Final = timedelta(days=3650)
RENEW: Final = timedelta(days=365)
_SKEW: Final = timedelta(days=1)
# Clocks of nodes differ.


@dataclass(frozen=True)
class Certificate:
    """What a server shows, and what its clients trust."""

    pem: str
    """The certificate without its key."""
    server: ssl.SSLContext


def own_certificate(tree: Path, host: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Certificate:
    """The certificate for `host`, made where there is no good one. Blocks; raises OSError."""
    file = tree / FILE
    found = _good(file, host, now())
    if found is None:
        _keep(file, _made(host, now()))
        found = _good(file, host, now())
        assert found is not None, "a fresh certificate is good"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.load_cert_chain(file)
    return Certificate(found.public_bytes(serialization.Encoding.PEM).decode(), server)


def _good(file: Path, host: str, now: datetime) -> x509.Certificate | None:
    try:
        content = file.read_bytes()
        certificate = x509.load_pem_x509_certificate(content)
        key = serialization.load_pem_private_key(content, None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return None
    fits = key.public_key() == certificate.public_key() and host in names.get_values_for_type(x509.DNSName)
    lasts = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW
    return certificate if fits and lasts else None


def _made(host: str, now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nanoclaw bridge")])
    public = key.public_key()
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    ) | {"encipher_only": False, "decipher_only": False, "digital_signature": True, "key_cert_sign": True}
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _keep(file: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by anybody else."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    aside.replace(file)
