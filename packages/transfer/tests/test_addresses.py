import pytest

from poiesis_transfer.addresses import Allowed
from poiesis_transfer.errors import Permanent

INTERNAL = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",  # noqa: S104
    "10.96.0.1",
    "172.18.0.5",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fec0::1",
    "::169.254.169.254",
    "::ffff:0:a9fe:a9fe",
    "5f00::1",
    "3fff::1",
    "100:0:0:1::1",
    "64:ff9b:1::a9fe:a9fe",
    "4000::1",
    "2001:db8::1",
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INTERNAL)
def test_cluster_addresses_are_refused_in_any_notation(address: str):
    assert not Allowed().reaches("rebound.example", address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str):
    assert Allowed().reaches("h", address)


def test_networks_addresses_and_hosts_can_be_allowed():
    allowed = Allowed.parse(["10.20.0.0/16", "192.168.7.7", "fd00:1::/64", "Files.example.org."])
    reached = {
        address: allowed.reaches("h", address) for address in ("10.20.3.4", "192.168.7.7", "fd00:1::9")
    }
    assert set(reached.values()) == {True}
    refused = ("10.21.0.1", "192.168.7.8", "fd00:2::1", "169.254.169.254")
    assert not any(allowed.reaches("h", address) for address in refused)
    assert allowed.reaches("files.example.org", "10.99.0.1")
    assert not allowed.reaches("other.files.example.org", "10.99.0.1")


@pytest.mark.parametrize(
    ("host", "address", "reached"),
    [
        ("h", "131.1.7.7", False),  # a site's own network with public numbers
        ("h", "131.2.7.7", True),
        ("files.example.org", "131.1.7.7", True),  # a name is more specific than a network
        ("h", "131.1.9.9", True),  # and so is a longer prefix
        ("h", "10.20.1.1", True),
        ("h", "10.20.96.1", False),
        ("Blocked.example.org.", "8.8.8.8", False),
        ("both.example.org", "8.8.8.8", False),
        ("h", "198.51.7.7", False),  # of two that are equal the denial decides
        ("h", "2606:4700::1", False),
        ("h", "2606:4701::1", True),
    ],
)
def test_the_most_specific_entry_decides(host: str, address: str, reached: bool):
    allow = ["files.example.org", "both.example.org", "131.1.9.0/24", "10.20.0.0/16", "198.51.0.0/16"]
    deny = [
        *("131.1.0.0/16", "10.20.96.0/20", "198.51.0.0/16", "2606:4700::/32"),
        *("blocked.example.org", "both.example.org"),
    ]
    assert Allowed.parse(allow, deny).reaches(host, address) is reached


@pytest.mark.parametrize("entry", ["10.1.0.0/99", "10.1.0.1/16", "300.1.1.1", ":x"])
def test_an_entry_that_is_malformed_is_named(entry: str):
    with pytest.raises(Permanent, match=entry):
        Allowed.parse([entry])
    with pytest.raises(Permanent, match=entry):
        Allowed.parse([], [entry])
