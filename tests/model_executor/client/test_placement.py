"""Which engine a request goes to: pure functions against what rendezvous hashing and bounded loads promise."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_executor.client.devices import device_groups
from model_executor.client.placement import BALANCE, HEAD_TOKENS, choose, placement_key
from model_executor.engine import MediaItem, Prompt

KEYS = [f"key {number}".encode() for number in range(3000)]


def idle(*numbers: int) -> dict[int, int]:
    return dict.fromkeys(numbers, 0)


def with_image(digest: str, *token_ids: int) -> Prompt:
    return Prompt([*token_ids, 7], [MediaItem("image", (1, 2, 2), 0, 1, digest, "/nowhere")])


def test_the_first_media_item_decides_whatever_the_text() -> None:
    assert placement_key(with_image("a", 1, 2)) == placement_key(with_image("a", 3))
    assert placement_key(with_image("a", 1)) != placement_key(with_image("b", 1))


def test_without_media_the_head_of_the_text_decides_for_one_tenant_and_adapter() -> None:
    head = list(range(HEAD_TOKENS))
    assert placement_key(Prompt([*head, 1])) == placement_key(Prompt([*head, 2, 3]))
    assert placement_key(Prompt(head)) != placement_key(Prompt([1, *head[1:]]))
    assert placement_key(Prompt(head)) != placement_key(Prompt(head, cache_salt="alice"))
    assert placement_key(Prompt(head)) != placement_key(Prompt(head, adapter="fine-tuned"))


@pytest.mark.parametrize("num_engines", [2, 3, 8])
def test_keys_are_spread_evenly(num_engines: int) -> None:
    shares = Counter(choose(key, idle(*range(num_engines))) for key in KEYS)
    mean = len(KEYS) / num_engines
    assert all(abs(shares[number] - mean) < 5 * math.sqrt(mean) for number in range(num_engines))


def test_a_lost_engine_moves_only_its_own_keys_and_gets_these_back() -> None:
    before = [choose(key, idle(0, 1, 2, 3)) for key in KEYS]
    without = [choose(key, idle(0, 1, 3)) for key in KEYS]
    assert all(old == new for old, new in zip(before, without, strict=True) if old != 2)
    moved = Counter(new for old, new in zip(before, without, strict=True) if old == 2)
    assert set(moved) == {0, 1, 3} and min(moved.values()) > sum(moved.values()) / 5  # not all to one
    assert [choose(key, idle(0, 1, 2, 3)) for key in KEYS] == before


@given(st.dictionaries(st.integers(0, 15), st.integers(0, 200), min_size=1), st.binary(max_size=40))
def test_no_engine_is_given_more_than_its_bounded_share(num_running: dict[int, int], key: bytes) -> None:
    chosen = choose(key, num_running)
    assert num_running[chosen] + 1 <= math.ceil(BALANCE * (sum(num_running.values()) + 1) / len(num_running))


def test_one_popular_key_occupies_all_engines() -> None:
    num_running = idle(0, 1)
    for _ in range(16):
        num_running[choose(b"popular", num_running)] += 1
    assert sorted(num_running.values()) == [4, 12]


@pytest.mark.parametrize(
    ("num_groups", "size", "gpus", "expected"),
    [
        (1, 1, ["0", "1"], [""]),  # one engine chooses by itself, as ever
        (2, 1, [], ["", ""]),  # a CPU
        (0, 1, [], [""]),
        (0, 2, ["0", "1", "2", "3", "4"], ["0,1", "2,3"]),
        (2, 2, ["0", "1", "2", "3"], ["0,1", "2,3"]),
        (2, 1, ["GPU-a", "GPU-b", "GPU-c"], ["GPU-a", "GPU-b"]),
        (3, 1, ["0", "1"], ["0", "1", "0"]),
        (2, 4, ["0", "1"], ["", ""]),  # too few for one: vLLM says so
    ],
)
def test_gpus_are_dealt_out(num_groups: int, size: int, gpus: list[str], expected: list[str]) -> None:
    assert device_groups(num_groups, size, gpus) == expected
