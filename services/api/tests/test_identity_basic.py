"""User names and passwords."""

import asyncio
import base64
import logging
import threading
import time

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poiesis_api.config import Administrators, Auth, Basic, ConfigError, IdentityFiles, UsersSecret
from poiesis_api.errors import LimitReached, NotAuthenticated
from poiesis_api.identity import authenticators
from poiesis_api.identity.authenticators import open_authenticator
from poiesis_api.identity.caller import Caller
from poiesis_api.identity.credentials import password
from poiesis_api.identity.htpasswd import BadUsers, parse_users

CHALLENGE = {"WWW-Authenticate": 'Basic realm="poiesis", charset="UTF-8"'}


def hashed(secret, prefix=b"2b"):
    return (
        bcrypt.hashpw(secret.encode(), bcrypt.gensalt(rounds=4))
        .replace(b"$2b$", b"$" + prefix + b"$")
        .decode()
    )


def header(user, secret):
    return [f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"]


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "htpasswd"
    path.write_text(
        f"# ours\n\nalice:{hashed('opensesame')}\nböb:{hashed('pä:ss', b'2y')}\nroot:{hashed('r')}\n"
    )
    return path


@pytest.fixture
def opened(users):
    def open_(clock=time.monotonic):
        basic = Basic(users_secret=UsersSecret(name="tes-users"))
        config = Auth(mode="basic", basic=basic, administrators=Administrators(users=["root"]))
        return open_authenticator(config, IdentityFiles(users=users), clock=clock)

    return open_


async def refused(authenticator, headers):
    with pytest.raises(NotAuthenticated) as raised:
        await authenticator.caller(headers)
    assert raised.value.headers == CHALLENGE
    return raised.value


async def test_a_password_tells_who_asks(opened):
    async with opened() as authenticator:
        assert await authenticator.caller(header("alice", "opensesame")) == Caller(name="alice")
        assert await authenticator.caller(header("böb", "pä:ss")) == Caller(name="böb")
        assert await authenticator.caller(header("root", "r")) == Caller(name="root", administrator=True)


@pytest.mark.parametrize(
    "headers",
    [
        *([], ["Basic"], ["Basic !"], ["Bearer x"], ["Basic YWxpY2U="], ["Basic /w=="], header("", "")),
        *(
            header("alice", ""),
            header("alice", "Opensesame"),
            header("alice", "opensesame\0"),
            header("nobody", ""),
        ),
        *(header("alice", "x" * 1000), header("alice", "opensesame") * 2, header("ALICE", "opensesame")),
    ],
)
async def test_everything_else_is_refused(opened, headers):
    async with opened() as authenticator:
        await refused(authenticator, headers)


async def test_the_right_password_is_hashed_once_in_a_while(opened, monkeypatch):
    hashes = counted(monkeypatch)
    async with opened() as authenticator:
        for _ in range(3):
            await asyncio.gather(*(authenticator.caller(header("alice", "opensesame")) for _ in range(20)))
        assert len(hashes) == 1
        for _ in range(3):
            await refused(authenticator, header("alice", "wrong"))
        assert len(hashes) == 2


def counted(monkeypatch):
    hashes = []
    real = authenticators.is_password
    monkeypatch.setattr(authenticators, "is_password", lambda *given: (hashes.append(1), real(*given))[1])
    return hashes


async def test_an_unknown_user_costs_a_hash_too(opened, monkeypatch):
    hashes = counted(monkeypatch)
    async with opened() as authenticator:
        await refused(authenticator, header("nobody", "x"))
    assert len(hashes) == 1


@pytest.mark.parametrize("guessed", [["alice"], ["nobody"], [f"nobody-{number}" for number in range(150)]])
async def test_a_flood_of_guesses_locks_out_no_other_user(opened, monkeypatch, guessed):
    async with opened() as authenticator:
        await authenticator.caller(header("alice", "opensesame"))
        real, free = authenticators.is_password, threading.Event()

        def slow(password, hashed):
            return real(password, hashed) if password == "pä:ss" else not free.wait(30)

        monkeypatch.setattr(authenticators, "is_password", slow)
        authenticator._hashing = asyncio.Semaphore(3)
        guesses = [
            asyncio.create_task(authenticator.caller(header(guessed[n % len(guessed)], str(n))))
            for n in range(150)
        ]
        await asyncio.sleep(0)
        assert await authenticator.caller(header("alice", "opensesame")) == Caller(name="alice")
        assert await authenticator.caller(header("böb", "pä:ss")) == Caller(name="böb")
        free.set()
        outcomes = [type(outcome) for outcome in await asyncio.gather(*guesses, return_exceptions=True)]
        assert (outcomes.count(NotAuthenticated), outcomes.count(LimitReached)) == (2, 148)


async def test_a_valid_password_is_remembered_until_the_file_changes(opened, users, monkeypatch):
    hashes = counted(monkeypatch)
    monkeypatch.setattr(authenticators, "_PASSWORDS", 10)
    now = [0.0]
    async with opened(lambda: now[0]) as authenticator:
        await authenticator.caller(header("alice", "opensesame"))
        now[0] += 1_000_000
        for number in range(20):
            await refused(authenticator, header("alice", str(number)))
        hashes.clear()
        await authenticator.caller(header("alice", "opensesame"))
        assert not hashes
        users.write_text(f"alice:{hashed('opensesame')}\n")
        await authenticator.caller(header("alice", "opensesame"))
        assert len(hashes) == 1


async def test_a_changed_file_counts_at_once_and_a_broken_one_never(opened, users, caplog):
    def replace(text):
        new = users.with_name("new")
        new.write_text(text)
        new.replace(users)  # as Kubernetes does

    caplog.set_level(logging.INFO)
    async with opened() as authenticator:
        await authenticator.caller(header("alice", "opensesame"))
        replace(f"alice:{hashed('changed')}\n")
        await refused(authenticator, header("alice", "opensesame"))
        assert await authenticator.caller(header("alice", "changed")) == Caller(name="alice")
        replace("alice:plain-s3cr3t\n")
        assert await authenticator.caller(header("alice", "changed")) == Caller(name="alice")
        users.unlink()
        assert await authenticator.caller(header("alice", "changed")) == Caller(name="alice")
    assert "users stay as they were" in caplog.text
    records = " ".join(str(record.__dict__) for record in caplog.records)
    assert "s3cr3t" not in records
    assert "opensesame" not in records


async def test_a_file_that_is_missing_at_the_start_is_a_bad_configuration(opened, users):
    users.unlink()
    with pytest.raises(ConfigError, match=r"usersSecret.*htpasswd"):
        async with opened():
            pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alice", "line 1: the hash of 'alice'"),
        ("\nalice:secret", "line 2: the hash of 'alice'"),
        ("alice:$apr1$x$y", "line 1: the hash of 'alice' is none of bcrypt"),
        ("alice:{SHA}x", "line 1"),
        (":x", "line 1 has no user name"),
        ("a\0b:x", "line 1 has no user name"),
        pytest.param(f"a:{hashed('x')}\na:{hashed('x')}", "line 2: 'a' is there already", id="twice"),
        pytest.param(f"a:{hashed('x').replace('$04$', '$31$')}", "line 1", id="too much work"),
    ],
)
def test_a_bad_line_is_named_without_its_hash(text, message):
    with pytest.raises(BadUsers) as raised:
        parse_users(text)
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "$apr1" not in str(raised.value)


@given(st.lists(st.text(), max_size=3))
def test_any_headers_are_a_password_or_refused(headers):
    with pytest.raises(NotAuthenticated):
        password(headers)


def test_a_password_is_not_shown():
    assert "opensesame" not in repr(password(header("alice", "opensesame")))
