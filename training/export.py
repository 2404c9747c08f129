"""A trained run to a checkpoint folder: weights and small files, the model card, the loss curve, and the hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from training.checkpoint_files import write_checkpoint
from training.loop import Run
from training.model_card import CURVE, card

HASHES = "SHA256SUMS"


def export(run: Run, folder: Path) -> None:
    """Write the checkpoint, its card, its loss curve and `SHA256SUMS` into `folder`, replacing what was there."""
    write_checkpoint(run.model, run.recipe, run.folder, folder)
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    _draw_curve(log, folder / CURVE)
    measured = run.folder / "evaluation.json"
    values = json.loads(measured.read_text()) if measured.exists() else {}
    (folder / "README.md").write_text(card(run, values), "utf-8")
    write_hashes(folder)


def write_hashes(folder: Path) -> None:
    """Write the SHA-256 of every other file, in the format of `sha256sum`."""
    files = sorted(path for path in folder.iterdir() if path.name != HASHES)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / HASHES).write_text("".join(lines))


def _draw_curve(log: list[dict[str, Any]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 3.2), dpi=90)
    for name in dict.fromkeys(entry["stage"] for entry in log):
        part = [entry for entry in log if entry["stage"] == name]
        axes.plot([entry["step"] for entry in part], [entry["loss"] for entry in part], label=f"stage {name}")
    axes.set(xlabel="step", ylabel="loss (nats a token)", yscale="log")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
