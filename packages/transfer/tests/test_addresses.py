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
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INTERNAL)
def test_what_only_the_cluster_sees_is_refused_however_it_is_written(address: str):
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


@pytest.mark.parametrize("entry", ["10.1.0.0/99", "10.1.0.1/16", "300.1.1.1", ":x"])
def test_an_entry_that_is_malformed_is_named(entry: str):
    with pytest.raises(Permanent, match=entry):
        Allowed.parse([entry])
