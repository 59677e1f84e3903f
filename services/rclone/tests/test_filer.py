"""The filer with rclone itself, as its container runs it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_for_tests import run_filer

from poiesis_models.worklist import InputItem, WorkList

BIN = Path(sys.executable).parent  # where rclone is, too
HOST = "host = 127.0.0.1\nport = 1\n"  # where no server listens


def obscured(password: str) -> str:
    done = subprocess.run([BIN / "rclone", "obscure", password], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("remote", "variables", "code", "words"),
    [
        ("type = ftp\nuser = anonymous\n", {}, 65, "input too short when revealing password"),
        ("type = ftp\nuser = anonymous\npass = plain\n", {}, 65, "is it obscured?"),
        ("type = sftp\nuser = tes\nkey_pem = nonsense\n", {}, 65, "no key found"),
        ("type = sftp\nuser = tes\nkey_pem = x\n", {"RCLONE_TPSLIMIT": "x"}, 65, "rclone cannot start"),
        ("type = ftp\nuser = anonymous\npass = OBSCURED\n", {}, 75, "connection refused"),
    ],
)
def test_only_unreachable_stores_are_retried(
    tmp_path: Path, remote: str, variables: dict[str, str], code: int, words: str
):
    secret = tmp_path / "secret"
    secret.mkdir()
    text = f"[ftp]\n{remote}{HOST}".replace("OBSCURED", obscured("anonymous"))
    kind = remote.split()[2]
    (secret / "rclone.conf").write_text(text.replace("[ftp]", f"[{kind}]"))
    url = f"{kind}://127.0.0.1:1/a"
    work = WorkList(
        task="t", inputs=(InputItem(path="/in/a", local=str(tmp_path / "root/a"), type="FILE", url=url),)
    )
    env = {"POIESIS_SECRET": str(secret), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **variables}
    began = time.monotonic()
    ended = run_filer("poiesis_rclone", work, tmp_path, **env)
    assert (ended.code, words in (ended.progress.error or "")) == (code, True), ended.progress.error
    assert code == 75 or time.monotonic() - began < 30
