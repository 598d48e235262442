"""The cluster's certificate authority and what it signs.

Keys and certificates are made once and kept; a certificate is made anew when it is about to
expire or when what it must say changed. Nothing here talks to anybody.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = dt.timedelta(days=3650)
LIFE = dt.timedelta(days=365)
RENEW = dt.timedelta(days=60)
# A certificate with less than this left is replaced at the next start.


@dataclass(frozen=True)
class Pair:
    """The files of one certificate and its key, PEM."""

    certificate: Path
    key: Path


def key_pair(folder: Path, name: str) -> Pair:
    """Where the certificate `name` and its key lie below `folder`, made or not."""
    return Pair(folder / f"{name}.crt", folder / f"{name}.key")


@dataclass(frozen=True)
class Request:
    """What a certificate must say. Each serves as client and as server."""

    name: str
    """File name; says which component uses it."""
    user: str
    """Common name: the Kubernetes user."""
    group: str = ""
    """Organisation: the Kubernetes group."""
    addresses: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class Authority:
    """One certificate authority in `folder`, made when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = self.files
        with self._alone():
            if not (files.key.exists() and files.certificate.exists()):
                _make_authority(files)
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())

    @property
    def files(self) -> Pair:
        return key_pair(self._folder, "authority")

    def issue(self, request: Request) -> Pair:
        """A certificate as requested, the one made before when it still serves."""
        files = key_pair(self._folder, request.name)
        with self._alone():
            if not _serves(files, request, self._certificate):
                key = ec.generate_private_key(ec.SECP256R1())
                certificate = self._sign(request, key.public_key())
                _write_key(files.key, key)
                files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return files

    def signing_key(self, name: str) -> Pair:
        """A bare key pair, not certified, to sign tokens with; `certificate` is the public key."""
        files = key_pair(self._folder, name)
        with self._alone():
            if not (files.key.exists() and files.certificate.exists()):
                key = ec.generate_private_key(ec.SECP256R1())
                _write_key(files.key, key)
                files.certificate.write_bytes(
                    key.public_key().public_bytes(
                        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                    )
                )
        return files

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Commands that only look make what is missing, too: two at once would leave a key without its certificate."""
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sign(self, request: Request, public_key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(request.user, request.group))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names := _alternative_names(request):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _make_authority(files: Pair) -> None:
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("nanoclaw", "")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(files.key, key)
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _subject(user: str, group: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    if group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(attributes)


def _alternative_names(request: Request) -> list[x509.GeneralName]:
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in request.addresses]
    return [*addresses, *(x509.DNSName(host) for host in request.hosts)]


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _serves(files: Pair, request: Request, authority: x509.Certificate) -> bool:
    if not (files.key.exists() and files.certificate.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    if certificate.not_valid_after_utc - dt.datetime.now(dt.UTC) < RENEW:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - whatever is wrong with an old certificate, a new one is the remedy
        return False
    try:
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    return certificate.subject == _subject(request.user, request.group) and names == _alternative_names(request)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Readable by the owner from the first byte on."""
    path.unlink(missing_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
