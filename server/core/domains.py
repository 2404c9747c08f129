"""Parses and matches the domains that media may or may not be fetched from. Pure."""

import idna

_NOT_IN_NAMES = frozenset("/:@?#%*[] ")


def split_domains(text: str) -> frozenset[str]:
    """The domains in a setting's value, in the form that URLs have.

    Args:
        text: names separated by commas, international ones in Unicode or Punycode.

    Raises:
        ValueError: one is not a name.
    """
    domains = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        host = name.lower().rstrip(".")
        if set(name) & _NOT_IN_NAMES or not host:
            raise ValueError(f"{name!r} is not a domain; write it without wildcards, its subdomains are included")
        try:
            domains.add(host if host.isascii() else idna.encode(host).decode("ascii"))
        except idna.IDNAError as error:
            raise ValueError(f"{name!r} is not a domain") from error
    return frozenset(domains)


def is_within(host: str, domains: frozenset[str]) -> bool:
    """Whether a host is one of the domains or a subdomain of one.

    Args:
        host: as in a URL: lowercase, no dot at the end.
        domains: as returned by `split_domains`.
    """
    labels = host.split(".")
    return any(".".join(labels[start:]) in domains for start in range(len(labels)))
