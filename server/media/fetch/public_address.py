"""SSRF guard: whether a network address is one of the public internet, however it is written.

Pure. Names are resolved elsewhere (`server/media/fetch/fetcher.py`), so decimal, octal and short forms of an address
never get here: the resolver has turned them into plain ones.

Source: IANA special-purpose address registries; RFC 4291 (mapped), RFC 6052 (NAT64).
"""

import ipaddress

_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC_V4 = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # public by number, but Azure serves its metadata there
    # Python knows only parts of these, depending on its version:
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
)
_NOT_PUBLIC_V6 = (
    ipaddress.IPv6Network("2001::/23"),  # protocol assignments, Teredo
    ipaddress.IPv6Network("2002::/16"),  # 6to4: an IPv4 address in another notation
    ipaddress.IPv6Network("3fff::/20"),  # documentation
)


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet.

    Args:
        text: an IPv4 or IPv6 address as the resolver returns it.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        elif address not in _GLOBAL_UNICAST_V6 or any(address in network for network in _NOT_PUBLIC_V6):
            return False
    if isinstance(address, ipaddress.IPv4Address) and any(address in network for network in _NOT_PUBLIC_V4):
        return False
    return address.is_global and not address.is_multicast
