"""Against botocore, which signs as AWS does."""

from datetime import UTC, datetime
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from botocore.config import Config

from poiesis_transfer.sigv4 import Credentials, encoded_path, encoded_query, signed_headers

NOW = datetime(2026, 11, 26, 9, 30, 1, tzinfo=UTC)
KEYS = ["a b", "plus+é?#%&=", "/leading//twice", "../up/./x", "~-._", "😀", "*'()!", "%41"]


def botocores(method: str, url: str, headers: dict[str, str], token: str | None, monkeypatch: Any) -> str:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
    request = botocore.awsrequest.AWSRequest(method=method, url=url, headers=headers)
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    signer = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials("AK", "SK", token), "s3", "eu-1")
    signer.add_auth(request)
    return str(request.headers["Authorization"]).replace(", ", ",")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("token", [None, "a-token"])
def test_signatures_are_those_of_botocore(key: str, token: str | None, monkeypatch: pytest.MonkeyPatch):
    path = encoded_path(f"/bucket/{key}")
    query = encoded_query({"uploads": "", "prefix": "a/b c+"})
    headers = {"host": "s3.example:9000", "x-amz-checksum-mode": "ENABLED"}
    ours = signed_headers(
        "GET", path, query, headers, credentials=Credentials("AK", "SK", token), region="eu-1", now=NOW
    )
    url = f"https://s3.example:9000{path}?{query}"
    theirs = botocores(
        "GET", url, {**headers, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}, token, monkeypatch
    )
    assert ours["authorization"] == theirs
