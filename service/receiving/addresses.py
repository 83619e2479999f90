"""Which addresses of the network a photo may be fetched from: public ones alone."""

import ipaddress

# A translator behind which any IPv4 address may lie, private ones too.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, and hides no other one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        hides_another = found.ipv4_mapped or found.sixtofour or found.teredo or found in _NAT64
        if hides_another or found.scope_id is not None:
            return False
    return found.is_global and not found.is_multicast
