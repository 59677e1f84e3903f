"""Trim an unpacked Debian tree to iptables, conntrack and modprobe with their libraries: what kube-proxy
calls.

Run on the unpacked tree, with its directory as the argument. Installed packages would choose between the
nftables and the legacy iptables by update-alternatives; here the choice is nftables, as on the node.
"""

import shutil
import sys
from pathlib import Path


def main() -> None:
    root = Path(sys.argv[1])
    for name in (
        "share/doc",
        "share/man",
        "share/locale",
        "share/info",
        "share/bash-completion",
        "lib/python3",
    ):
        shutil.rmtree(root / "usr" / name, ignore_errors=True)
    for program in (
        "iptables",
        "iptables-save",
        "iptables-restore",
        "ip6tables",
        "ip6tables-save",
        "ip6tables-restore",
    ):
        link = root / "usr/sbin" / program
        link.unlink(missing_ok=True)
        link.symlink_to("xtables-nft-multi")


main()
