"""The shared-memory folder: its ledger, and that nothing outlives its owner."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import blake3
import pytest

from server.core.errors import RateLimitError
from server.media.shared_memory import SharedDirectory, SharedFile, SharedMemoryFullError


def test_ledger_counts_what_is_set_aside(tmp_path: Path) -> None:
    folder = SharedDirectory(tmp_path, 1000)
    output = folder.create_file(600)
    assert output.path.stat().st_mode & 0o777 == 0o600
    with folder.create_file(0) as content:
        content.append(b"x" * 300)
        content.append(b"y" * 100)
        assert content.path.read_bytes() == b"x" * 300 + b"y" * 100
        assert folder.used_bytes == 1000
        with pytest.raises(RateLimitError, match="max_shared_bytes"):
            content.append(b"z")
    with pytest.raises(RateLimitError):
        folder.create_file(401)
    output.resize(10)
    assert folder.used_bytes == 10
    output.resize(20)
    assert folder.used_bytes == 20
    with pytest.raises(RateLimitError):
        output.resize(1001)
    assert folder.used_bytes == 20
    output.release()
    output.release()
    assert folder.used_bytes == 0
    assert not output.path.exists()
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_appended_is_hashed_on_the_way(tmp_path: Path) -> None:
    folder = SharedDirectory(tmp_path, 1000)
    with folder.create_file(0) as content:
        content.append(b"one, ")
        content.append(b"two")
        assert content.digest == blake3.blake3(b"one, two").hexdigest()
    folder.close()


def test_spared_leases_make_room(tmp_path: Path) -> None:
    spared: list[SharedFile] = []

    def reclaim(num_bytes: int) -> int:
        freed_bytes = 0
        while spared and freed_bytes < num_bytes:
            freed_bytes += spared[0].num_bytes
            spared.pop(0).release()
        return freed_bytes

    folder = SharedDirectory(tmp_path, 1000, reclaim)
    spared += [folder.create_file(300) for _ in range(3)]
    folder.create_file(100)
    assert len(spared) == 3
    folder.create_file(400)
    assert (len(spared), folder.used_bytes) == (1, 800)
    with pytest.raises(RateLimitError):
        folder.create_file(600)
    folder.close()


def test_a_write_the_machine_refuses_is_repeated_once_leases_were_spared(tmp_path: Path) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    spares = [0, 500]  # nothing to spare for the first, something for the second

    def reclaim(num_bytes: int) -> int:
        if num_bytes <= 0:
            return 0
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        return spares.pop(0)

    folder = SharedDirectory(tmp_path, 1000, reclaim)
    with folder.create_file(0) as refused, folder.create_file(0) as repeated:
        for content in (refused, repeated):
            content.append(b"x" * 100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, unlimited[1]))
        with pytest.raises(SharedMemoryFullError):
            refused.append(b"y" * 100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, unlimited[1]))
        repeated.append(b"y" * 100)
        assert repeated.path.read_bytes() == b"x" * 100 + b"y" * 100
        assert repeated.digest == blake3.blake3(b"x" * 100 + b"y" * 100).hexdigest()
    assert folder.used_bytes == 0
    folder.close()


def test_folder_is_private_and_unguessable(tmp_path: Path) -> None:
    folders = [SharedDirectory(tmp_path, 1) for _ in range(2)]
    for folder in folders:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert folder.path.name.startswith(f"tessera-{os.getpid()}-")
        assert len(folder.path.name.rpartition("-")[2]) == 32
    assert folders[0].path != folders[1].path
    for folder in folders:
        folder.close()


def test_start_sweeps_what_a_killed_server_left_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from server.media.shared_memory import SharedDirectory\n"
        "folder = SharedDirectory(Path(sys.argv[1]), 10); folder.create_file(1)\n"
        "print(folder.path, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        left = Path(process.stdout.readline().strip())
        (tmp_path / "tessera-a-file").touch()
        (tmp_path / "somebody-elses").mkdir()
        living = SharedDirectory(tmp_path, 1)
        assert left.is_dir()  # its owner still lives
        process.send_signal(signal.SIGKILL)
        process.wait()
        SharedDirectory(tmp_path, 1).close()
        assert not left.exists()
        assert living.path.is_dir()
        living.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["somebody-elses", "tessera-a-file"]
