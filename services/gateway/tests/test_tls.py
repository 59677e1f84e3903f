"""The certificate is reloaded when its files change."""

import logging
import ssl
from pathlib import Path

import pytest
import trustme
from gateway_fakes import until

from poiesis_gateway import tls
from poiesis_gateway.tls import Certificate, CertificateError


class SecretVolume:
    """A directory as the kubelet makes it: names link to `..data`, which links to a directory per version."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._version = directory, 0
        self.files = directory / "tls.crt", directory / "tls.key"
        for file in self.files:
            file.symlink_to(Path("..data") / file.name)

    def write(self, certificate: bytes, key: bytes) -> None:
        self._version += 1
        version = self._directory / f"..{self._version}"
        version.mkdir()
        (version / "tls.crt").write_bytes(certificate)
        (version / "tls.key").write_bytes(key)
        aside = self._directory / "..data_tmp"
        aside.symlink_to(version.name)
        aside.rename(self._directory / "..data")

    def issue(self, authority: trustme.CA) -> None:
        issued = authority.issue_cert("localhost")
        self.write(issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())


@pytest.fixture
def volume(tmp_path: Path, authority: trustme.CA) -> SecretVolume:
    volume = SecretVolume(tmp_path)
    volume.issue(authority)
    return volume


def test_unchanged_files_keep_the_context(volume):
    certificate = Certificate(*volume.files)
    before = certificate.context
    certificate.reload()
    assert certificate.context is before


def test_new_certificate_is_used(volume, authority):
    certificate = Certificate(*volume.files)
    before = certificate.context
    volume.issue(authority)
    certificate.reload()
    assert certificate.context is not before


@pytest.mark.parametrize("broken", [("", ""), ("garbage", "garbage"), (None, "other key")])
def test_broken_certificate_keeps_the_previous_one(volume, authority, caplog, broken):
    certificate = Certificate(*volume.files)
    before = certificate.context
    other = authority.issue_cert("localhost")
    text = other.cert_chain_pems[0].bytes() if broken[0] is None else broken[0].encode()
    volume.write(text, broken[1].encode())
    for _ in range(3):
        certificate.reload()
    assert certificate.context is before
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "tls.crt" in errors[0].error
    volume.issue(authority)
    certificate.reload()
    assert certificate.context is not before


def test_missing_files_keep_the_previous_certificate(volume, caplog):
    certificate = Certificate(*volume.files)
    before = certificate.context
    (volume.files[0].parent / "..data").unlink()
    certificate.reload()
    assert certificate.context is before
    assert "cannot read" in caplog.records[-1].error


def test_encrypted_key_is_an_error_without_a_prompt(tmp_path, authority):
    from cryptography.hazmat.primitives import serialization

    issued = authority.issue_cert("localhost")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    volume = SecretVolume(tmp_path)
    volume.write(issued.cert_chain_pems[0].bytes(), encrypted)
    with pytest.raises(CertificateError, match="the key is encrypted"):
        Certificate(*volume.files)


async def test_server_presents_the_new_certificate(start, database, files, monkeypatch):
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.05)
    async with start(database) as gateway:
        assert (await gateway.post()).status == 200
        other = trustme.CA()
        issued = other.issue_cert("localhost")
        for file, content in zip(files, (issued.cert_chain_pems[0], issued.private_key_pem), strict=True):
            aside = file.with_suffix(".new")
            content.write_to_path(aside)
            aside.replace(file)
        trust = ssl.create_default_context()
        other.configure_trust(trust)
        before = gateway.certificate.context
        await until(lambda: gateway.certificate.context is not before)
        with pytest.raises(ssl.SSLCertVerificationError):
            await gateway.raw()
        gateway.trust = trust
        _, writer = await gateway.raw()
        writer.close()
        assert (await gateway.post()).status == 200, "on the connection that was open"
