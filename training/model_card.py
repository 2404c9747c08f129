"""The model card, written from the recipe, the run and what was measured of it."""

import platform
from importlib.metadata import version
from typing import Any

from training.evaluate import KIND_OF_TASK, cases
from training.loop import Run
from training.recipe import Stage

CURVE = "loss.png"
_VERSIONS = ("torch", "numpy", "pillow", "tokenizers", "safetensors", "matplotlib", "scikit-learn", "scikit-image")


def card(run: Run, measured: dict[str, Any]) -> str:
    """The model card: what the model is, what was measured of it, and what it cannot do."""
    parameters = sum(weight.numel() for weight in run.model.parameters())
    shape, limits = run.recipe.shape, run.recipe.limits
    sections = [
        f"# tessera-tiny\n\nA Qwen2-VL of {parameters / 1e6:.1f} M parameters, trained from nothing by `training/` "
        f"on drawn pictures. It knows one small world: eight shapes in ten colors, printed capitals and numbers, "
        f"handwritten digits, and short clips of shapes. It is here so that the server has something to see with "
        f"on a machine without a network; it is not a general model.\n",
        f"- Vision tower {shape.vision_depth} x {shape.vision_size}, language model {shape.num_layers} x "
        f"{shape.hidden_size}, vocabulary {shape.vocab_size}, context {shape.max_position_embeddings} tokens, "
        f"float32.\n- M-RoPE sections {list(shape.mrope_section)}, theta {shape.rope_theta:g}.\n"
        f"- Pictures of {limits.image_min_pixels} to {limits.image_max_pixels} px after resizing; clips were trained "
        f"with frames of up to {limits.video_max_pixels} px at two a second.\n"
        f"- License: Apache-2.0, like the project.\n",
        _training(run),
        _accuracy(measured),
        _ablations(measured),
        _limits(run, measured),
        _examples(run.recipe.stages[-1]),
    ]
    return "\n".join(section for section in sections if section)


def _training(run: Run) -> str:
    rows = ""
    for stage in run.recipe.stages:
        trains = "all but " + ", ".join(f"`{prefix}*`" for prefix in stage.frozen) if stage.frozen else "all"
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in stage.samples.items())
        rows += f"| {stage.name} | {trains} | {stage.steps} x {stage.batch_samples} | {kinds} |\n"
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    return (
        f"## Training\n\n| stage | trains | steps x batch | samples |\n| --- | --- | --- | --- |\n{rows}\n"
        f"{run.step} of {run.num_steps} steps, "
        f"{run.seconds / 60:.0f} minutes on one or two cores of a busy machine ({platform.machine()}), "
        f"seed {run.recipe.seed}. Neither a language model nor a vision tower was there to start from. So stage 0, "
        f"which the paper does not need, warms up the vision tower: linear layers that are thrown away afterwards "
        f"name what each of its tokens shows, and tell how far its edges are. Stage 1 trains all parts, which the "
        f"paper's does not. And in stages 1 and 2, layers that are thrown away too tell slice, row and column of each "
        f"token, and the size of each grid, from an early layer of the language model: only M-RoPE says where a "
        f"token lies, and a model this small is slow to find that out from answers alone. Two attention heads of the "
        f"language model are shown where to look: from where it is about to tell of a thing, at the tokens that show "
        f"it. In stage 2 sharpen it tells, from there too, where the edges of the thing are. Positions "
        f"here are small, so theta is {run.recipe.shape.rope_theta:g}, and most rotary pairs are on the "
        f"width axis: the fast ones tell where a token lies; by the slow ones, hardly turned between a question and "
        f"its picture, a thing is found by its name. With theta 8 and pairs shared out evenly, an earlier model named "
        f"what is at a place but hardly ever found a named thing among three. No sample was seen twice. The "
        f"lengths of stages 1 to 3 and the samples of stage 2 settle were set while earlier ones ran, and at step 2800 "
        f"counting and comparing aloud and more questions about backgrounds joined. Stage 2 sharpen was added to a "
        f"finished run, twice: the first 150 of its steps and those from 5150 to 5270 were a stage 3, its samples and "
        f"lengths changed while it ran, and from step 5270 on things in clips are pointed at too, and answers as JSON "
        f"joined. The whole run has not been repeated.\n\n"
        f"![loss]({CURVE})\n\nThe loss includes that of naming, placing, pointing and boxing where they take part.\n\n"
        f"Versions: Python {platform.python_version()}, {versions}.\n"
    )


def _accuracy(measured: dict[str, Any]) -> str:
    columns = {
        name: measured[key]
        for key, name in (
            ("server", "through the server"),
            ("transformers", "transformers, same questions"),
            ("in process", "in process"),
        )
        if key in measured
    }
    if not columns:
        return "## Accuracy\n\nNot measured yet.\n"
    head = "".join(f" {name} ({column['cases']} cases a task) |" for name, column in columns.items())
    rows = "".join(
        f"| {task} |" + "".join(f" {column['accuracy'][task]:.1%} |" for column in columns.values()) + "\n"
        for task in KIND_OF_TASK
        if all(task in column["accuracy"] for column in columns.values())
    )
    text = (
        "## Accuracy\n\nHeld-out samples, exact match; grounding counts from an overlap (IoU) of 0.5, seconds within "
        "half a second. In process, an answer counts when each of its tokens is the likeliest after the true ones "
        "before it, which is the same as generating it greedily, except for grounding, and for counting and comparing, "
        "where the last word counts and what stands before it was given.\n\n"
        f"| task |{head}\n| --- |{' --- |' * len(columns)}\n{rows}"
    )
    if "server" in measured:
        stopped = measured["server"]["stopped"].values()
        text += f"\nAnswers that ended by themselves: {sum(stopped) / len(stopped):.1%}."
        formats = ", ".join(f"{name} {share:.1%}" for name, share in measured["server"].get("formats", {}).items())
        text += f" Color, shape and number by picture format: {formats}.\n" if formats else "\n"
    if "transformers" in measured:
        text += (
            f"\nServer and transformers gave the same answer to {measured['transformers']['same']:.2%} of questions.\n"
        )
    return text


def _ablations(measured: dict[str, Any]) -> str:
    if "ablations" not in measured:
        return ""
    plain = measured["in process"]["accuracy"]
    rows = "".join(
        f"| {task} | {plain[task]:.1%} | {row['1-D']:.1%} | {row['h and w swapped']:.1%} |\n"
        for task, row in measured["ablations"].items()
    )
    long = "".join(
        f"| {task} |" + "".join(f" {share:.1%} |" for share in row.values()) + "\n"
        for task, row in measured["long"].items()
    )
    return (
        "## What M-RoPE does\n\nThe same weights with positions that count up alike on all axes, and with height and "
        "width exchanged (in process).\n\n| task | M-RoPE | 1-D | h and w swapped |\n"
        f"| --- | --- | --- | --- |\n{rows}\n"
        "Clips as long as the longest in training, and two and four times longer.\n\n"
        f"| task | 1x | 2x | 4x |\n| --- | --- | --- | --- |\n{long}"
    )


def _limits(run: Run, measured: dict[str, Any]) -> str:
    low, high = run.recipe.stages[-1].clip_frames
    weak = [task for task, share in measured.get("in process", {}).get("accuracy", {}).items() if share < 0.6]
    return (
        "## What it cannot do\n\n"
        + (
            f"- Trained for {run.seconds / 60:.0f} minutes, it is wrong on more than 40 % of: {', '.join(weak)}.\n"
            if weak
            else ""
        )
        + "- Anything outside its world: it is trained to say so, and will often guess instead.\n"
        "- Other words than those it was trained on; English only.\n"
        "- JSON by itself: it fills in what is asked for, but often under another key. Where the form is enforced, "
        "keys are right.\n"
        "- Small letters, handwriting other than single digits, more than one line of text.\n"
        "- More than six things in a picture; things that overlap; positions finer than thirds.\n"
        f"- Clips unlike its own: {low} to {high} frames, one event at a time, frames of about 50 to 120 px a side.\n"
        "- Long conversations: it was trained on one to three questions about the same media.\n"
    )


def _examples(stage: Stage) -> str:
    rows = ""
    for task in KIND_OF_TASK:
        exchange = next(iter(cases(stage, task, 1))).exchange
        question = next(part for part in exchange.messages[-1].parts if isinstance(part, str))
        rows += f"| {task} | {question} | {exchange.answer.replace('|', chr(92) + '|')} |\n"
    return f"## The tasks, by example\n\n| task | question | right answer |\n| --- | --- | --- |\n{rows}"
