"""Files that outlive their names."""

import os
from pathlib import Path

import msgspec
import pytest

from model_executor.engine import MediaItem, Modality, RequestFailedError
from model_executor.engine_process.media_files import OpenMediaFiles


def write_item(directory: Path, modality: Modality) -> MediaItem:
    grid = (1, 2, 4)
    path = directory / modality
    path.write_bytes(os.urandom(8 * (588 if modality == "image" else 1176)))
    return MediaItem(modality, grid, 1, 2, "digest", str(path))


@pytest.mark.parametrize("modality", ["image", "video"])
def test_an_open_file_stays_readable_after_its_owner_deleted_it_until_it_is_closed(
    tmp_path: Path, modality: Modality
) -> None:
    item = write_item(tmp_path, modality)
    content = Path(item.path).read_bytes()
    files = OpenMediaFiles(tmp_path)
    (name,) = files.open([item])
    Path(item.path).unlink()
    assert Path(name).read_bytes() == content
    files.close([name])
    assert not Path(name).exists()


def test_nothing_stays_open_when_one_file_of_several_is_refused(tmp_path: Path) -> None:
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    good = write_item(tmp_path, "image")
    files = OpenMediaFiles(tmp_path)
    for bad in ("missing", "../elsewhere", "."):
        with pytest.raises(RequestFailedError):
            files.open([good, msgspec.structs.replace(good, path=str(tmp_path / bad))])
    with pytest.raises(RequestFailedError, match="bytes"):
        files.open([good, msgspec.structs.replace(good, modality="video")])
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before
