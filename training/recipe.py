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

from training.sample import SizeMix

SEED = 20_240_918


@dataclass(frozen=True)
class Shape:
    """The model's shape, in the words of its `config.json`."""

    vocab_size: int = 896
    hidden_size: int = 192
    num_layers: int = 6
    num_heads: int = 6
    num_kv_heads: int = 2
    intermediate_size: int = 512
    mrope_section: tuple[int, int, int] = (2, 4, 10)
    """Rotary pairs of time, height and width; half of the head dimension (32) in all."""
    rope_theta: float = 200.0
    """Low, because positions here are small: with the release's million the width axis would hardly turn at all. But
    not lower: pairs that hardly turn are what finds a thing by its name, however far the question is from the picture.
    With few pairs for time and many for width, both kinds are there."""
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 20_480
    vision_depth: int = 4
    vision_size: int = 128
    vision_heads: int = 4
    vision_mlp_ratio: int = 4
    vision_rope_theta: float = 10_000.0
    """Fixed by the architecture."""


@dataclass(frozen=True)
class Limits:
    """Pixel limits the model is trained within; its `preprocessor_config.json` says the same."""

    image_min_pixels: int = 9 * 784
    image_max_pixels: int = 64 * 784
    video_min_pixels: int = 9 * 784
    video_max_pixels: int = 20 * 784


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
    sizes: SizeMix
    """Shares of small, medium, large and narrow pictures."""
    things: tuple[float, ...] = (2, 1, 1, 1, 1, 1)
    """Weights of scenes with one, two, … things."""
    backgrounds: tuple[float, float, float] = (5, 2, 3)
    """Weights of white, black and gray backgrounds of scenes."""
    letters: tuple[float, ...] = (2, 2, 3, 3, 2, 2)
    """Weights of words with one, two, … letters; for numbers, of as many digits, up to four."""
    batch_samples: int = 32
    answers: bool = True
    """Whether the language model takes part; without it only naming trains."""
    naming: float = 0.0
    """Weight of naming, token by token, what the vision tower sees; 0 for no such loss."""
    placing: float = 0.0
    """Weight of telling, token by token, where in its medium a token lies; 0 for no such loss."""
    pointing: float = 0.0
    """Weight of pointing at what is about to be told of; 0 for no such loss."""
    boxing: float = 0.0
    """Weight of telling where the edges of things are; 0 for no such loss."""
    words: float = 0.4
    """Share of words, against numbers, among printed text."""
    clip_frames: tuple[int, int] = (4, 10)
    """Fewest and most frames of a clip."""
    clips: dict[str, float] = field(
        default_factory=lambda: {"motion": 0.35, "appearance": 0.35, "change": 0.15, "blinking": 0.15}
    )
    """Shares of the kinds of clip."""
    twins: float = 0.6
    """Share of pairs of one thing each, to compare, among several pictures."""
    systems: float = 0.0
    """Share of samples with a system turn of their own."""
    turns: float = 0.0
    """Share of samples in which one or two turns about the same media come before each question."""


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    stages: tuple[Stage, ...]
    shape: Shape = field(default_factory=Shape)
    limits: Limits = field(default_factory=Limits)
    optimizer: Optimizer = field(default_factory=Optimizer)
    seed: int = SEED
    vocabulary_samples: int = 4000
    """Samples whose texts the tokenizer is trained on."""


_ALL_QUESTIONS = {
    "caption": 0.6,
    "color": 0.8,
    "shape": 0.8,
    "position": 0.9,
    "size": 0.4,
    "count": 1.0,
    "what is at": 0.5,
    "exists": 0.5,
    "grounding": 0.8,
    "form": 0.4,
    "background": 0.3,
    "outside": 0.1,
}

NAME = Stage(
    name="0 name",
    frozen=("model.", "lm_head."),
    steps=500,
    lr=(1.0, 1.0, 1.0),
    samples={"scene": 0.55, "reading": 0.4, "handwriting": 0.05},
    questions={"background": 1.0},
    sizes=(0.9, 0.1, 0.0, 0.0),
    batch_samples=64,
    answers=False,
    naming=1.0,
    things=(0, 0, 1, 1, 1, 2, 2, 2, 2),
    words=0.7,
)
SEE = Stage(
    name="1 see",
    frozen=(),
    steps=1200,
    lr=(1.0, 1.0, 1.0),
    samples={"scene": 0.6, "reading": 0.36, "handwriting": 0.04},
    questions={
        "caption": 0.8,
        "color": 0.6,
        "shape": 0.6,
        "position": 0.9,
        "what is at": 0.6,
        "exists": 0.5,
        "grounding": 0.6,
    },
    sizes=(0.75, 0.25, 0.0, 0.0),
    naming=1.0,
    placing=0.5,
    pointing=0.5,
    letters=(3, 3, 2, 2, 1, 1),
)
UNDERSTAND = Stage(
    name="2 understand",
    frozen=(),
    steps=900,
    lr=(1.0, 0.0, 0.6),
    samples={
        "scene": 0.38,
        "reading": 0.20,
        "handwriting": 0.05,
        "clip": 0.22,
        "pair": 0.11,
        "talk": 0.02,
        "photo": 0.02,
    },
    questions=_ALL_QUESTIONS,
    sizes=(0.50, 0.24, 0.10, 0.16),
    systems=0.05,
    turns=0.1,
    naming=0.2,
    placing=0.1,
    pointing=0.3,
)
SETTLE = replace(
    UNDERSTAND,
    name="2 settle",
    steps=1400,
    lr=(0.6, 0.0, 0.05),
    samples={
        "scene": 0.33,
        "reading": 0.25,
        "handwriting": 0.05,
        "clip": 0.20,
        "pair": 0.13,
        "talk": 0.02,
        "photo": 0.02,
    },
    naming=0.1,
    placing=0.05,
    pointing=0.2,
)
"""Stage 2 comes to rest: the rate falls, and there is more of what is learnt last: reading and comparing."""
SHARPEN = replace(
    UNDERSTAND,
    name="2 sharpen",
    steps=4000,
    lr=(0.6, 0.0, 0.05),
    samples={
        "scene": 0.38,
        "reading": 0.24,
        "handwriting": 0.03,
        "clip": 0.18,
        "pair": 0.13,
        "talk": 0.02,
        "photo": 0.02,
    },
    questions={
        "caption": 0.8,
        "color": 0.5,
        "shape": 0.5,
        "position": 0.6,
        "size": 0.6,
        "count": 2.0,
        "what is at": 0.5,
        "exists": 0.5,
        "grounding": 2.5,
        "form": 0.6,
        "background": 0.5,
        "outside": 0.1,
    },
    sizes=(0.44, 0.24, 0.12, 0.20),
    things=(1, 1, 1, 1, 1, 1),
    letters=(1, 2, 3, 4, 4, 4),
    words=0.6,
    clips={"motion": 0.2, "appearance": 0.42, "change": 0.22, "blinking": 0.16},
    naming=0.3,
    placing=0.05,
    pointing=0.3,
    boxing=0.3,
)
"""Stage 2 once more, for what is weak: counts, boxes, events, long words, crowded and narrow pictures; and JSON."""
TALK = replace(
    UNDERSTAND,
    name="3 talk",
    frozen=("visual.",),
    steps=120,
    lr=(0.05, 0.0, 0.0),
    samples={**UNDERSTAND.samples, "talk": 0.12, "photo": 0.05},
    naming=0.0,
    placing=0.0,
    pointing=0.0,
    systems=0.2,
    turns=0.3,
)

FULL = Recipe(stages=(NAME, SEE, UNDERSTAND, SETTLE, SHARPEN, TALK))

QUICK = Recipe(
    stages=(
        replace(NAME, steps=40, batch_samples=16),
        replace(SEE, steps=60, batch_samples=16, things=(1, 0, 0, 0, 0, 0), letters=(1, 0, 0, 0, 0, 0)),
        replace(UNDERSTAND, steps=20, batch_samples=16, things=(1, 0, 0, 0, 0, 0)),
        replace(SETTLE, steps=10, batch_samples=16, things=(1, 0, 0, 0, 0, 0)),
        replace(SHARPEN, steps=10, batch_samples=16, things=(1, 0, 0, 0, 0, 0)),
        replace(TALK, steps=10, batch_samples=16, things=(1, 0, 0, 0, 0, 0)),
    ),
    optimizer=Optimizer(warmup_steps=10),
    vocabulary_samples=1000,
)
"""The same path in two minutes; its model knows next to nothing."""
