"""Which signed tokens count. Pure."""

import base64
import hmac
import json
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from poiesis_api.identity.tokens import (
    Rules,
    TokenRejected,
    check_claims,
    fitting_keys,
    is_jwt,
    parse,
    usable_keys,
    verified_claims,
)

RULES = Rules(
    issuer="https://sso.example.org",
    audiences=("https://tes.example.org", "tes"),
    algorithms=frozenset(
        {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
    ),
    leeway_seconds=30,
)


@pytest.fixture(scope="module")
def signed_once(make_keyring):
    """A keyring and a token of it, for all examples of a property."""
    keyring = make_keyring()
    return keyring, keyring.token()


def published(keyring):
    keys = usable_keys({"keys": keyring.documents()})
    assert keys is not None
    return keys


def judge(token, keyring, rules=RULES, now=None):
    """The claims of a token that counts. Raise TokenRejected."""
    signed = parse(token, rules)
    keys = fitting_keys(published(keyring), signed.header)
    return verified_claims(signed, keys, rules, keyring.now if now is None else now)


def refusal(token, keyring, **given):
    with pytest.raises(TokenRejected) as raised:
        judge(token, keyring, **given)
    return str(raised.value)


def segment(value):
    encoded = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(encoded).decode().rstrip("=")


@pytest.mark.parametrize("algorithm", sorted(RULES.algorithms))
def test_every_asymmetric_algorithm_counts(keyring, algorithm):
    keyring.rotate(algorithm)
    assert judge(keyring.token(algorithm=algorithm), keyring)["sub"] == "alice"


@pytest.mark.parametrize("algorithm", sorted(RULES.algorithms))
def test_unconfigured_algorithm_is_rejected(keyring, algorithm):
    keyring.rotate(algorithm)
    rules = Rules(
        issuer=RULES.issuer,
        audiences=RULES.audiences,
        algorithms=RULES.algorithms - {algorithm},
        leeway_seconds=0,
    )
    assert "is not allowed" in refusal(keyring.token(algorithm=algorithm), keyring, rules=rules)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "HS384", "HS512", "ES256K", "dir", "", None, 5, []]
)
def test_no_rules_let_another_algorithm_in(keyring, algorithm):
    header = segment({"alg": algorithm, "kid": "first"})
    token = f"{header}.{segment(keyring.claims())}.{segment(b'x' * 64)}"
    rules = Rules(
        issuer=RULES.issuer,
        audiences=RULES.audiences,
        algorithms=RULES.algorithms | {"none", "HS256", "HS384", "HS512", "ES256K"},
        leeway_seconds=0,
    )
    refusal(token, keyring, rules=rules)


@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_an_unsigned_token_does_not_count(keyring, signature):
    token = f"{segment({'alg': 'none'})}.{segment(keyring.claims())}.{signature}"
    refusal(token, keyring)


@pytest.mark.parametrize("form", ["pem", "der", "jwk", "n"])
def test_public_key_is_not_a_symmetric_secret(keyring, form):
    """The confusion of RS256 with HS256: RFC 8725, 2.1."""
    key = keyring.rotate("RS256")
    secrets = {
        "pem": key.as_pem(private=False),
        "der": key.as_der(private=False),
        "jwk": json.dumps(key.as_dict(private=False)).encode(),
        "n": key.as_dict(private=False)["n"].encode(),
    }
    signed = f"{segment({'alg': 'HS256', 'kid': 'first', 'typ': 'JWT'})}.{segment(keyring.claims())}"
    token = f"{signed}.{segment(hmac.digest(secrets[form], signed.encode(), 'sha256'))}"
    assert "HS256" in refusal(token, keyring)


@pytest.mark.parametrize(("made", "claimed"), [("RS256", "PS256"), ("RS256", "RS512"), ("ES256", "ES384")])
def test_key_is_limited_to_its_algorithm(keyring, made, claimed):
    key = keyring.rotate(made)
    keyring.said_of_keys = {"alg": made}
    signer = key if claimed[0] != "E" else keyring.make_key(claimed, "first")
    token = keyring.sign(signer, {"alg": claimed, "kid": "first"}, keyring.claims())
    assert "no key" in refusal(token, keyring)


@pytest.mark.parametrize(("meant", "claimed"), [("EdDSA", "Ed25519"), ("Ed25519", "EdDSA")])
def test_the_two_names_of_one_algorithm_are_one(keyring, meant, claimed):
    keyring.rotate("EdDSA")
    keyring.said_of_keys = {"alg": meant}
    assert judge(keyring.token(algorithm=claimed), keyring)["sub"] == "alice"


@pytest.mark.parametrize("parameters", [{"use": "enc"}, {"key_ops": ["encrypt"]}])
def test_a_key_for_encryption_verifies_nothing(keyring, parameters):
    keyring.said_of_keys = parameters
    assert fitting_keys(published(keyring), {"alg": "ES256", "kid": "first"}) == ()


def test_token_of_unknown_key_is_rejected(keyring):
    stranger = keyring.make_key("ES256", "first")
    token = keyring.sign(stranger, {"alg": "ES256", "kid": "first"}, keyring.claims())
    assert refusal(token, keyring) == "the signature is invalid"
    token = keyring.sign(stranger, {"alg": "ES256", "kid": "second"}, keyring.claims())
    assert refusal(token, keyring).startswith("no key")


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "' OR 1=1 --",
        "",
        "first\0",
        "FIRST",
        "first ",
        "http://evil/keys",
        "x" * 10_000,
        *(None, 1, ["first"], {"$ne": ""}, True),
    ],
)
def test_a_kid_is_compared_and_nothing_else(keyring, kid):
    token = keyring.sign(keyring.make_key("ES256", "x"), {"alg": "ES256", "kid": kid}, keyring.claims())
    refusal(token, keyring)


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_keys_named_by_token_are_ignored(keyring, name):
    stranger = keyring.make_key("ES256", "first")
    value = {
        "jwk": stranger.as_dict(private=False),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
        "x5c": ["MIIB"],
    }[name]
    header = {"alg": "ES256", "kid": "first", name: value}
    assert refusal(keyring.sign(stranger, header, keyring.claims()), keyring) == "the signature is invalid"
    assert judge(keyring.token(header={name: value}), keyring)["sub"] == "alice"


def test_token_without_kid_needs_one_fitting_key(keyring):
    keyring.keys["rsa"] = keyring.make_key("RS256", "rsa")
    token = keyring.token(header={"kid": None})
    assert judge(token, keyring)["sub"] == "alice"
    keyring.keys["other"] = keyring.make_key("ES256", "other")
    assert refusal(token, keyring).startswith("no key")


def test_keys_without_a_kid_serve_tokens_without_one(keyring):
    keyring.rotate("ES256")
    document = keyring.keys["first"].as_dict(private=False)
    del document["kid"]
    keys = usable_keys({"keys": [document]})
    signed = parse(keyring.token(header={"kid": None}), RULES)
    assert verified_claims(signed, fitting_keys(keys, signed.header), RULES, keyring.now)["sub"] == "alice"


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"b64": True}]
)
def test_an_extension_that_must_be_understood_is_not(keyring, header):
    refusal(keyring.token(header=header), keyring)


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_access_token_type_is_accepted(keyring, kind):
    assert judge(keyring.token(header={"typ": kind}), keyring)["sub"] == "alice"


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "token-introspection+jwt", "", 1])
def test_jwt_of_another_type_is_rejected(keyring, kind):
    refusal(keyring.token(header={"typ": kind}), keyring)


@pytest.mark.parametrize(
    ("claims", "counts"),
    [
        ({"exp": 0}, True),
        ({"exp": -29}, True),
        ({"exp": -30}, False),
        ({"exp": -3600}, False),
        ({"nbf": 30}, True),
        ({"nbf": 31}, False),
        ({"iat": 30}, True),
        ({"iat": 31}, False),
    ],
)
def test_clocks_may_differ_by_the_leeway(keyring, claims, counts):
    token = keyring.token(**{name: keyring.now + seconds for name, seconds in claims.items()})
    if counts:
        assert judge(token, keyring)["sub"] == "alice"
    else:
        refusal(token, keyring)


def test_client_error_gives_reason_only_for_expiry(keyring):
    def message(token):
        with pytest.raises(TokenRejected) as raised:
            judge(token, keyring)
        return raised.value.message

    assert message(keyring.token(exp=keyring.now - 60)) == "the access token has expired"
    for claims in ({"aud": "other"}, {"iss": "https://evil.example"}, {"nbf": keyring.now + 600}):
        assert message(keyring.token(**claims)) == "the access token is not valid"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": None},
        {"iss": "https://sso.example.org/"},
        {"iss": "HTTPS://sso.example.org"},
        {"iss": ["https://sso.example.org"]},
        {"aud": None},
        {"aud": []},
        {"aud": "other"},
        {"aud": ["other", "account"]},
        {"aud": "https://tes.example.org/"},
        {"aud": {"https://tes.example.org": 1}},
        {"aud": ["https://tes.example.org", 1]},
        {"exp": None},
        {"exp": "1900000000"},
        {"exp": True},
        {"exp": [1_900_000_000]},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"nbf": "0"},
        {"sub": 5},
        {"cnf": {"jkt": "x"}},
    ],
)
def test_missing_or_invalid_claim_is_rejected(keyring, claims):
    refusal(keyring.token(**claims), keyring)


@pytest.mark.parametrize("audience", ["tes", ["a", "tes"], "https://tes.example.org"])
def test_one_audience_of_several_is_enough(keyring, audience):
    assert judge(keyring.token(aud=audience), keyring)["sub"] == "alice"


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 8000, b'{"exp":' + b"9" * 5000 + b"}"]
)
def test_a_payload_that_is_no_object_is_refused(keyring, payload):
    token = keyring.sign(keyring.keys["first"], {"alg": "ES256", "kid": "first"}, payload)
    refusal(token, keyring)


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b'["alg"]', b'"alg"', b"null", b"[" * 8000, b'{"alg":' + b"[" * 8000, b"\xff"],
)
def test_a_header_that_is_no_object_is_refused(keyring, header):
    token = f"{segment(header)}.{segment(keyring.claims())}.AAAA"
    refusal(token, keyring)
    assert not is_jwt(token)


@given(st.text(st.characters(codec="ascii")))
def test_any_text_is_refused_by_a_sentence(text):
    with pytest.raises(TokenRejected):
        parse(text, RULES)
    assert not is_jwt(text)


@given(st.floats(0, 1, exclude_max=True), st.sampled_from("ABCDwxyz019-_."))
def test_no_character_of_a_token_can_be_changed(signed_once, where, character):
    keyring, token = signed_once
    place = int(where * (len(token) - 1))  # except the last: four of its bits are unused
    assume(token[place] != character)
    refusal(token[:place] + character + token[place + 1 :], keyring)


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": None}, "keys"])
def test_what_is_no_key_set_is_none(document):
    assert usable_keys(document) is None


def test_keys_that_cannot_be_used_are_left_out(keyring):
    good = keyring.keys["first"].as_dict(private=False)
    bad = [
        *(None, 5, "x", {}, {"kty": "oct", "k": "AAAA"}, {"kty": "EC"}),
        *({"kty": "EC", "crv": "P-1", "x": "A", "y": "A"}, {"kty": "OKP", "crv": "X", "x": "A"}),
        *({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "RSA", "n": 5, "e": "AQAB"}, good | {"x": "!!"}),
        *(good | {"use": "enc"}, good | {"kid": 5}, {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}),
    ]
    assert [key.kid for key in usable_keys({"keys": [*bad, good]})] == ["first"]
    assert len(usable_keys({"keys": [good] * 1000})) == 100


def test_introspected_token_may_omit_issuer_and_times(keyring):
    check_claims({"active": True, "aud": "tes"}, RULES, keyring.now, introspected=True)
    check_claims({"active": True}, RULES, keyring.now, introspected=True, audience=False)
    for claims in (
        {},
        {"aud": "other"},
        {"aud": "tes", "iss": "https://evil.example"},
        {"aud": "tes", "exp": keyring.now - 31},
        {"aud": "tes", "nbf": keyring.now + 31},
        {"aud": "tes", "cnf": {"x5t#S256": "x"}},
    ):
        with pytest.raises(TokenRejected):
            check_claims(claims, RULES, keyring.now, introspected=True)
    with pytest.raises(TokenRejected):
        check_claims({"aud": "other"}, RULES, keyring.now, introspected=True, audience=False)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_ten_thousand_tokens_are_verified_in_seconds(keyring, algorithm):
    keyring.rotate(algorithm)
    tokens = [keyring.token(algorithm=algorithm, jti=str(number)) for number in range(50)]
    keys = published(keyring)
    begun = time.process_time()
    for number in range(10_000):
        signed = parse(tokens[number % 50], RULES)
        verified_claims(signed, fitting_keys(keys, signed.header), RULES, keyring.now)
    assert time.process_time() - begun < 20
