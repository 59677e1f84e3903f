"""Trim an unpacked Debian tree to what python3.13 needs to run: no shell, no package manager.

Run on the unpacked tree, with its directory as the argument. Kept: the interpreter; the standard library as
byte code (no sources: half the size, and nothing to compile in a read-only container) without its tests, GUI,
terminal, database and documentation parts; the shared libraries these need; the certificate authorities.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "3.13"
UNWANTED_PACKAGES = (
    *("curses", "dbm", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "sqlite3", "test", "tkinter"),
    *("turtledemo", "config-3.13-x86_64-linux-gnu", "config-3.13-aarch64-linux-gnu", "venv", "__phello__"),
)
UNWANTED_MODULES = ("turtle.py", "antigravity.py", "this.py", "LICENSE.txt", "EXTERNALLY-MANAGED")
UNWANTED_EXTENSIONS = (
    *("_curses", "_dbm", "_gdbm", "_sqlite3", "_tkinter", "_test", "_xxtest", "xx", "readline"),
)
# what glibc opens by name, and what compiled wheels may take for granted (PEP 600) and commonly do
FOR_WHEELS = (
    *("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"),
    *("libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"),
)


def libraries(root: Path, program: str) -> set[Path]:
    """The shared objects that the tree's own loader finds for `program` (absolute, inside the tree)."""
    loader = next(
        path
        for path in (root / "usr/lib64", root / "usr/lib", root / "lib64")
        if list(path.glob("ld-linux-*"))
    )
    interpreter = "/" + str(next(iter(loader.glob("ld-linux-*"))).relative_to(root))
    listed = subprocess.run(
        ["chroot", root, interpreter, "--list", program], check=True, capture_output=True, text=True
    ).stdout
    found = {word for line in listed.splitlines() for word in line.split() if word.startswith("/")}
    return {root / path.lstrip("/") for path in found} | {root / interpreter.lstrip("/")}


def trim_library(root: Path) -> Path:
    """Leave the wanted parts of the standard library, as byte code alone. Returns its directory."""
    library = root / f"usr/lib/python{VERSION}"
    for name in UNWANTED_PACKAGES:
        shutil.rmtree(library / name, ignore_errors=True)
    for name in UNWANTED_MODULES:
        (library / name).unlink(missing_ok=True)
    for extension in (library / "lib-dynload").iterdir():
        if extension.name.startswith(UNWANTED_EXTENSIONS):
            extension.unlink()
    compiler = ["chroot", str(root), f"/usr/bin/python{VERSION}", "-m", "compileall", "-q", "-b"]
    subprocess.run([*compiler, f"/usr/lib/python{VERSION}"], check=True)
    for source in library.rglob("*.py"):
        source.unlink()
    for folder in list(library.rglob("__pycache__")):
        shutil.rmtree(folder)
    return library


def keep_libraries(root: Path, kept: Path, library: Path) -> None:
    """The shared objects that interpreter and extension modules load, with the links that name them."""
    extensions = (library / "lib-dynload").iterdir()
    programs = [f"/usr/bin/python{VERSION}", *(f"/{path.relative_to(root)}" for path in extensions)]
    needed = {path.resolve() for program in programs for path in libraries(root, program)}
    needed |= {path.resolve() for name in FOR_WHEELS for path in root.glob(f"usr/lib/*-linux-gnu/{name}")}
    for path in needed:
        target = kept / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    links = [path for path in (root / "usr").rglob("*.so*") if path.is_symlink() and path.resolve() in needed]
    links += [path for path in (root / "bin", root / "lib", root / "lib64") if path.is_symlink()]
    for link in links:
        (kept / link.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (kept / link.relative_to(root)).symlink_to(link.readlink())


def keep_authorities(root: Path, kept: Path) -> None:
    """The bundle that update-ca-certificates would make, where OpenSSL looks for it."""
    authorities = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    certificates = kept / "etc/ssl/certs"
    certificates.mkdir(parents=True)
    bundle = "".join(path.read_text().rstrip("\n") + "\n" for path in authorities)
    (certificates / "ca-certificates.crt").write_text(bundle)
    (kept / "usr/lib/ssl").mkdir(parents=True)
    (kept / "usr/lib/ssl/certs").symlink_to("/etc/ssl/certs")
    (kept / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")


def write_system_files(root: Path, kept: Path) -> None:
    (kept / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/sbin/nologin\n"
        "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
    )
    (kept / "etc/group").write_text("root:x:0:\nnonroot:x:65532:\nnogroup:x:65534:\n")
    (kept / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    shutil.copy2(root / "usr/lib/os-release", kept / "etc/os-release")
    modes = {"tmp": 0o1777, "proc": 0o555, "sys": 0o555, "dev": 0o755, "run": 0o755, "root": 0o700}
    for name, mode in modes.items():
        (kept / name).mkdir()
        (kept / name).chmod(mode)
    (kept / "home/nonroot").mkdir(parents=True)
    os.chown(kept / "home/nonroot", 65532, 65532)


def replace_content(root: Path, kept: Path) -> None:
    for entry in root.iterdir():
        if entry == kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    for entry in list(kept.iterdir()):
        entry.rename(root / entry.name)
    kept.rmdir()


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    kept = root / ".kept"
    (kept / "usr/bin").mkdir(parents=True)
    library = trim_library(root)
    shutil.copy2(root / f"usr/bin/python{VERSION}", kept / "usr/bin")
    for name in ("python3", "python"):
        (kept / "usr/bin" / name).symlink_to(f"python{VERSION}")
    shutil.copytree(library, kept / f"usr/lib/python{VERSION}", symlinks=True)
    keep_libraries(root, kept, library)
    keep_authorities(root, kept)
    write_system_files(root, kept)
    replace_content(root, kept)


main()
