import pytest

from poiesis_migrations.config import Config, ConfigError, Dsn

DSN = "postgresql://user:secret@db:5432/poiesis"
COMPLETE = {"POIESIS_MIGRATIONS_DSN": DSN, "POIESIS_API_DSN": DSN, "POIESIS_RECORDER_DSN": DSN}


def test_a_dsn_keeps_its_options():
    assert Dsn.parse("X", f"{DSN}?sslmode=verify-full\n").url == f"{DSN}?sslmode=verify-full"


def test_user_and_password_are_percent_decoded():
    dsn = Dsn.parse("X", "postgres://us%40er:p%2Fw%27@db/poiesis")
    assert (dsn.user, dsn.password) == ("us@er", "p/w'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "host=db user=poiesis",
            "POIESIS_API_DSN must be a URL: postgresql://user:password@host:5432/database",
        ),
        (
            "mysql://u:p@db/poiesis",
            "POIESIS_API_DSN must be a URL: postgresql://user:password@host:5432/database",
        ),
        ("postgresql://db/poiesis", "POIESIS_API_DSN names no user"),
        ("postgresql://u:p@db", "POIESIS_API_DSN names no database"),
        ("", "POIESIS_API_DSN is not set"),
    ],
)
def test_a_malformed_dsn_is_named_and_not_repeated(text, message):
    with pytest.raises(ConfigError) as caught:
        Config.from_env({**COMPLETE, "POIESIS_API_DSN": text})
    assert str(caught.value) == message


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "3601"])
def test_the_wait_is_bounded(seconds):
    with pytest.raises(ConfigError, match="POIESIS_MIGRATIONS_WAIT_SECONDS"):
        Config.from_env({**COMPLETE, "POIESIS_MIGRATIONS_WAIT_SECONDS": seconds})


def test_passwords_stay_out_of_repr():
    assert "secret" not in repr(Config.from_env(COMPLETE))
