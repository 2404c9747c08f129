"""Placeholders against grids, and files that outlive their names."""

import os
from pathlib import Path

import msgspec
import pytest

from model_executor.engine import MediaItem, Modality, Prompt, RequestFailedError
from model_executor.engine_process.media_files import OpenMediaFiles, check_placeholders

PLACEHOLDERS: dict[Modality, int] = {"image": 7, "video": 8}


def item(folder: Path, modality: Modality = "image", grid: tuple[int, int, int] = (1, 2, 4)) -> MediaItem:
    num_patches = grid[0] * grid[1] * grid[2]
    path = folder / f"{modality}-{num_patches}"
    path.write_bytes(os.urandom(num_patches * (588 if modality == "image" else 1176)))
    return MediaItem(modality, grid, 1, num_patches // 4, "digest", str(path))


def test_agreeing_prompt_passes(tmp_path: Path) -> None:
    first = item(tmp_path)
    second = msgspec.structs.replace(item(tmp_path, "video", (2, 2, 4)), offset=4)
    check_placeholders(Prompt([1, 7, 7, 2, 8, 8, 8, 8, 3], [first, second]), PLACEHOLDERS)
    check_placeholders(Prompt([1, 2, 3]), PLACEHOLDERS)


@pytest.mark.parametrize(
    "token_ids",
    [
        [1, 7, 2],  # one short
        [1, 7],  # cut off
        [1, 7, 7, 7],  # one too many
        [7, 7, 1, 1],  # elsewhere
        [1, 8, 8, 1],  # of the other kind
        [1, 7, 7, 1, 8],  # one of the other kind too many
    ],
)
def test_disagreeing_prompt_fails(tmp_path: Path, token_ids: list[int]) -> None:
    with pytest.raises(RequestFailedError):
        check_placeholders(Prompt(token_ids, [item(tmp_path)]), PLACEHOLDERS)


def test_overlapping_media_fail(tmp_path: Path) -> None:
    first = item(tmp_path)
    with pytest.raises(RequestFailedError):
        check_placeholders(Prompt([1, 7, 7, 7], [first, msgspec.structs.replace(first, offset=2)]), PLACEHOLDERS)


def test_held_file_stays_readable_after_its_owner_deleted_it_and_goes_on_release(tmp_path: Path) -> None:
    media = item(tmp_path)
    content = Path(media.path).read_bytes()
    held = OpenMediaFiles(tmp_path)
    (name,) = held.hold([media])
    Path(media.path).unlink()
    assert Path(name).read_bytes() == content
    held.release([name])
    assert not Path(name).exists()


def test_nothing_stays_open_when_one_file_of_several_is_refused(tmp_path: Path) -> None:
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    good = item(tmp_path)
    held = OpenMediaFiles(tmp_path)
    for bad in ("missing", "../elsewhere", "."):
        with pytest.raises(RequestFailedError):
            held.hold([good, msgspec.structs.replace(good, path=str(tmp_path / bad))])
    with pytest.raises(RequestFailedError, match="bytes"):
        held.hold([good, msgspec.structs.replace(good, modality="video")])
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before
