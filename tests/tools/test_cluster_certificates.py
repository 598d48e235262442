from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from nanoclaw_dev.cluster import certificates
from nanoclaw_dev.cluster.certificates import Authority, Request


def shaken_hands(authority, server, client):
    """A real TLS connection over loopback; returns the client's subject as the server sees it."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.files.certificate))
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.load_cert_chain(server.certificate, server.key)
    calling = ssl.create_default_context(cafile=str(authority.files.certificate))
    calling.verify_flags |= ssl.VERIFY_X509_STRICT
    calling.load_cert_chain(client.certificate, client.key)
    seen = []

    def serve(listener):
        connection, _ = listener.accept()
        with connection, serving.wrap_socket(connection, server_side=True) as secured:
            seen.append(dict(pair for part in secured.getpeercert()["subject"] for pair in part))
            secured.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with (
            socket.create_connection(listener.getsockname()) as connection,
            calling.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
        ):
            assert secured.recv(5) == b"hello"
        thread.join()
    return seen[0]


def test_server_and_client_accept_each_other_and_the_user_is_told(tmp_path):
    authority = Authority(tmp_path)
    server = authority.issue(Request("server", "server", addresses=("127.0.0.1",)))
    client = authority.issue(Request("client", "some-user", "some-group"))
    subject = shaken_hands(authority, server, client)
    assert subject == {"commonName": "some-user", "organizationName": "some-group"}


def test_a_certificate_of_another_authority_is_refused(tmp_path):
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    certificate = x509.load_pem_x509_certificate(stranger.issue(Request("one", "user")).certificate.read_bytes())
    ours = x509.load_pem_x509_certificate(authority.files.certificate.read_bytes())
    with pytest.raises(InvalidSignature):
        certificate.verify_directly_issued_by(ours)


def test_what_several_commands_need_at_the_same_time_is_made_once(tmp_path):
    start, commands = threading.Barrier(6), range(6)

    def command(_):
        start.wait()
        authority = Authority(tmp_path)
        made = authority.issue(Request("one", "user"))
        ssl.create_default_context().load_cert_chain(made.certificate, made.key)  # they fit each other
        tokens = authority.signing_key("tokens")
        return [file.read_bytes() for pair in (authority.files, made, tokens) for file in (pair.certificate, pair.key)]

    with ThreadPoolExecutor(len(commands)) as pool:
        seen = list(pool.map(command, commands))
    assert seen == seen[:1] * len(commands)


def test_what_still_serves_is_kept(tmp_path):
    request = Request("one", "user", addresses=("10.0.0.1",), hosts=("name",))
    first = Authority(tmp_path).issue(request).certificate.read_bytes()
    assert Authority(tmp_path).issue(request).certificate.read_bytes() == first


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(Request("one", "user", addresses=("10.0.0.2",)), id="address"),
        pytest.param(Request("one", "other", addresses=("10.0.0.1",)), id="user"),
        pytest.param(Request("one", "user", "group", addresses=("10.0.0.1",)), id="group"),
        pytest.param(Request("one", "user", addresses=("10.0.0.1",), hosts=("name",)), id="host"),
    ],
)
def test_what_must_say_something_else_is_made_anew(tmp_path, changed):
    authority = Authority(tmp_path)
    first = authority.issue(Request("one", "user", addresses=("10.0.0.1",))).certificate.read_bytes()
    assert authority.issue(changed).certificate.read_bytes() != first


def test_what_is_about_to_expire_is_made_anew(tmp_path, monkeypatch):
    authority, request = Authority(tmp_path), Request("one", "user")
    monkeypatch.setattr(certificates, "LIFE", certificates.RENEW - dt.timedelta(days=1))
    first = authority.issue(request).certificate.read_bytes()
    assert authority.issue(request).certificate.read_bytes() != first


def test_a_new_authority_reissues(tmp_path):
    request = Request("one", "user")
    first = Authority(tmp_path).issue(request).certificate.read_bytes()
    (tmp_path / "authority.key").unlink()
    assert Authority(tmp_path).issue(request).certificate.read_bytes() != first


def test_keys_are_readable_by_their_owner_only(tmp_path):
    authority = Authority(tmp_path / "pki")
    authority.issue(Request("one", "user"))
    authority.signing_key("tokens")
    keys = list((tmp_path / "pki").glob("*.key"))
    assert len(keys) == 3
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
