"""What is asked of the model beside its answers: that a perfect answer costs nothing, and what the truth is."""

import numpy as np
import pytest
import torch
from torch import Tensor

from model_executor.processor.tokenizer import Tokenizer
from training.auxiliary_losses import BOX_LAYERS, POINTING_LAYER, BoxLoss
from training.batch import Batch
from training.encode import encode
from training.pack import collate, room_for
from training.recipe import QUICK
from training.sample import Asked, Media, Region, converse

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 224, 168
REGION = Region(112, 28, 196, 112, "red", "circle")


@pytest.fixture
def batch(tokenizer: Tokenizer) -> Batch:
    item = Media("image", (np.zeros((HEIGHT, WIDTH, 3), np.uint8),), (REGION,))
    asked = [Asked("grounding", "?", "<|box_start|>(500,160),(870,660)<|box_end|>", ((0, 0),))]
    encoded = encode(converse((item,), asked, system=None, media_first=True), tokenizer, QUICK.limits)
    return collate([encoded], room_for([encoded]))[0]


def layers(batch: Batch, edges: tuple[float, ...], shares: tuple[float, ...]) -> tuple[BoxLoss, list[Tensor]]:
    """A `BoxLoss` that reads the first four numbers of each token, and layers that hold those given."""
    boxes = BoxLoss(QUICK.shape)
    shape = (*batch.token_ids.shape, QUICK.shape.hidden_size)
    made = [torch.zeros(shape) for _ in range(QUICK.shape.num_layers + 1)]
    with torch.no_grad():
        for head in (boxes.edges, boxes.shares):
            head.bias.zero_()
            head.weight[:, :4] = torch.eye(4)
    made[POINTING_LAYER][..., :4] = torch.tensor(edges)
    made[BOX_LAYERS][..., :4] = torch.tensor(shares)
    return boxes, made


def test_edges_are_in_merged_patches_and_shares_of_the_image(batch: Batch) -> None:
    down, across = int(batch.sizes[0, 0]) / HEIGHT, int(batch.sizes[1, 0]) / WIDTH
    edges = (REGION.left * across, REGION.top * down, REGION.right * across, REGION.bottom * down)
    shares = (REGION.left / WIDTH, REGION.top / HEIGHT, REGION.right / WIDTH, REGION.bottom / HEIGHT)
    boxes, made = layers(batch, edges, shares)
    loss, error = boxes(batch, made)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert error.item() == pytest.approx(0, abs=1e-6)
    boxes, made = layers(batch, (*edges[:3], edges[3] + 1), shares)
    assert boxes(batch, made)[0].item() > 0.2


def test_a_box_is_pointed_at_all_along_its_answer(batch: Batch) -> None:
    number = int(batch.query_weights.sum())
    assert batch.queries[0, :number].tolist() == batch.answer_index[:number].tolist()
    assert number == len(batch.answer_ids) > 10
    assert (batch.query_owners[0, :number] == batch.query_owners[0, 0]).all()
