"""Patch rows against an element-by-element oracle and against transformers' own processor."""

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from model_executor.processor.geometry import Grid, Size, image_grid, smart_resize
from model_executor.processor.patches import row_bytes, write_image, write_video_frame
from server.media.decode.resize import resize

GRIDS = [Grid(1, 2, 2), Grid(1, 4, 6), Grid(1, 10, 2), Grid(2, 2, 4), Grid(3, 6, 4)]


def oracle(frames: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    """Rows of uint8 [F, H, W, 3] read off one patch after the other."""
    depth = len(frames) // grid.t
    rows = [
        frames[t * depth : (t + 1) * depth, 14 * h : 14 * h + 14, 14 * w : 14 * w + 14].transpose(3, 0, 1, 2).ravel()
        for t in range(grid.t)
        for token_h in range(grid.h // 2)
        for token_w in range(grid.w // 2)
        for h in (2 * token_h, 2 * token_h + 1)
        for w in (2 * token_w, 2 * token_w + 1)
    ]
    return np.stack(rows)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_clip_rows_equal_patches_read_off_one_by_one(grid: Grid) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2 * grid.t, 14 * grid.h, 14 * grid.w, 3), np.uint8)
    rows = np.zeros((grid.num_patches, row_bytes(2)), np.uint8)
    for index, frame in enumerate(frames):
        write_video_frame(rows, grid, index, frame)
    assert rows.shape[1] == 3 * 2 * 14 * 14
    assert np.array_equal(rows, oracle(frames, grid))


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid.t == 1], ids=str)
def test_picture_rows_equal_patches_read_off_one_by_one(grid: Grid) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (14 * grid.h, 14 * grid.w, 3), np.uint8)
    rows = np.zeros((grid.num_patches, row_bytes(1)), np.uint8)
    write_image(rows, grid, pixels)
    assert np.array_equal(rows, oracle(pixels[None], grid))


def test_still_clip_is_the_picture_twice() -> None:
    grid = Grid(1, 4, 6)
    pixels = np.random.default_rng(2).integers(0, 256, (14 * grid.h, 14 * grid.w, 3), np.uint8)
    still = np.zeros((grid.num_patches, row_bytes(1)), np.uint8)
    clip = np.zeros((grid.num_patches, row_bytes(2)), np.uint8)
    write_image(still, grid, pixels)
    write_video_frame(clip, grid, 0, pixels)
    write_video_frame(clip, grid, 1, pixels)
    halves = clip.reshape(-1, 3, 2, 196)
    assert np.array_equal(halves[:, :, 0].reshape(still.shape), still)
    assert np.array_equal(halves[:, :, 1].reshape(still.shape), still)


def test_memory_layout_of_the_pixels_does_not_matter() -> None:
    grid = Grid(1, 4, 6)
    pixels = np.random.default_rng(3).integers(0, 256, (56, 84, 3), np.uint8)
    planar = np.moveaxis(np.ascontiguousarray(np.moveaxis(pixels, -1, 0)), 0, -1)
    turned = np.ascontiguousarray(pixels.swapaxes(0, 1)).swapaxes(0, 1)
    for same in (planar, turned, np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1]):
        rows = np.zeros((grid.num_patches, row_bytes(1)), np.uint8)
        write_image(rows, grid, same)
        assert np.array_equal(rows, oracle(pixels[None], grid))


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea", "rocket"])
def test_photo_becomes_what_transformers_makes_of_it(photo: str) -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    pixels = getattr(skimage.data, photo)()
    limits = {"min_pixels": 3136, "max_pixels": 12_845_056}
    processor = module.Qwen2VLImageProcessorPil(do_rescale=False, do_normalize=False, **limits)
    expected = processor(images=[Image.fromarray(pixels)], return_tensors="np")

    size: Size = smart_resize(*pixels.shape[:2], **limits)
    grid = image_grid(size)
    rows = np.zeros((grid.num_patches, row_bytes(1)), np.uint8)
    write_image(rows, grid, resize(Image.fromarray(pixels), size))

    assert expected["image_grid_thw"].tolist() == [[1, grid.h, grid.w]]
    twice = np.repeat(rows.reshape(-1, 3, 1, 196), 2, axis=2).reshape(len(rows), -1)
    assert np.abs(expected["pixel_values"] - twice).mean() <= 1
