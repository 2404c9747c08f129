"""The model's own small byte-level BPE, with Qwen's special tokens.

Trained on the text of drawn samples only, without what is read from pictures. Every digit, and every capital that no
small letter follows, stays a token of its own, and what is read is spelled anyway (`Asked.spelled`). So does every
Chinese character.
"""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from training.data import draw_sample
from training.qwen_tokenizer import SPECIAL_TOKENS
from training.recipe import Recipe

_READ_TASKS = {"word", "lower-case word", "mixed-case word", "lines", "number", "handwriting", "handwritten number"}
_WORDS = Regex(r"\p{Han}| ?\p{Lu}(?!\p{Ll})| ?(?:(?!\p{Han})\p{L})+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+")
_CHATML = "system\nYou are a helpful assistant.\nuser\nassistant\n"


def train_tokenizer(recipe: Recipe) -> Tokenizer:
    """A tokenizer for the recipe's text; the same recipe always gives the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_WORDS, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.shape.vocab_size - len(SPECIAL_TOKENS),
        min_frequency=3,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(recipe), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def save_tokenizer(recipe: Recipe, folder: Path) -> None:
    """Write `tokenizer.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(recipe).save(str(folder / "tokenizer.json"))


def _texts(recipe: Recipe) -> Iterator[str]:
    stage = max(recipe.stages, key=lambda stage: len(stage.samples))
    for number in range(recipe.vocabulary_samples):
        yield _CHATML
        for exchange in draw_sample(stage, f"vocabulary {number}").exchanges:
            yield from (part for message in exchange.messages for part in message.parts if isinstance(part, str))
            if exchange.task not in _READ_TASKS:
                yield _without_special(exchange.answer)


def _without_special(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "\n")
    return text
