"""The recipe of `tessera-tiny`: every hyper-parameter of the bundled model, and nothing else.

The three stages follow section 2.3 of the Qwen2-VL report (arXiv 2409.12191), with one difference that is forced on us.
The paper starts from a trained language model and a trained vision transformer; here both start from nothing. So a
stage 0 before the paper's first warms up the vision tower, by naming what each of its tokens shows; and in stage 1 the
language model learns to speak while the vision tower goes on learning to see, so stage 1 trains all parts. Stage 2
widens the mix as in the paper, and then comes to rest; stage 3 freezes the vision tower and tunes the rest, as in the
paper.

What was learnt on the way: a model of this size sits at chance on one-word answers for a long time, and learns to look
from dense ones. So captions and reading come first, and a picture is asked about many times at once. Where a token lies
is told by M-RoPE alone, which a small model is slow to find out, so it is asked for directly ("placing"), and so is
finding what a question is about ("pointing"). And whether a thing is found by its name is a matter of theta and of the
sections: see `Shape`.
"""

from dataclasses import dataclass, field, replace

SEED = 20_240_918
SizeMix = tuple[float, float, float, float]
"""Shares of small, medium, large and narrow images."""


@dataclass(frozen=True)
class Shape:
    """The model's shape, in the words of its `config.json`."""

    vocab_size: int = 1280
    hidden_size: int = 192
    num_layers: int = 6
    num_heads: int = 6
    num_kv_heads: int = 2
    intermediate_size: int = 512
    mrope_section: tuple[int, int, int] = (2, 4, 10)
    """Rotary pairs of time, height and width; half of the head dimension (32) in all."""
    rope_theta: float = 200.0
    """Low, because positions here are small: with the release's million the width axis would hardly turn at all. But
    not lower: pairs that hardly turn are what finds a thing by its name, however far the question is from the image.
    With few pairs for time and many for width, both kinds are there."""
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 20_480
    vision_depth: int = 6
    vision_size: int = 128
    vision_heads: int = 4
    vision_mlp_ratio: int = 4
    vision_rope_theta: float = 10_000.0
    """Fixed by the architecture."""


@dataclass(frozen=True)
class SizeLimits:
    """Pixel limits the model is trained within; its `preprocessor_config.json` says the same.

    Small images are enlarged and large ones shrunk to nearly one size, so that a thing looks alike in all of them.
    """

    image_min_pixels: int = 49 * 784
    image_max_pixels: int = 64 * 784
    video_min_pixels: int = 16 * 784
    video_max_pixels: int = 20 * 784


@dataclass(frozen=True)
class Capacity:
    """The shape of a batch (`training/batch.py`): samples are drawn until it is full."""

    bins: int
    """Rows of tokens; a sample lies in one of them."""
    bin_tokens: int
    windows: int
    """Rows of patches; a temporal slice lies in one of them."""
    window_patches: int
    bin_queries: int
    """Tokens of a bin that point."""
    answers: int
    """Answer tokens."""
    media: int

    @property
    def num_patches(self) -> int:
        """Patches in all windows."""
        return self.windows * self.window_patches


def capacity(bins: int, windows: int) -> Capacity:
    """A batch of that many bins of 512 tokens and windows of 256 patches (an image of 224 x 224 px)."""
    return Capacity(bins, 512, windows, 256, bin_queries=128, answers=bins * 200, media=bins * 8)


FULL_BATCH = capacity(bins=96, windows=264)


@dataclass(frozen=True)
class Optimizer:
    """Muon for the inner matrices, AdamW for all else; rates are multiplied by the stage's."""

    muon_lr: float = 0.012
    muon_momentum: float = 0.95
    muon_steps: int = 4
    """Newton-Schulz iterations."""
    adam_lr: float = 0.0015
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    """Per step, times the rate; inner matrices only."""
    max_gradient: float = 1.0
    """Gradients are scaled down to this norm."""
    warmup_steps: int = 30


@dataclass(frozen=True)
class Stage:
    """One row of the recipe."""

    name: str
    frozen: tuple[str, ...]
    """Prefixes of the weights that do not train."""
    steps: int
    lr: tuple[float, float, float]
    """Rate multiplier at the start, share of the steps it is held for, and at the end; falls linearly."""
    samples: dict[str, float]
    """Shares of the kinds of sample."""
    questions: dict[str, float]
    """How many questions of each kind are asked about a scene, on average."""
    sizes: SizeMix = (0.3, 0.45, 0.08, 0.17)
    """Shares of small, medium, large and narrow images."""
    things: tuple[float, ...] = (0.2, 2, 2, 2, 2, 1.5, 1, 1, 1)
    """Weights of scenes with no, one, two, … things."""
    neat: float = 0.12
    """Share of scenes of filled things in ninths of the image on a plain background."""
    letters: tuple[float, ...] = (1, 2, 3, 3, 3, 3, 2, 1)
    """Weights of words with one, two, … letters; for numbers, of as many digits, up to six."""
    batch: Capacity = FULL_BATCH
    answers: bool = True
    """Whether the language model takes part; without it only naming trains."""
    naming: float = 0.0
    """Weight of naming, token by token, what the vision tower sees; 0 for no such loss."""
    placing: float = 0.0
    """Weight of telling, token by token, where in its media item a token lies; 0 for no such loss."""
    pointing: float = 0.0
    """Weight of pointing at what is about to be told of; 0 for no such loss."""
    boxing: float = 0.0
    """Weight of telling where the edges of things are; 0 for no such loss."""
    words: float = 0.65
    """Share of words, against numbers, among printed text."""
    video_frames: tuple[int, int] = (4, 40)
    """Fewest and most frames of a video, two a second."""
    videos: dict[str, float] = field(
        default_factory=lambda: {"motion": 0.25, "appearance": 0.33, "change": 0.17, "blinking": 0.12, "cuts": 0.13}
    )
    """Shares of the kinds of video."""
    twins: float = 0.6
    """Share of pairs of one thing each, to compare, among several images."""
    chinese: float = 0.15
    """Share of questions about scenes that are asked in Chinese, where they can be."""
    systems: float = 0.0
    """Share of samples with a system turn of their own."""
    turns: float = 0.0
    """Share of samples in which one or two turns about the same media come before each question."""


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    stages: tuple[Stage, ...]
    shape: Shape = field(default_factory=Shape)
    limits: SizeLimits = field(default_factory=SizeLimits)
    optimizer: Optimizer = field(default_factory=Optimizer)
    seed: int = SEED
    vocabulary_samples: int = 8000
    """Samples whose texts the tokenizer is trained on."""


_SCENES = {
    "caption": 1.6,
    "color": 1.2,
    "shape": 1.2,
    "position": 1.5,
    "size": 0.6,
    "count": 2.5,
    "what is at": 0.9,
    "exists": 0.9,
    "grounding": 3.0,
    "form": 1.0,
    "background": 0.6,
    "outside": 0.2,
}

NAME = Stage(
    name="0 name",
    frozen=("model.", "lm_head."),
    steps=450,
    lr=(1.0, 1.0, 1.0),
    samples={"scene": 0.6, "reading": 0.35, "handwriting": 0.05},
    questions={"background": 1.0},
    things=(0, 0, 1, 1, 2, 2, 2, 2, 2),
    answers=False,
    naming=1.0,
    batch=capacity(bins=56, windows=264),
)
SEE = Stage(
    name="1 see",
    frozen=(),
    steps=900,
    lr=(1.0, 1.0, 1.0),
    samples={"scene": 0.62, "reading": 0.32, "handwriting": 0.06},
    questions={**_SCENES, "form": 0.0, "outside": 0.0},
    naming=1.0,
    placing=0.5,
    pointing=0.5,
    boxing=0.3,
    letters=(3, 3, 3, 2, 1, 1),
    batch=capacity(bins=96, windows=184),
)
UNDERSTAND = Stage(
    name="2 understand",
    frozen=(),
    steps=1242,
    lr=(1.0, 1.0, 1.0),
    samples={
        "scene": 0.41,
        "reading": 0.22,
        "handwriting": 0.05,
        "video": 0.17,
        "pair": 0.07,
        "talk": 0.03,
        "outside": 0.05,
    },
    questions=_SCENES,
    systems=0.05,
    turns=0.1,
    naming=0.3,
    placing=0.1,
    pointing=0.3,
    boxing=0.3,
)
SETTLE = replace(
    UNDERSTAND,
    name="2 settle",
    steps=1585,
    lr=(1.0, 0.0, 0.02),
    naming=0.15,
    placing=0.05,
)
"""Stage 2 comes to rest: the rate falls."""
TALK = replace(
    UNDERSTAND,
    name="3 talk",
    frozen=("visual.",),
    steps=144,
    lr=(0.05, 0.0, 0.0),
    samples={**UNDERSTAND.samples, "talk": 0.1, "outside": 0.08},
    naming=0.0,
    placing=0.0,
    pointing=0.0,
    boxing=0.0,
    systems=0.2,
    turns=0.3,
)

FULL = Recipe(stages=(NAME, SEE, UNDERSTAND, SETTLE, TALK))

_SMALL = capacity(bins=4, windows=10)
QUICK = Recipe(
    stages=tuple(
        replace(stage, steps=steps, batch=_SMALL, things=(0, 1), letters=(1,))
        for stage, steps in ((NAME, 40), (SEE, 60), (UNDERSTAND, 20), (SETTLE, 10), (TALK, 10))
    ),
    optimizer=Optimizer(warmup_steps=10),
    vocabulary_samples=1500,
)
"""The same path in minutes; its model knows next to nothing."""
