"""Which hosts a list of domains covers."""

import pytest

from server.core.domains import is_within, split_domains

DOMAINS = split_domains("Example.org, cdn.example.net., bücher.example,,10.1.2.3")


@pytest.mark.parametrize(
    "host", ["example.org", "a.example.org", "a.b.example.org", "cdn.example.net", "xn--bcher-kva.example", "10.1.2.3"]
)
def test_domains_cover_their_subdomains(host: str) -> None:
    assert is_within(host, DOMAINS)


@pytest.mark.parametrize(
    "host", ["org", "notexample.org", "example.org.evil.test", "example.net", "acdn.example.net", "1.2.3", "", "."]
)
def test_domains_cover_nothing_else(host: str) -> None:
    assert not is_within(host, DOMAINS)


def test_an_empty_list_covers_nothing() -> None:
    assert split_domains(" , ") == frozenset()
    assert not is_within("example.org", frozenset())


@pytest.mark.parametrize(
    "text", ["http://example.org", "example.org/a", "*.example.org", "a b", "u@example.org", "a:80"]
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a domain"):
        split_domains(text)
