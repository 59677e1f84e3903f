"""X.509: an authority of ten years, and certificates of one year that it signs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
CERTIFICATE_LIFE = timedelta(days=365)
_SKEW = timedelta(minutes=5)  # clocks of nodes differ
_COMMON_NAME_CHARACTERS = 64  # RFC 5280, ub-common-name


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Self:
        """Read both from PEM. Raise ValueError if they are malformed or do not belong together."""
        loaded = load_pem_private_key(key, password=None)
        first = x509.load_pem_x509_certificate(certificate)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("the key must be an elliptic curve key")  # noqa: TRY004 - as malformed PEM
        if loaded.public_key() != first.public_key():
            raise ValueError("the key is not the certificate's")
        return cls(certificate=first, key=loaded)

    @property
    def key_pem(self) -> bytes:
        """Return the private key as PEM (PKCS #8)."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(*certificates: x509.Certificate) -> bytes:
    """Return the certificates as PEM, one after another."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def new_authority(name: str, now: datetime) -> KeyPair:
    """Return an authority that signs itself. Each has a subject of its own, for chains to be unambiguous."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = _subject(f"{name} {serial:040x}"[: len(name) + 9])
    builder = _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE).serial_number(serial)
    return KeyPair(certificate=_authority_fields(builder, key).sign(key, hashes.SHA256()), key=key)


def cross_signed(authority: KeyPair, by: KeyPair, now: datetime) -> x509.Certificate:
    """Return a certificate of `authority` that `by` signed.

    A server that sends it is accepted by clients that still trust only the earlier authority.
    """
    subject, issuer = authority.certificate.subject, by.certificate.subject
    life = by.certificate.not_valid_after_utc - now
    builder = _builder(subject, issuer, authority.key.public_key(), now, life)
    builder = builder.serial_number(x509.random_serial_number())
    return _authority_fields(builder, by.key).sign(by.key, hashes.SHA256())


def new_certificate(authority: KeyPair, names: Sequence[str], now: datetime) -> KeyPair:
    """Return a server's certificate for the DNS names, and a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(names[0][:_COMMON_NAME_CHARACTERS])
    left = authority.certificate.not_valid_after_utc - now
    builder = _builder(
        subject, authority.certificate.subject, key.public_key(), now, min(CERTIFICATE_LIFE, left)
    )
    certificate = (
        builder.serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_issuer_key(authority.key), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return KeyPair(certificate=certificate, key=key)


def dns_names(certificate: x509.Certificate) -> set[str]:
    """Return the DNS names that a certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return set(extension.value.get_values_for_type(x509.DNSName))


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Return whether less than a third of a certificate's life is left."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - now) * 3 < end - start


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether `authority` signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority_fields(
    builder: x509.CertificateBuilder, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_issuer_key(issuer_key), critical=False)
    )


def _issuer_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
