"""How often expressions repeat repetitions."""

import pytest

from server.structured_output.regex import nested_repetitions


@pytest.mark.parametrize(
    ("pattern", "times"),
    [
        ("^[a-z]{1,4000}x$", 1),
        (r"(\d{1,3}\.){3}\d{1,3}", 9),
        (r"^\{{2}([{(]{3}){2}\)$", 6),
        ("(a{2}|b{3,}){4}", 12),
        ("((a{5})?b){6}", 30),
        ("(?:(?P<name>a{9}){9}){9}", 729),
        (")a{3}", 1),
    ],
)
def test_counts_repetitions_inside_of_each_other(pattern: str, times: int) -> None:
    assert nested_repetitions(pattern) == times
