"""What vLLM asks the model class before any request: formats, limits, dummy media, positions."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model_executor.processor.geometry import Grid
from tests.support.oracle import literal_positions

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("vllm_imported")]


def test_float16_is_refused_with_the_reason() -> None:
    from model_executor.models.qwen2_vl.model import Qwen2VL

    with pytest.raises(ValueError, match="overflows in float16"):
        Qwen2VL(vllm_config=SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float16)))


def test_sections_that_do_not_fit_the_heads_are_refused() -> None:
    from model_executor.models.shared.text import TextRotary

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = SimpleNamespace(rope_parameters=rope, hidden_size=256, num_attention_heads=4)
    with pytest.raises(ValueError, match="mrope_section"):
        TextRotary(config, 64, None)


def test_dummy_media_are_of_the_largest_size_and_readable() -> None:
    from model_executor.models.shared import processing

    context: Any = SimpleNamespace(model_config=SimpleNamespace(max_model_len=1000))
    info = processing.ProcessingInfo(context)
    info.get_data_parser = lambda: None
    inputs = processing.Processor(info, None).get_dummy_mm_inputs({"image": 1, "video": 1})
    for modality in ("image", "video"):
        (item,), (place,) = inputs["mm_kwargs"][modality], inputs["mm_placeholders"][modality]
        grid = processing.item_grid(item["grid"].data)
        assert grid.num_tokens == place.length == 1000
        rows = processing.map_patches(processing.item_path(item["path"].data), grid)
        assert rows.shape == (4000, 588) and not rows.any()


def test_media_items_come_back_as_they_went_in() -> None:
    from model_executor.models.shared.processing import item_grid, item_path, media_item

    item = media_item("/dev/shm/tessera-1/ä", Grid(3, 4, 6))
    assert item_path(item["path"].data) == "/dev/shm/tessera-1/ä"
    assert item_grid(item["grid"].data) == Grid(3, 4, 6)


def test_positions_equal_a_literal_reading_of_the_paper() -> None:
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

    from model_executor.models.qwen2_vl.model import Qwen2VL
    from model_executor.models.shared.processing import media_item

    ids = [1, 2, *[7] * 6, 3, *[8] * 20, 4, 5]
    grids = [(1, 4, 6), (10, 2, 4)]
    features = [
        MultiModalFeatureSpec(media_item("x", Grid(*grid)), "image", "id", PlaceholderRange(offset=offset, length=n))
        for grid, offset, n in ((grids[1], 9, 20), (grids[0], 2, 6))
    ]
    model: Any = SimpleNamespace(time_ids_per_s=None)
    positions, delta = Qwen2VL.get_mrope_input_positions(model, ids, features)
    expected = literal_positions(ids, grids, (7, 8))
    assert np.array_equal(positions.numpy(), expected)
    assert delta == expected.max() + 1 - len(ids)
