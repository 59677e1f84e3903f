"""Certificates as a TLS client with strict verification accepts or rejects them."""

import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from poiesis_setup import certificates
from poiesis_setup.certificates import KeyPair, cross_signed, new_authority, new_certificate, pem

NOW = datetime.now(UTC)
NAMES = ("db", "db.tes.svc", "db.tes.svc.cluster.local")


def connect(folder: Path, chain: bytes, key: bytes, trusted: bytes, name: str) -> None:
    """Make a TLS connection through a socket pair. Raise ssl.SSLError if the client rejects the server."""
    (folder / "chain").write_bytes(chain)
    (folder / "key").write_bytes(key)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "chain", folder / "key")
    client_context = ssl.create_default_context(cadata=trusted.decode())
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    left, right = socket.socketpair()

    def serve() -> None:
        with left, suppress(ssl.SSLError, OSError):  # of a client that rejects the certificate
            server_context.wrap_socket(left, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with right:
            client_context.wrap_socket(right, server_hostname=name).close()
    finally:
        thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_strict_client_accepts_every_name(tmp_path, name):
    authority = new_authority("tes-ca", NOW)
    made = new_certificate(authority, NAMES, NOW)
    connect(tmp_path, pem(made.certificate), made.key_pem, pem(authority.certificate), name)


def test_client_rejects_another_name(tmp_path):
    authority = new_authority("tes-ca", NOW)
    made = new_certificate(authority, NAMES, NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(tmp_path, pem(made.certificate), made.key_pem, pem(authority.certificate), "other")


def test_client_rejects_another_authority(tmp_path):
    made = new_certificate(new_authority("tes-ca", NOW), NAMES, NOW)
    other = new_authority("tes-ca", NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        connect(tmp_path, pem(made.certificate), made.key_pem, pem(other.certificate), "db")


@pytest.mark.parametrize("trusts", ["old", "new", "both"])
def test_cross_signed_authority_serves_old_and_new_clients(tmp_path, trusts):
    old, new = new_authority("tes-ca", NOW), new_authority("tes-ca", NOW)
    made = new_certificate(new, NAMES, NOW)
    chain = pem(made.certificate, cross_signed(new, old, NOW))
    trusted = {"old": [old], "new": [new], "both": [new, old]}[trusts]
    connect(tmp_path, chain, made.key_pem, pem(*(one.certificate for one in trusted)), "db")


def test_certificate_is_due_with_a_third_of_its_life_left():
    made = new_certificate(new_authority("tes-ca", NOW), NAMES, NOW).certificate
    assert not certificates.is_due(made, NOW)
    assert not certificates.is_due(made, NOW + timedelta(days=243))
    assert certificates.is_due(made, NOW + timedelta(days=244))
    assert certificates.is_due(made, NOW + timedelta(days=400))


def test_lives_are_ten_years_and_one():
    authority = new_authority("tes-ca", NOW)
    made = new_certificate(authority, NAMES, NOW)
    assert authority.certificate.not_valid_after_utc - NOW > timedelta(days=3649)
    left = made.certificate.not_valid_after_utc - NOW
    assert timedelta(days=364) < left <= timedelta(days=365)


def test_certificate_does_not_outlive_its_authority():
    authority = new_authority("tes-ca", NOW - timedelta(days=3600))
    made = new_certificate(authority, NAMES, NOW)
    assert made.certificate.not_valid_after_utc <= authority.certificate.not_valid_after_utc


def test_key_of_another_certificate_is_rejected():
    one, other = new_authority("tes-ca", NOW), new_authority("tes-ca", NOW)
    with pytest.raises(ValueError, match="not the certificate's"):
        KeyPair.load(pem(one.certificate), other.key_pem)


def test_long_names_fit_into_the_subject():
    name = "a" * 60 + ".tes.svc"
    made = new_certificate(new_authority("t" * 43, NOW), (name,), NOW)
    assert certificates.dns_names(made.certificate) == {name}
