"""Decide what must be written to a Secret. No I/O: the stored Secret, the time and the document go in."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, unquote, urlsplit

from cryptography import x509

from poiesis_setup import certificates
from poiesis_setup.certificates import KeyPair
from poiesis_setup.document import Certificate, Passwords, Required

CA_CERTIFICATE, CA_KEY, CA_CROSS = "ca.crt", "ca.key", "cross.crt"
TLS_CERTIFICATE, TLS_KEY = "tls.crt", "tls.key"

Data = Mapping[str, bytes]


class UnusableSecret(Exception):
    """A Secret lacks a key or has a malformed one; the message names both and never repeats the value."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A Secret in Kubernetes. `ours`: this program or an earlier chart created it."""

    data: Data = field(repr=False)
    rotation: str = ""
    ours: bool = True


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the whole Secret must contain, and why, for the log."""

    data: Data = field(repr=False)
    reason: str
    rotated: bool = False  # whether everything in it is new


def authority(secret: str, stored: Stored | None, now: datetime, rotation: str) -> Change | None:
    """Decide about the certificate authority. A predecessor signs the new one, too."""
    if stored is None:
        return _authority_data(certificates.new_authority(secret, now), None, now, "created")
    found = load_authority(secret, stored.data)
    if not stored.ours:
        return None
    if _rotates(stored, rotation):
        reason = f"rotation {rotation}"
    elif certificates.is_due(found.certificate, now):
        reason = f"expires {found.certificate.not_valid_after_utc:%Y-%m-%d}"
    else:
        return None
    return _authority_data(certificates.new_authority(secret, now), found, now, reason)


def _authority_data(new: KeyPair, old: KeyPair | None, now: datetime, reason: str) -> Change:
    data = {CA_CERTIFICATE: certificates.pem(new.certificate), CA_KEY: new.key_pem}
    if old is not None and old.certificate.not_valid_after_utc > now:
        data[CA_CROSS] = certificates.pem(certificates.cross_signed(new, old, now))
    return Change(data=data, reason=reason, rotated=True)


def load_authority(secret: str, data: Data) -> KeyPair:
    """Return the authority of a Secret's data. Raise UnusableSecret."""
    check_keys(secret, data, (CA_CERTIFICATE, CA_KEY))
    try:
        return KeyPair.load(data[CA_CERTIFICATE], data[CA_KEY])
    except ValueError as error:
        raise UnusableSecret(f"Secret {secret}: {CA_CERTIFICATE} and {CA_KEY}: {error}") from error


def certificate(
    wanted: Certificate, stored: Stored | None, authority_data: Data, now: datetime, rotation: str
) -> Change | None:
    """Decide about a server's certificate.

    One that another authority signed is kept while it is valid for long enough, because its clients trust
    it. The authority that signed the former certificate stays among the trusted ones until the next
    renewal: the server and its clients do not read the new files in the same second.
    """
    if stored is None:
        return _certificate_data(wanted, authority_data, (), now, "created")
    if not stored.ours:
        check_keys(wanted.secret, stored.data, (TLS_CERTIFICATE, TLS_KEY, CA_CERTIFICATE))
        return None
    trusted, reason = _renewal(wanted, stored, now)
    if _rotates(stored, rotation):
        reason = f"rotation {rotation}"
    if reason is None:
        return None
    return _certificate_data(wanted, authority_data, trusted, now, reason)


def _renewal(
    wanted: Certificate, stored: Stored, now: datetime
) -> tuple[tuple[x509.Certificate, ...], str | None]:
    """Return the authority that clients trust now, and why the certificate must be renewed."""
    if missing_keys := {TLS_CERTIFICATE, TLS_KEY, CA_CERTIFICATE} - stored.data.keys():
        return (), f"has no {', '.join(sorted(missing_keys))}"
    try:
        found = x509.load_pem_x509_certificate(stored.data[TLS_CERTIFICATE])
        bundle = x509.load_pem_x509_certificates(stored.data[CA_CERTIFICATE])
    except ValueError:
        return (), "is not a certificate"
    trusted = tuple(one for one in bundle[:1] if one.not_valid_after_utc > now)
    if missing := set(wanted.names) - certificates.dns_names(found):
        return trusted, f"is not for {', '.join(sorted(missing))}"
    if certificates.is_due(found, now):
        return trusted, f"expires {found.not_valid_after_utc:%Y-%m-%d}"
    return trusted, None


def _certificate_data(
    wanted: Certificate,
    authority_data: Data,
    trusted: Iterable[x509.Certificate],
    now: datetime,
    reason: str,
) -> Change:
    signer = load_authority("of the authority", authority_data)
    made = certificates.new_certificate(signer, wanted.names, now)
    before = [one for one in trusted if one != signer.certificate]
    data = {
        TLS_CERTIFICATE: certificates.pem(made.certificate) + _cross(authority_data, now),
        TLS_KEY: made.key_pem,
        CA_CERTIFICATE: certificates.pem(signer.certificate, *before),
    }
    return Change(data=data, reason=reason, rotated=True)


def _cross(authority_data: Data, now: datetime) -> bytes:
    text = authority_data.get(CA_CROSS, b"")
    return text if text and x509.load_pem_x509_certificate(text).not_valid_after_utc > now else b""


def passwords(
    wanted: Passwords, stored: Stored | None, rotation: str, new_password: Callable[[], str]
) -> Change | None:
    """Decide about connection URLs. A URL in a Secret keeps its password, but not its address."""
    if stored is not None and not stored.ours:
        check_keys(wanted.secret, stored.data, wanted.urls)
        return None
    rotates = stored is not None and _rotates(stored, rotation)
    before: Data = {} if stored is None or rotates else stored.data
    after = {
        key: _with_password(
            url, _password(wanted.secret, key, before[key]) if key in before else new_password()
        )
        for key, url in wanted.urls.items()
    }
    if after == {key: before.get(key) for key in wanted.urls}:
        return None
    if stored is None:
        reason = "created"
    elif rotates:
        reason = f"rotation {rotation}"
    else:
        reason = f"changed {', '.join(key for key in after if after[key] != before.get(key))}"
    others = {} if rotates else before  # a rotation removes what an earlier chart kept there
    return Change(data={**others, **after}, reason=reason, rotated=stored is None or rotates)


def _password(secret: str, key: str, url: bytes) -> str:
    """Return the password of a stored URL. Its address may be that of an earlier chart."""
    try:
        password = urlsplit(url.decode().strip()).password
    except ValueError:
        password = None
    if not password:
        raise UnusableSecret(
            f"Secret {secret}: {key} must be a URL: postgresql://user:password@host:5432/database"
        )
    return unquote(password)


def _with_password(url: str, password: str) -> bytes:
    scheme, rest = url.split("://", 1)
    user, address = rest.split("@", 1)
    return f"{scheme}://{user}:{quote(password, safe='')}@{address}".encode()


def check_keys(secret: str, data: Data, keys: Iterable[str]) -> None:
    """Raise UnusableSecret if one of the keys is missing or empty."""
    if missing := [key for key in keys if not data.get(key)]:
        raise UnusableSecret(f"Secret {secret} must have the key {missing[0]} (present: {_listed(data)})")


def required(wanted: Required, stored: Stored | None) -> None:
    """Raise UnusableSecret if a Secret of the operator does not exist or lacks a key."""
    if stored is None:
        raise UnusableSecret(f"{wanted.value}: no such Secret: {wanted.secret}")
    try:
        check_keys(wanted.secret, stored.data, wanted.keys)
    except UnusableSecret as error:
        raise UnusableSecret(f"{wanted.value}: {error}") from None


def _rotates(stored: Stored, rotation: str) -> bool:
    return bool(rotation) and stored.rotation != rotation


def _listed(data: Data) -> str:
    return ", ".join(sorted(data)) or "none"
