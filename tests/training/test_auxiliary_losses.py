"""What is asked of the model beside its answers: that a perfect answer costs nothing, and what the truth is."""

import numpy as np
import pytest
import torch
from torch import Tensor

from model_executor.processor.tokenizer import Tokenizer
from training.auxiliary_losses import BOXING_LAYERS, POINTING_LAYER, Boxing
from training.batch import Batch, collate, encode
from training.recipe import QUICK
from training.sample import Asked, Medium, Region, converse

WIDTH, HEIGHT = 112, 84
REGION = Region(56, 14, 98, 56, "red", "circle")


@pytest.fixture
def batch(tokenizer: Tokenizer) -> Batch:
    medium = Medium("image", (np.zeros((HEIGHT, WIDTH, 3), np.uint8),), (REGION,))
    asked = [Asked("grounding", "?", "<|box_start|>(500,160),(870,660)<|box_end|>", ((0, 0),))]
    return collate([encode(converse((medium,), asked, system=None, media_first=True), tokenizer, QUICK.limits)])


def layers(batch: Batch, edges: tuple[float, ...], shares: tuple[float, ...]) -> tuple[Boxing, list[Tensor]]:
    """A `Boxing` that reads the first four numbers of each token, and layers that hold those given."""
    boxing = Boxing(QUICK.shape)
    made = [torch.zeros(len(batch.token_ids), QUICK.shape.hidden_size) for _ in range(QUICK.shape.num_layers + 1)]
    with torch.no_grad():
        for head in (boxing.edges, boxing.shares):
            head.bias.zero_()
            head.weight[:, :4] = torch.eye(4)
    made[POINTING_LAYER][:, :4] = torch.tensor(edges)
    made[BOXING_LAYERS][:, :4] = torch.tensor(shares)
    return boxing, made


def test_edges_are_in_merged_patches_and_shares_of_the_picture(batch: Batch) -> None:
    edges = (REGION.left / 28, REGION.top / 28, REGION.right / 28, REGION.bottom / 28)
    shares = (REGION.left / WIDTH, REGION.top / HEIGHT, REGION.right / WIDTH, REGION.bottom / HEIGHT)
    boxing, made = layers(batch, edges, shares)
    loss, error = boxing(batch, made)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert error == pytest.approx(0, abs=1e-6)
    off = (edges[0], edges[1], edges[2], edges[3] + 1)
    boxing, made = layers(batch, off, shares)
    assert boxing(batch, made)[0].item() > 0.2


def test_a_box_is_pointed_at_all_along_its_answer(batch: Batch) -> None:
    assert batch.pointing.tolist() == batch.answer_index.tolist()
    assert len(batch.pointing) > 10
    assert (batch.pointed == batch.pointed[0]).all()
