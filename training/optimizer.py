"""Muon for the matrices inside (the patch embedding is one), AdamW for embeddings, heads, norms and biases.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (the quintic Newton-Schulz
coefficients and the step's scale); Loshchilov and Hutter 2019 for AdamW.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from training.recipe import Optimizer as Rates

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NAME = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv", "proj", "fc1", "fc2"}


class Optimizer:
    """Both optimizers over some models, all on one device. Weights whose gradient is None stay as they are."""

    def __init__(self, *models: nn.Module, rates: Rates, dtype: torch.dtype = torch.float32) -> None:
        """Start from nothing.

        Args:
            models: whose weights to step.
            rates: the recipe's.
            dtype: what matrices are made orthogonal in.
        """
        self.rates, self.dtype = rates, dtype
        named = {f"{i}.{name}": weight for i, model in enumerate(models) for name, weight in model.named_parameters()}
        self.matrices = {name: weight for name, weight in named.items() if _is_matrix(name, weight)}
        self.momenta = {name: torch.zeros_like(weight) for name, weight in self.matrices.items()}
        self.others = [weight for name, weight in named.items() if name not in self.matrices]
        device = self.others[0].device
        self.scale = torch.zeros((), device=device)
        """What the rates are multiplied by in the next step; on the device, so that a recorded step can read it."""
        self.adam = torch.optim.AdamW(
            self.others,
            torch.tensor(rates.adam_lr, device=device),
            rates.adam_betas,
            weight_decay=0.0,
            fused=True,
            capturable=device.type == "cuda",
        )

    def step(self) -> None:
        """Step every weight that has a gradient, and drop the gradients."""
        for group in self.adam.param_groups:
            torch.mul(self.scale, self.rates.adam_lr, out=group["lr"])
        self.adam.step()
        self._step_matrices(self.scale * self.rates.muon_lr)
        for weight in [*self.matrices.values(), *self.others]:
            weight.grad = None

    @torch.no_grad()
    def _step_matrices(self, rate: Tensor) -> None:
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, weight in self.matrices.items():
            if weight.grad is None:
                continue
            momentum = self.momenta[name].lerp_(weight.grad, 1 - self.rates.muon_momentum)
            update = weight.grad.lerp(momentum, self.rates.muon_momentum).flatten(1)  # Nesterov
            parts = 3 if name.endswith("qkv.weight") else 1  # query, key and value are matrices of their own
            for target, direction in zip(weight.flatten(1).chunk(parts), update.chunk(parts), strict=True):
                by_shape[direction.shape[0], direction.shape[1]].append((target, direction))
        for (rows, columns), pairs in by_shape.items():
            steps = orthogonal(torch.stack([direction for _, direction in pairs]), self.rates.muon_steps, self.dtype)
            steps = steps * (rate * max(1.0, rows / columns) ** 0.5)
            targets = [target for target, _ in pairs]
            torch._foreach_mul_(targets, 1 - rate * self.rates.weight_decay)
            torch._foreach_sub_(targets, list(steps.unbind()))

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        for name, momentum in state["momenta"].items():
            self.momenta[name].copy_(momentum)
        lr = self.adam.param_groups[0]["lr"]
        self.adam.load_state_dict(state["adam"])
        self.adam.param_groups[0]["lr"] = lr


def orthogonal(matrices: Tensor, steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrices [B, m, n], roughly: singular values come out between 0.7 and 1.2."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    x = x.to(matrices.dtype)
    return x.mT if tall else x


def _is_matrix(name: str, weight: Tensor) -> bool:
    """Inner matrices; the merger's square one is left out, since it alone would cost a third of all the others."""
    return weight.ndim > 1 and (name.split(".")[-2] in _NAME or name.endswith("merger.mlp.2.weight"))
