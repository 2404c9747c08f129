"""Keys of settings and file: found by themselves only, kept as hashes, renewed when the file changes."""

import logging
from pathlib import Path

import pytest

from server.auth.api_keys import CHECK_INTERVAL_S, Key, KeyFileError, KeyRing, hash_key
from tests.support.clock import Clock
from tests.support.keys import entry, write


def test_a_hash_is_what_sha256sum_tells() -> None:
    assert hash_key("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_keys_of_the_settings_are_named_in_their_order() -> None:
    ring = KeyRing(["first", "second"])
    found = ring.find("second")
    assert found is not None and (found.name, found.sha256) == ("key-2", hash_key("second"))
    assert ring.find("secon") is None and ring.find("") is None and ring.find("key-2") is None
    assert ring and not KeyRing([])


def test_a_named_key_can_be_replaced_and_a_key_of_the_settings_moved(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write(file, entry("alice", "old"))
    before = KeyRing(["a", "b"], file)
    write(file, entry("alice", "new"))
    after = KeyRing(["b", "a"], file)

    def tenant(ring: KeyRing, key: str) -> str:
        found = ring.find(key)
        assert found is not None
        return found.tenant

    assert tenant(before, "old") == tenant(after, "new") != ""
    assert tenant(before, "a") == tenant(after, "a") != tenant(after, "b")
    assert hash_key("a") not in tenant(before, "a")


def test_nothing_keeps_the_key_itself() -> None:
    assert "first" not in repr(vars(KeyRing(["first"])))


def test_reads_names_and_limits_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write(
        file, entry("alice", "a", requests_per_minute=3), entry("bob", "b", tokens_per_minute=9, concurrent_requests=1)
    )
    ring = KeyRing(["c"], file)
    assert ring.find("a") == Key(name="alice", sha256=hash_key("a"), requests_per_minute=3)
    assert ring.find("b") == Key(name="bob", sha256=hash_key("b"), tokens_per_minute=9, concurrent_requests=1)
    assert ring.find("c") is not None


def test_a_changed_file_counts_from_the_next_look_on(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.toml", Clock()
    write(file, entry("alice", "a"))
    ring = KeyRing([], file, clock=clock)
    write(file, entry("bob", "b"))
    assert ring.find("a") and not ring.find("b")
    clock.now_s = CHECK_INTERVAL_S
    assert ring.find("b") and not ring.find("a")


@pytest.mark.parametrize("content", [None, "", "rubbish", entry("alice", "b") + entry("alice", "c")])
def test_a_file_that_became_faulty_changes_nothing_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    file, clock = tmp_path / "keys.toml", Clock()
    write(file, entry("alice", "a"))
    ring = KeyRing([], file, clock=clock)
    if content is None:
        file.unlink()
    else:
        write(file, content)
    clock.now_s = 2 * CHECK_INTERVAL_S
    with caplog.at_level(logging.ERROR, "tessera.keys"):
        assert ring.find("a")
        clock.now_s = 4 * CHECK_INTERVAL_S
        assert ring.find("a")
    assert len(caplog.records) == 1  # once, not at every look
    write(file, entry("alice", "d"))
    clock.now_s = 6 * CHECK_INTERVAL_S
    assert ring.find("d") and not ring.find("a")


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "cannot be read"),
        ("", "invalid at key: Field required"),
        ("key = []", "invalid at key"),
        ("[[key", "not TOML"),
        ("\udcff", "not TOML"),
        ("other = 1\n" + entry("a", "a"), "invalid at other"),
        (entry("a", "a", max_requests=1), r"invalid at key\.0\.max_requests"),
        (entry("a", "a", requests_per_minute=0), r"invalid at key\.0\.requests_per_minute"),
        (entry("a b", "a"), r"invalid at key\.0\.name"),
        ('[[key]]\nname = "a"\nsha256 = "abc"', r"invalid at key\.0\.sha256"),
        (entry("a", "a") + entry("a", "b"), "same name"),
        (entry("a", "a") + entry("b", "a"), "same sha256"),
        (entry("key-1", "b"), "same name"),
    ],
)
def test_a_faulty_file_stops_the_start(tmp_path: Path, content: str | None, fact: str) -> None:
    file = tmp_path / "keys.toml"
    if content is not None:
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(KeyFileError, match=fact) as caught:
        KeyRing(["plain"], file)
    assert str(tmp_path) not in str(caught.value)
