"""Buckets for tests, accessed from the machine that runs the tests."""

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.handlers
from botocore.config import Config


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An S3 service, with one URL for this machine and one for Pods."""

    url: str
    pod_url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    def client(self) -> Any:
        """Return a boto3 client that ignores the machine's proxy: the service is local."""
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 3}),
        )
        # MinIO waits for half a minute for an empty body that is announced this way.
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        return client

    def secret_for(self, bucket: str) -> dict[str, str]:
        """Return temporary keys (one hour) with full access to this bucket and to no other."""
        sts = boto3.client(
            "sts",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(proxies={}, retries={"max_attempts": 3}),
        )
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": resources}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        given = sts.assume_role(RoleArn="arn:aws:iam::1:role/e2e", RoleSessionName="e2e", Policy=policy)
        keys = given["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket; calls run in a thread."""

    name: str
    s3: Any

    def url(self, key: str = "") -> str:
        """Return the URL of an object, or of a directory of objects."""
        return f"s3://{self.name}/{key}"

    async def put(self, key: str, data: bytes) -> str:
        """Store an object and return its URL."""
        await asyncio.to_thread(self.s3.put_object, Bucket=self.name, Key=key, Body=data)
        return self.url(key)

    async def get(self, key: str) -> bytes:
        """Return an object's bytes."""

        def read() -> bytes:
            data: bytes = self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()
            return data

        return await asyncio.to_thread(read)

    async def text(self, key: str) -> str:
        """Return an object as text."""
        return (await self.get(key)).decode()

    async def text_if_any(self, key: str) -> str | None:
        """Return an object as text; None if it does not exist."""
        return await self.text(key) if key in await self.keys(key) else None

    async def keys(self, prefix: str = "") -> list[str]:
        """Return all keys below `prefix`, sorted."""

        def read() -> list[str]:
            pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

        return await asyncio.to_thread(read)

    async def clear(self) -> None:
        """Delete all objects."""
        await asyncio.to_thread(self._clear)

    def remove(self) -> None:
        """Delete the bucket and all its objects."""
        self._clear()
        self.s3.delete_bucket(Bucket=self.name)

    def _clear(self) -> None:
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name):
            for item in page.get("Contents", ()):
                self.s3.delete_object(Bucket=self.name, Key=item["Key"])


def make_bucket(endpoint: Endpoint, name: str | None = None) -> Bucket:
    """Create a bucket, or (by `name`) reuse an existing one."""
    s3 = endpoint.client()
    chosen = name or f"e2e-{uuid.uuid4().hex[:12]}"
    if chosen not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=chosen)
    return Bucket(name=chosen, s3=s3)
