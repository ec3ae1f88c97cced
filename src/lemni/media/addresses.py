"""Which addresses may be connected to: those of the public internet, and what the operator lists. Pure, no I/O.

The tables follow IANA's registries of special-purpose addresses (RFC 6890). They are written out because what
`ipaddress` calls global differs between Python versions and includes multicast. `fetch` asks before it connects.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

from lemni.config import MediaSettings

Address: TypeAlias = IPv4Address | IPv6Address

_NOT_PUBLIC_V4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform service, in the middle of public space
        "169.254.0.0/16",  # link-local; metadata of most clouds at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols; Oracle's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
_GLOBAL_V6 = IPv6Network("2000::/3")  # all that is handed out; loopback, fc00::/7, fe80::/10, ff00::/8 are outside
_NOT_PUBLIC_V6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: any IPv4 address, through a relay that nobody runs any more
        "3fff::/20",  # documentation
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052; what IPv4-only hosts look like from a network with IPv6 alone


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet. An IPv4 address inside an IPv6 one counts as itself."""
    address = _carried(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def _carried(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class Policy:
    """What `media_urls` and `media_allow_hosts` say about a host and the address that it stands for."""

    def __init__(self, settings: MediaSettings) -> None:
        self._public = settings.media_urls == "public"
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: set[str] = set()
        self._domains: list[str] = []
        for entry in settings.media_allow_hosts or ():
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                if entry.startswith("*."):
                    self._domains.append(entry[1:])
                else:
                    self._names.add(entry)

    def allows(self, host: str, address: Address) -> bool:
        """Whether `address`, one that `host` (as the URL spells it) resolved to, may be connected to."""
        host = host.lower().rstrip(".")
        return (
            (self._public and is_public(address))
            or host in self._names
            or any(host.endswith(domain) for domain in self._domains)
            or any(seen in network for network in self._networks for seen in (address, _carried(address)))
        )
