"""Which addresses a task's URL may lead to. Pure; standard library only.

A filer runs inside the cluster and fetches what users name. Without a rule they could read through it what
only the cluster sees: the cloud's metadata service, the API server, other tenants' services.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from poiesis_transfer.errors import Permanent

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")  # IANA gives global unicast addresses from here alone
_ALSO_INTERNAL = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's host, public by its number
    ipaddress.IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; Oracle's metadata service
    ipaddress.IPv6Network("3fff::/20"),  # documentation (RFC 9637), which Python learned late
)


_NO_ENTRY, _BY_NAME = -1, 129  # longer than any prefix


@dataclass(frozen=True)
class Places:
    """Networks, and hosts by name."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "Places":
        """`10.1.0.0/16`, `192.0.2.7`, `files.example.org`; raise Permanent for what is none of them."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for entry in entries:
            if _looks_numeric(entry):
                networks.append(_network(entry))
            else:
                hosts.add(entry.lower().rstrip("."))
        return cls(tuple(networks), frozenset(hosts))

    def names(self, host: str) -> bool:
        """Whether the host is one of them by its name."""
        return host.lower().rstrip(".") in self.hosts

    def closeness(self, host: str, address: Address) -> int:
        """How specific the closest entry for it is; `_NO_ENTRY` without one."""
        return max(self._closenesses(host, address), default=_NO_ENTRY)

    def _closenesses(self, host: str, address: Address) -> Iterator[int]:
        if self.names(host):
            yield _BY_NAME
        for network in self.networks:
            if network.version == address.version and address in network:
                yield network.prefixlen


@dataclass(frozen=True)
class Allowed:
    """Where the operator lets users' URLs lead: to public addresses, except as `allowed` and `denied` say."""

    allowed: Places = field(default_factory=Places)
    denied: Places = field(default_factory=Places)

    @classmethod
    def parse(cls, allowed: Iterable[str], denied: Iterable[str] = ()) -> "Allowed":
        """Raise Permanent, as `Places` does."""
        return cls(Places.parse(allowed), Places.parse(denied))

    def reaches(self, host: str, address: str) -> bool:
        """Whether a connection to `host`, by this address of it, may be made.

        The most specific entry decides: a host's name before any network, a longer prefix before a shorter
        one. Of two that are equal the denial does.
        """
        real = real_address(address)
        allowed, denied = self.allowed.closeness(host, real), self.denied.closeness(host, real)
        if max(allowed, denied) == _NO_ENTRY:
            return is_public(real)
        return allowed > denied

    def denies_name(self, host: str) -> bool:
        """Whether no address of `host` may be connected to."""
        return self.denied.names(host)


def real_address(text: str) -> Address:
    """An address; of an IPv6 one that stands for an IPv4 one (mapped, NAT64, 6to4, Teredo), the latter."""
    address = ipaddress.ip_address(text.partition("%")[0])  # without the zone
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def is_public(address: Address) -> bool:
    """Reachable from the internet, so not link-local, loopback, private, shared, multicast or reserved."""
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
