"""What must be written, by the stored Secret and the time."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from poiesis_setup import decide
from poiesis_setup.certificates import issued_by
from poiesis_setup.decide import Stored, UnusableSecret
from poiesis_setup.document import Certificate, Passwords, Required

NOW = datetime(2026, 11, 29, tzinfo=UTC)
LATER = NOW + timedelta(days=300)
WANTED = Certificate(secret="tes-gateway-tls", names=("tes-gateway", "tes-gateway.tes.svc"))
URLS = Passwords(
    secret="tes-postgres",
    urls={
        "migrations-dsn": "postgresql://poiesis@tes-postgres:5432/poiesis?sslmode=verify-full",
        "api-dsn": "postgresql://poiesis_api@tes-postgres:5432/poiesis?sslmode=verify-full",
    },
)


def new_authority(stored=None, now=NOW, rotation=""):
    change = decide.authority("tes-ca", stored, now, rotation)
    assert change is not None
    return change.data


def new_certificate(authority, stored=None, now=NOW, rotation="", wanted=WANTED):
    change = decide.certificate(wanted, stored, authority, now, rotation)
    assert change is not None
    return change.data


def numbered():
    numbers = iter(range(100))
    return lambda: f"new{next(numbers)}"


def leaf(data):
    return x509.load_pem_x509_certificate(data["tls.crt"])


def bundle(data):
    return x509.load_pem_x509_certificates(data["ca.crt"])


def test_missing_authority_is_created_without_a_cross_certificate():
    assert sorted(new_authority()) == ["ca.crt", "ca.key"]


def test_authority_is_kept_for_two_thirds_of_its_life():
    stored = Stored(data=new_authority())
    assert decide.authority("tes-ca", stored, NOW + timedelta(days=2400), "") is None


def test_old_authority_signs_its_successor():
    before = new_authority()
    after = new_authority(Stored(data=before), NOW + timedelta(days=2500))
    (old,), (new,) = bundle(before), bundle(after)
    cross = x509.load_pem_x509_certificate(after["cross.crt"])
    assert issued_by(cross, old)
    assert cross.subject == new.subject
    assert cross.public_key() == new.public_key()


def test_expired_authority_does_not_sign_its_successor():
    stored = Stored(data=new_authority())
    assert "cross.crt" not in new_authority(stored, NOW + timedelta(days=4000))


def test_operators_authority_is_used_and_never_replaced():
    stored = Stored(data=new_authority(), ours=False)
    assert decide.authority("tes-ca", stored, NOW + timedelta(days=4000), "1") is None


def test_authority_without_a_key_is_an_error_that_names_it():
    stored = Stored(data={"ca.crt": new_authority()["ca.crt"]})
    with pytest.raises(UnusableSecret, match=r"Secret tes-ca must have the key ca\.key \(present: ca\.crt\)"):
        decide.authority("tes-ca", stored, NOW, "")


def test_malformed_authority_is_an_error_without_its_value():
    stored = Stored(data={"ca.crt": b"secret?", "ca.key": b"secret!"})
    with pytest.raises(UnusableSecret, match=r"ca\.crt and ca\.key") as error:
        decide.authority("tes-ca", stored, NOW, "")
    assert "secret!" not in str(error.value)


def test_certificate_is_signed_by_the_authority():
    authority = new_authority()
    made = new_certificate(authority)
    (signer,) = bundle(authority)
    assert issued_by(leaf(made), signer)
    assert bundle(made) == [signer]


def test_certificate_is_kept_while_it_is_valid_for_long():
    authority = new_authority()
    stored = Stored(data=new_certificate(authority))
    assert decide.certificate(WANTED, stored, authority, NOW + timedelta(days=240), "") is None


@pytest.mark.parametrize(
    ("wanted", "now", "reason"),
    [
        (WANTED, LATER, "expires 2027-11-29"),
        (Certificate(secret="tes-gateway-tls", names=("other",)), NOW, "is not for other"),
    ],
)
def test_certificate_is_renewed_with_a_reason(wanted, now, reason):
    authority = new_authority()
    stored = Stored(data=new_certificate(authority))
    change = decide.certificate(wanted, stored, authority, now, "")
    assert change is not None
    assert change.reason == reason


def test_incomplete_certificate_is_renewed():
    change = decide.certificate(WANTED, Stored(data={"tls.crt": b"x"}), new_authority(), NOW, "")
    assert change is not None
    assert change.reason == "has no ca.crt, tls.key"


def test_certificate_of_an_earlier_chart_is_kept_then_replaced():
    throwaway, authority = new_authority(), new_authority()
    stored = Stored(data=new_certificate(throwaway))
    assert decide.certificate(WANTED, stored, authority, NOW, "") is None
    renewed = new_certificate(authority, stored, LATER)
    assert bundle(renewed) == [*bundle(authority), *bundle(throwaway)]


def test_operators_certificate_is_never_changed():
    authority = new_authority()
    stored = Stored(data=new_certificate(authority), ours=False)
    assert decide.certificate(WANTED, stored, authority, LATER, "1") is None


def test_operators_certificate_must_be_complete():
    with pytest.raises(UnusableSecret, match=r"must have the key tls\.key"):
        decide.certificate(WANTED, Stored(data={"tls.crt": b"x"}, ours=False), new_authority(), NOW, "")


def test_rotation_replaces_authority_and_certificate_and_keeps_old_clients():
    before = new_authority()
    served_before = new_certificate(before)
    after = new_authority(Stored(data=before), NOW, "1")
    served = new_certificate(after, Stored(data=served_before), NOW, "1")
    assert x509.load_pem_x509_certificates(served["tls.crt"])[1:] == [
        x509.load_pem_x509_certificate(after["cross.crt"])
    ]
    assert bundle(served) == [*bundle(after), *bundle(before)]


def test_second_rotation_drops_the_first_authority():
    first = new_authority()
    served = new_certificate(first)
    second = new_authority(Stored(data=first), NOW, "1")
    served = new_certificate(second, Stored(data=served), NOW, "1")
    third = new_authority(Stored(data=second, rotation="1"), NOW, "2")
    served = new_certificate(third, Stored(data=served, rotation="1"), NOW, "2")
    assert bundle(served) == [*bundle(third), *bundle(second)]


def test_rotation_happens_once():
    stored = Stored(data=new_authority(), rotation="1")
    assert decide.authority("tes-ca", stored, NOW, "1") is None
    assert decide.authority("tes-ca", stored, NOW, "") is None


def test_missing_urls_get_passwords():
    change = decide.passwords(URLS, None, "", numbered())
    assert change is not None
    assert change.data == {
        "migrations-dsn": b"postgresql://poiesis:new0@tes-postgres:5432/poiesis?sslmode=verify-full",
        "api-dsn": b"postgresql://poiesis_api:new1@tes-postgres:5432/poiesis?sslmode=verify-full",
    }


def test_changed_address_keeps_the_password():
    data = decide.passwords(URLS, None, "", lambda: "a/b").data
    moved = {key: url.replace(b"tes-postgres:", b"old:") for key, url in data.items()}
    change = decide.passwords(URLS, Stored(data=moved), "", numbered())
    assert change is not None
    assert change.reason == "changed migrations-dsn, api-dsn"
    assert change.data == data


def test_passwords_of_an_earlier_chart_are_kept():
    stored = Stored(
        data={
            "password": b"one",
            "migrations-dsn": b"postgresql://poiesis:one@tes-postgres:5432/poiesis?sslmode=disable",
            "api-dsn": b"postgresql://poiesis_api:two@tes-postgres:5432/poiesis?sslmode=verify-full",
        }
    )
    change = decide.passwords(URLS, stored, "", numbered())
    assert change is not None
    assert change.reason == "changed migrations-dsn"
    assert change.data == {
        **stored.data,
        "migrations-dsn": b"postgresql://poiesis:one@tes-postgres:5432/poiesis?sslmode=verify-full",
    }


def test_password_that_an_operator_changed_is_kept():
    made = decide.passwords(URLS, None, "", numbered())
    assert made is not None
    data = {**made.data, "api-dsn": made.data["api-dsn"].replace(b"new1", b"mine")}
    assert decide.passwords(URLS, Stored(data=data), "", numbered()) is None


def test_missing_key_is_added_alone():
    made = decide.passwords(URLS, None, "", numbered())
    assert made is not None
    without = {key: value for key, value in made.data.items() if key != "api-dsn"}
    change = decide.passwords(URLS, Stored(data=without), "", numbered())
    assert change is not None
    assert change.data["migrations-dsn"] == made.data["migrations-dsn"]
    assert b"new0" in change.data["api-dsn"]


def test_rotation_replaces_every_password_once():
    stored = Stored(data={"password": b"one", **_urls("old")})
    change = decide.passwords(URLS, stored, "1", numbered())
    assert change is not None
    assert sorted(change.data) == ["api-dsn", "migrations-dsn"]
    assert all(b"old" not in value for value in change.data.values())
    assert decide.passwords(URLS, Stored(data=change.data, rotation="1"), "1", numbered()) is None


def test_operators_passwords_are_not_rotated():
    assert decide.passwords(URLS, Stored(data=_urls("old"), ours=False), "1", numbered()) is None


@given(st.binary(max_size=30))
def test_url_without_password_is_an_error_that_does_not_repeat_it(noise):
    stored = Stored(data={**_urls("old"), "api-dsn": b"postgresql://poiesis_api@x/" + noise})
    with pytest.raises(UnusableSecret) as error:
        decide.passwords(URLS, stored, "", numbered())
    assert str(error.value) == (
        "Secret tes-postgres: api-dsn must be a URL: postgresql://user:password@host:5432/database"
    )


def test_missing_secret_of_the_operator_is_named_with_its_value():
    wanted = Required(secret="my-tls", keys=("tls.crt", "tls.key"), value="gateway.tlsSecret")
    with pytest.raises(UnusableSecret, match=r"^gateway\.tlsSecret: no such Secret: my-tls$"):
        decide.required(wanted, None)
    with pytest.raises(
        UnusableSecret, match=r"^gateway\.tlsSecret: Secret my-tls must have the key tls\.key"
    ):
        decide.required(wanted, Stored(data={"tls.crt": b"x"}, ours=False))
    decide.required(wanted, Stored(data={"tls.crt": b"x", "tls.key": b"y"}, ours=False))


def _urls(password):
    return {key: url.replace("@", f":{password}@").encode() for key, url in URLS.urls.items()}
