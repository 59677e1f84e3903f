"""Renew the copy of Swagger UI that the api serves: `swagger_ui.py [version]`, by default the locked one.

The package must match the digest in the lock. Only files that the page loads are kept.
"""

import base64
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[2] / "services/api/poiesis_api/swagger_ui"
LOCK = DIRECTORY / "lock.json"
PACKAGE = "swagger-ui-dist"
SERVED = ("swagger-ui-bundle.js", "swagger-ui.css")
LICENSES = ("LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt")


def main(arguments: Sequence[str]) -> int:
    """Exit 1 if the package is not the one that was locked."""
    lock = json.loads(LOCK.read_text()) if LOCK.exists() else {}
    version = arguments[0] if arguments else lock["version"]
    tarball = download(version)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if version == lock.get("version") and integrity != lock["integrity"]:
        print(f"{PACKAGE} {version} is not what was locked: {integrity} instead of {lock['integrity']}")
        return 1
    contents = members(tarball, (*SERVED, *LICENSES))
    for name, content in contents.items():
        target, kept = (f"{name}.gz", gzip.compress(content, mtime=0)) if name in SERVED else (name, content)
        (DIRECTORY / target).write_bytes(kept)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    new = {"package": PACKAGE, "version": version, "integrity": integrity, "sha256": digests}
    LOCK.write_text(json.dumps(new, indent=2) + "\n")
    print(f"{PACKAGE} {version} in {DIRECTORY}")
    return 0


def download(version: str) -> bytes:
    """Download the package from npm; no code of it runs."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{PACKAGE}@{version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (file,) = Path(folder).iterdir()
        return file.read_bytes()


def members(tarball: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Return members of a tarball; raise KeyError for a missing one."""
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        files = {name: archive.extractfile(f"package/{name}") for name in names}
        return {name: file.read() for name, file in files.items() if file is not None}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
