"""Which addresses a task's URL may lead to. Pure; standard library only.

A filer runs inside the cluster and fetches URLs that users choose. Without this rule, users could read what
only the cluster can reach: the cloud's metadata service, the API server, services of other tenants.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from poiesis_transfer.errors import Permanent

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_IPV6_PUBLIC = ipaddress.IPv6Network(
    "2000::/3"
)  # the only range from which IANA assigns global unicast addresses
_ALSO_INTERNAL = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's host services, at a public address
    ipaddress.IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; Oracle's metadata service
    ipaddress.IPv6Network("3fff::/20"),  # documentation (RFC 9637), unknown to older Python versions
)


_NO_ENTRY, _BY_NAME = -1, 129  # longer than any prefix


@dataclass(frozen=True)
class Places:
    """Networks, and hosts by name."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "Places":
        """Parse entries such as `10.1.0.0/16`, `192.0.2.7` and `files.example.org`. Raise Permanent."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for entry in entries:
            if _looks_numeric(entry):
                networks.append(_network(entry))
            else:
                hosts.add(entry.lower().rstrip("."))
        return cls(tuple(networks), frozenset(hosts))

    def names(self, host: str) -> bool:
        """Return whether the host is listed by name."""
        return host.lower().rstrip(".") in self.hosts

    def closeness(self, host: str, address: Address) -> int:
        """Return how specific the closest matching entry is; `_NO_ENTRY` if none matches."""
        return max(self._closenesses(host, address), default=_NO_ENTRY)

    def _closenesses(self, host: str, address: Address) -> Iterator[int]:
        if self.names(host):
            yield _BY_NAME
        for network in self.networks:
            if network.version == address.version and address in network:
                yield network.prefixlen


@dataclass(frozen=True)
class Allowed:
    """The operator's rule for users' URLs: public addresses, plus `allowed`, minus `denied`."""

    allowed: Places = field(default_factory=Places)
    denied: Places = field(default_factory=Places)

    @classmethod
    def parse(cls, allowed: Iterable[str], denied: Iterable[str] = ()) -> "Allowed":
        """Parse both lists. Raise Permanent."""
        return cls(Places.parse(allowed), Places.parse(denied))

    def reaches(self, host: str, address: str) -> bool:
        """Return whether a connection to this address of `host` is allowed.

        The most specific entry decides: a host name before any network, a longer prefix before a shorter one.
        If two are equal, the address is denied.
        """
        real = real_address(address)
        allowed, denied = self.allowed.closeness(host, real), self.denied.closeness(host, real)
        if max(allowed, denied) == _NO_ENTRY:
            return is_public(real)
        return allowed > denied

    def denies_name(self, host: str) -> bool:
        """Return whether `host` is denied by name."""
        return self.denied.names(host)


def real_address(text: str) -> Address:
    """Parse an address. For IPv6 forms of IPv4 (mapped, NAT64, 6to4, Teredo), return the IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])  # without the zone
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def is_public(address: Address) -> bool:
    """Return whether an address is public:

    not link-local, loopback, private, shared, multicast or reserved.
    """
    if isinstance(address, ipaddress.IPv6Address) and address not in _IPV6_PUBLIC:
        return False
    special = address.is_multicast or any(address in network for network in _ALSO_INTERNAL)
    return address.is_global and not special


def _looks_numeric(entry: str) -> bool:
    return ":" in entry or "/" in entry or entry.replace(".", "").isdigit()


def _network(entry: str) -> Network:
    try:
        return ipaddress.ip_network(entry)
    except ValueError as error:
        raise Permanent(f"{entry!r} must be a network, an address or a host: {error}") from error
