"""The model card, written from the recipe, the run and what was measured of it."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from training.cases import KIND_OF_TASK, LONG_SECONDS, NEAT_TASKS, cases
from training.evaluate import ABLATIONS
from training.loop import Run
from training.recipe import Stage

CURVE = "loss.png"
_VERSIONS = ("torch", "numpy", "pillow", "tokenizers", "safetensors", "matplotlib", "scikit-learn", "scikit-image")
_COLUMNS = (
    ("server", "through the server"),
    ("transformers", "transformers, same questions"),
    ("in process", "in process"),
)


def card(run: Run, measured: dict[str, Any]) -> str:
    """The model card: what the model is, what was measured of it, and what it cannot do."""
    sections = (
        _summary(run),
        _training(run),
        _accuracy(measured),
        _layouts(measured),
        _ablations(measured),
        _limits(run, measured),
        _examples(run.recipe.stages[-1]),
    )
    return "\n".join(section for section in sections if section)


def _summary(run: Run) -> str:
    parameters = sum(weight.numel() for weight in run.model.parameters())
    shape, limits = run.recipe.shape, run.recipe.limits
    return (
        f"# tessera-tiny\n\nA Qwen2-VL of {parameters / 1e6:.1f} M parameters, trained from nothing by `training/` "
        "on drawn images. It knows one small world: eight shapes in eleven colors, printed words and numbers, "
        "handwritten digits, and short videos of shapes. It is here so that the server has something to see with "
        "on a machine without a network; it is not a general model.\n\n"
        f"- Vision tower {shape.vision_depth} x {shape.vision_size}, language model {shape.num_layers} x "
        f"{shape.hidden_size}, vocabulary {shape.vocab_size}, context {shape.max_position_embeddings} tokens, "
        f"float32.\n- M-RoPE sections {list(shape.mrope_section)}, theta {shape.rope_theta:g}.\n"
        f"- Images of {limits.image_min_pixels} to {limits.image_max_pixels} px after resizing, frames of videos of "
        f"{limits.video_min_pixels} to {limits.video_max_pixels} px, two a second.\n"
        "- License: Apache-2.0, like the project.\n"
    )


def _training(run: Run) -> str:
    rows = ""
    for stage in run.recipe.stages:
        trains = "all but " + ", ".join(f"`{prefix}*`" for prefix in stage.frozen) if stage.frozen else "all"
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in stage.samples.items())
        rows += f"| {stage.name} | {trains} | {stage.steps} | {kinds} |\n"
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    tokens = run.recipe.stages[-1].batch.bins * run.recipe.stages[-1].batch.bin_tokens
    return (
        f"## Training\n\n| stage | trains | steps | samples |\n| --- | --- | --- | --- |\n{rows}\n"
        f"{run.step} of {run.num_steps} steps in {run.seconds / 60:.0f} minutes, seed {run.recipe.seed}; a step is a "
        f"batch of up to {tokens} tokens, and no sample is seen twice. Neither a language model nor a vision tower was "
        "there to start from. So stage 0, which the paper does not need, warms up the vision tower: linear layers that "
        "are thrown away afterwards name what each of its tokens shows, and tell how far its edges are. Stage 1 trains "
        "all parts, which the paper's does not. And in stages 1 and 2, layers that are thrown away too tell slice, row "
        "and column of each token, and the size of each grid, from an early layer of the language model: only M-RoPE "
        "says where a token lies, and a model this small is slow to find that out from answers alone. Two attention "
        "heads of the language model are shown where to look: from where it is about to tell of a thing, at the tokens "
        "that show it; and from there it tells where the edges of the thing are. Positions here are small, so theta is "
        f"{run.recipe.shape.rope_theta:g}, and most rotary pairs are on the width axis: the fast ones tell where a "
        "token lies; by the slow ones, hardly turned between a question and its image, a thing is found by its "
        "name.\n\n"
        f"![loss]({CURVE})\n\nThe loss includes those asked beside the answers, where they take part.\n\n"
        f"Written with Python {platform.python_version()}, {versions}.\n"
    )


def _accuracy(measured: dict[str, Any]) -> str:
    columns = {name: measured[key] for key, name in _COLUMNS if key in measured}
    if not columns:
        return "## Accuracy\n\nNot measured yet.\n"
    head = "".join(f" {name} ({column['cases']} cases a task) |" for name, column in columns.items())
    rows = "".join(
        f"| {task} |" + "".join(f" {column['accuracy'][task]:.1%} |" for column in columns.values()) + "\n"
        for task in KIND_OF_TASK
        if all(task in column["accuracy"] for column in columns.values())
    )
    text = (
        "## Accuracy\n\nHeld-out samples of the whole world: up to eight things anywhere, from a twentieth to nine "
        "tenths of a side, on plain, graded, grainy, ruled and photographed backgrounds, in images of 84 to 900 px. "
        "Exact match; grounding counts from an overlap (IoU) of 0.5, counting and comparing by the last word. Where a "
        "thing lies within 3 % of a border between thirds, or its size within 4 % of the one between small and large, "
        "either word counts. In process, an answer counts when each of its tokens is the likeliest after the true ones "
        "before it, which is the same as generating it greedily, except for these tasks.\n\n"
        f"| task |{head}\n| --- |{' --- |' * len(columns)}\n{rows}"
    )
    if "server" in measured:
        stopped = measured["server"]["stopped"].values()
        text += f"\nAnswers that ended by themselves: {sum(stopped) / len(stopped):.1%}."
        formats = ", ".join(f"{name} {share:.1%}" for name, share in measured["server"].get("formats", {}).items())
        text += f" Color, shape and number by image format: {formats}." if formats else ""
        if "declined" in measured["server"]:
            text += f" It declines {measured['server']['declined']:.1%} of questions about what it knows."
        text += "\n"
    if "transformers" in measured:
        text += (
            f"\nServer and transformers gave the same answer to {measured['transformers']['same']:.2%} of questions.\n"
        )
    return text


def _layouts(measured: dict[str, Any]) -> str:
    values = measured.get("server", measured.get("in process", {}))
    text = ""
    if "neat" in values:
        rows = "".join(f"| {task} | {values['neat'][task]:.1%} |\n" for task in NEAT_TASKS)
        text += (
            "One to six filled things, one to a ninth of the image or one about its middle, on white, black or gray:"
            f"\n\n| task | accuracy |\n| --- | --- |\n{rows}\n"
        )
    if "quarters" in values:
        rows = "".join(
            f"| {side} px | {found['boxes']} of 40 | {found['captions']} of 40 |\n"
            for side, found in values["quarters"].items()
        )
        text += (
            "A thing in each quarter of a white image, drawn with nothing but Pillow:"
            f"\n\n| side | boxes | told in captions |\n| --- | --- | --- |\n{rows}"
        )
    return f"## Plain layouts\n\n{text}" if text else ""


def _ablations(measured: dict[str, Any]) -> str:
    text = ""
    if "ablations" in measured:
        values = measured["ablations"]
        text = (
            "The same weights with positions that count up alike on all axes, and with height and width exchanged (in "
            f"process, {values['cases']} cases a task).\n\n{_table(ABLATIONS, values['accuracy'])}\n"
        )
    if "long" in measured:
        values = measured["long"]
        text += (
            f"Longer videos, in seconds (in process, {values['cases']} cases each); the longest in training last 20 s, "
            f"and most of them far less.\n\n{_table([str(seconds) for seconds in LONG_SECONDS], values['accuracy'])}"
        )
    return f"## What M-RoPE does\n\n{text}" if text else ""


def _table(columns: Sequence[str], shares: dict[str, dict[str, float]]) -> str:
    head = " | ".join(("task", *columns))
    rows = "".join(
        f"| {task} |" + "".join(f" {row[one]:.1%} |" for one in columns) + "\n" for task, row in shares.items()
    )
    return f"| {head} |\n| --- |{' --- |' * len(columns)}\n{rows}"


def _limits(run: Run, measured: dict[str, Any]) -> str:
    low, high = run.recipe.stages[-1].video_frames
    weak = [task for task, share in measured.get("in process", {}).get("accuracy", {}).items() if share < 0.6]
    return (
        "## What it cannot do\n\n"
        + (f"- It is wrong on more than 40 % of: {', '.join(weak)}.\n" if weak else "")
        + "- Anything outside its world: it is trained to say so, and will sometimes guess instead.\n"
        "- Other words than those it was trained on; English, and Chinese for colors, shapes, places, counts, captions "
        "and small talk.\n"
        "- More than three lines of text; handwriting other than digits.\n"
        "- More than eight things in an image; things that cover one another by more than a third; positions "
        "finer than thirds.\n"
        f"- Videos unlike its own: {low} to {high} frames at two a second, with one or two events or cuts.\n"
        "- Long conversations: it was trained on one to three questions about the same media.\n"
    )


def _examples(stage: Stage) -> str:
    rows = ""
    for task in KIND_OF_TASK:
        exchange = next(iter(cases(stage, task, 1))).exchange
        question = next(part for part in exchange.messages[-1].parts if isinstance(part, str))
        answer = exchange.answer.replace("|", chr(92) + "|").replace("\n", "<br>")
        rows += f"| {task} | {question} | {answer} |\n"
    return f"## The tasks, by example\n\n| task | question | right answer |\n| --- | --- | --- |\n{rows}"
