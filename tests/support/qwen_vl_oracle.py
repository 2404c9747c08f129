# mypy: allow-untyped-calls
"""The independent side of Qwen-VL's tests: the model in plain float64, straight from its description.

No line of it is shared with the project. Everything is computed anew for every token, with no cache of keys: what a
cache must not change is what is tested. The ids of a prompt are tiktoken's own.
"""

import base64
import json
import math
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import tiktoken
import torch
from PIL import Image
from torch.nn import functional

from tests.support.oracle import MEAN, STD, Answer, Still, Turn, resized_still

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT, IM_START, IM_END, REF, IMG, IMG_END, PAD = 151643, 151644, 151645, 151851, 151857, 151858, 151859
TAGS = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
SPECIAL = {
    "<|endoftext|>": END_OF_TEXT,
    "<|im_start|>": IM_START,
    "<|im_end|>": IM_END,
    "<img>": IMG,
    "</img>": IMG_END,
}
SPECIAL |= {tag: REF + number for number, tag in enumerate(TAGS)} | {"<imgpad>": PAD}
SPECIAL |= {f"<|extra_{number}|>": 151646 + number for number in range(205)}


class QwenVLOracle:
    """Qwen-VL in float64.

    Args:
        model: checkpoint folder.
    """

    def __init__(self, model: Path) -> None:
        """Read it."""
        torch.set_num_threads(1)
        self.folder = model
        self.config = json.loads((model / "config.json").read_text())
        stored = torch.load(model / "pytorch_model.bin", weights_only=True)
        self.weights: dict[str, torch.Tensor] = {name: value.double() for name, value in stored.items()}
        lines = (model / "qwen.tiktoken").read_bytes().splitlines()
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
        self.encoding = tiktoken.Encoding("qwen", pat_str=SPLIT, mergeable_ranks=ranks, special_tokens=SPECIAL)
        self.is_chat = json.loads((model / "generation_config.json").read_text())["chat_format"] == "chatml"

    @torch.inference_mode()
    def answer(self, turns: list[Turn], max_tokens: int) -> Answer:
        """The most likely token, `max_tokens` times over, end tokens included."""
        ids, pictures = self.prompt(turns)
        features = [self.features(picture) for picture in pictures]
        generated: list[int] = []
        logprobs = []
        for _ in range(max_tokens):
            logits = self.logits([*ids, *generated], features, num_prompt_tokens=len(ids))
            distribution = logits.log_softmax(-1)
            generated.append(int(distribution.argmax()))
            logprobs.append(float(distribution.max()))
        return Answer(generated, [self.decode([id_]) for id_ in generated], logprobs, len(ids))

    def decode(self, ids: list[int]) -> str:
        """What ids stand for."""
        return self.encoding.decode(ids)

    def prompt(self, turns: list[Turn]) -> tuple[list[int], list[Image.Image]]:
        """Ids, and the pictures in order."""
        pictures: list[Image.Image] = []
        if self.is_chat and turns[0][0] != "system":
            turns = [("system", ["You are a helpful assistant."]), *turns]
        ids: list[int] = []
        for role, parts in turns:
            body: list[int] = []
            text = ""
            for part in parts:
                if isinstance(part, str):
                    text += part
                    continue
                assert isinstance(part, Still)
                pictures.append(part.picture.convert("RGB"))
                body += [*self._plain(f"{text}Picture {len(pictures)}: "), IMG, *[PAD] * 256, IMG_END]
                text = "\n"
            body += self._plain(text)
            ids += [IM_START, *self._plain(f"{role}\n"), *body, IM_END, *self._plain("\n")] if self.is_chat else body
        return ids + [IM_START, *self._plain("assistant\n")] if self.is_chat else ids, pictures

    def _plain(self, text: str) -> list[int]:
        normal = unicodedata.normalize("NFC", text)
        return self.encoding.encode(normal, allowed_special=set(TAGS), disallowed_special=())

    def pixels(self, picture: Image.Image) -> torch.Tensor:
        """[448, 448, 3], normalized; stretched as the server scales (how far that is from Pillow is tested there)."""
        values = np.asarray(resized_still(picture, 448, 448) if picture.size != (448, 448) else picture, np.float64)
        return torch.from_numpy((values / 255 - MEAN) / STD)

    @torch.inference_mode()
    def features(self, picture: Image.Image) -> torch.Tensor:
        """The 256 embeddings of a picture."""
        shape, weights = self.config["visual"], self.weights
        tower = "transformer.visual."
        width, heads = shape["width"], shape["heads"]
        x = functional.conv2d(self.pixels(picture).permute(2, 0, 1)[None], weights[f"{tower}conv1.weight"], stride=14)
        x = x[0].flatten(1).T + widened(weights[f"{tower}positional_embedding"])
        x = self._norm(x, f"{tower}ln_pre")
        for number in range(shape["layers"]):
            block = f"{tower}transformer.resblocks.{number}."
            mixed = self._linear(self._norm(x, f"{block}ln_1"), f"{block}attn.in_proj")
            q, k, v = mixed.view(1024, heads, 3, width // heads).permute(2, 1, 0, 3)
            x = x + self._linear(attended(q, k, v).transpose(0, 1).flatten(1), f"{block}attn.out_proj")
            inner = self._linear(self._norm(x, f"{block}ln_2"), f"{block}mlp.c_fc")
            x = x + self._linear(inner / 2 * (1 + torch.erf(inner / math.sqrt(2))), f"{block}mlp.c_proj")
        pool = f"{tower}attn_pool."
        values = self._norm(x @ weights[f"{pool}kv_proj.weight"].T, f"{pool}ln_kv")
        places = weights[f"{pool}pos_embed"]
        given = (self._norm(weights[f"{pool}query"], f"{pool}ln_q") + places, values + widened(places), values)
        sides = zip(
            given,
            weights[f"{pool}attn.in_proj_weight"].chunk(3),
            weights[f"{pool}attn.in_proj_bias"].chunk(3),
            strict=True,
        )
        q, k, v = ((z @ w.T + b).unflatten(1, (-1, 128)).transpose(0, 1) for z, w, b in sides)
        pooled = self._linear(attended(q, k, v).transpose(0, 1).flatten(1), f"{pool}attn.out_proj")
        return self._norm(pooled, f"{tower}ln_post") @ weights[f"{tower}proj"]

    def logits(self, ids: list[int], features: list[torch.Tensor], *, num_prompt_tokens: int) -> torch.Tensor:
        """Of the token after `ids`."""
        config, weights = self.config, self.weights
        x = weights["transformer.wte.weight"][ids].clone()
        starts = [index + 1 for index, id_ in enumerate(ids) if id_ == IMG]
        for start, own in zip(starts, features, strict=True):
            x[start : start + 256] = own
        num_tokens, trained = len(ids), config["seq_length"]
        growth = max(1, 2 ** math.ceil(math.log2(num_prompt_tokens / trained) + 1) - 1)
        base = config["rotary_emb_base"] * growth ** (128 / 126)
        angles = torch.arange(num_tokens).double()[:, None] / base ** (torch.arange(0, 128, 2).double() / 128)
        counts = torch.arange(1, num_tokens + 1).double()
        scale = torch.where(counts > trained, counts.log() / math.log(trained), 1.0)[:, None, None]
        for number in range(config["num_hidden_layers"]):
            layer = f"transformer.h.{number}."
            mixed = self._linear(self._rms(x, f"{layer}ln_1"), f"{layer}attn.c_attn")
            q, k, v = (part.unflatten(1, (-1, 128)) for part in mixed.chunk(3, dim=1))
            q, k = turned(q, angles) * scale, turned(k, angles)
            heads = attended(*(part.transpose(0, 1) for part in (q, k, v)), causal=True)
            x = x + heads.transpose(0, 1).flatten(1) @ weights[f"{layer}attn.c_proj.weight"].T
            normed = self._rms(x, f"{layer}ln_2")
            gate = normed @ weights[f"{layer}mlp.w2.weight"].T
            up = normed @ weights[f"{layer}mlp.w1.weight"].T
            x = x + (up * gate / (1 + torch.exp(-gate))) @ weights[f"{layer}mlp.c_proj.weight"].T
        return weights["lm_head.weight"] @ self._rms(x[-1:], "transformer.ln_f")[0]

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        centered = x - x.mean(-1, keepdim=True)
        scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _rms(self, x: torch.Tensor, name: str) -> torch.Tensor:
        size = (x.square().mean(-1, keepdim=True) + self.config["layer_norm_epsilon"]).sqrt()
        normed: torch.Tensor = x / size * self.weights[f"{name}.weight"]
        return normed


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool = False) -> torch.Tensor:
    """Softmax attention of [heads, tokens, dimensions]."""
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), -math.inf)
    return scores.softmax(-1) @ v


def turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Each pair of the first and second half of a head rotated by its angle."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@cache
def cubic() -> torch.Tensor:
    """[32, 16]: each of 32 places as a bicubic mixture of 16, edges repeated (Keys 1981 with a = -0.75)."""
    matrix = torch.zeros(32, 16, dtype=torch.float64)
    for place in range(32):
        center = (place + 0.5) / 2 - 0.5
        first = math.floor(center) - 1
        for source in range(first, first + 4):
            d, a = abs(center - source), -0.75
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            matrix[place, min(max(source, 0), 15)] += near if d <= 1 else far
    return matrix


def widened(table: torch.Tensor) -> torch.Tensor:
    """A table of 16 x 16 places as one of 32 x 32, [1024, width]."""
    grid = table.view(16, 16, -1)
    return torch.einsum("ai,bj,ijc->abc", cubic(), cubic(), grid).flatten(0, 1)
