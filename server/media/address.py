"""Which network addresses a media URL may lead to: those of the public internet, judged after every disguise is off.

Pure. Names are resolved elsewhere (`server/media/fetch.py`), so decimal, octal and short forms of an address never get
here: the resolver has turned them into plain ones.

Source: IANA special-purpose address registries; RFC 4291 (mapped), RFC 6052 (NAT64).
"""

import ipaddress

_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_CLOUD_SERVICES = frozenset({ipaddress.IPv4Address("168.63.129.16")})
"""Public by number, but served to its own machines only: Azure's metadata address."""


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet.

    Args:
        text: an IPv4 or IPv6 address as the resolver gives it.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        elif address not in _GLOBAL_UNICAST_V6 or address in _SIX_TO_FOUR or address in _TEREDO:
            return False
    return address.is_global and not address.is_multicast and address not in _CLOUD_SERVICES
