"""`python -m training train | quick | evaluate | export`: the recipe from the command line.

train      all stages into runs/tiny, on a GPU if there is one; goes on where it was cut off
quick      some minutes of a cut-down recipe into runs/quick, exported to runs/quick/bundle
evaluate   accuracy by task, in this process or (--url) through a running server, into runs/tiny/evaluation.json
export     the trained model, its card and its hashes into training/bundle
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import torch

from training.evaluate import evaluate_in_process, evaluate_server
from training.export import export
from training.loop import Progress, Run
from training.recipe import FULL, QUICK, Recipe

RUNS = Path("runs")
BUNDLE = Path(__file__).parent / "bundle"
_BAR_WIDTH = 24


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.partition(":")[2].strip())
    parser.add_argument("command", choices=("train", "quick", "evaluate", "export"))
    parser.add_argument("--threads", type=int, default=max(1, torch.get_num_threads() - 1), help="of the computation")
    parser.add_argument("--workers", type=int, default=_drawing(), help="processes that draw what is trained on")
    parser.add_argument("--cases", type=int, default=500, help="held-out cases a task")
    parser.add_argument("--url", help="root of a running server's API, such as http://127.0.0.1:8000/v1")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    match arguments.command:
        case "train":
            _train(FULL, RUNS / "tiny", arguments.workers)
        case "quick":
            export(_train(QUICK, RUNS / "quick", arguments.workers), RUNS / "quick" / "bundle")
        case "evaluate" if arguments.url:
            asyncio.run(evaluate_server(arguments.url, FULL, RUNS / "tiny", arguments.cases))
        case "evaluate":
            evaluate_in_process(Run(FULL, RUNS / "tiny"), arguments.cases)
        case "export":
            export(Run(FULL, RUNS / "tiny"), BUNDLE)


def _drawing() -> int:
    """All cores where a GPU computes, and one beside a CPU that does."""
    return os.cpu_count() or 1 if torch.cuda.is_available() else 1


def _train(recipe: Recipe, folder: Path, workers: int) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, folder)
    for progress in run.train(workers=workers):
        sys.stderr.write("\r" + bar(progress))
    sys.stderr.write("\n")
    return run


def bar(progress: Progress) -> str:
    """One line: stage, how far, and time left."""
    filled = _BAR_WIDTH * progress.step // progress.num_steps
    minutes, seconds = divmod(int(progress.left_s), 60)
    return (
        f"{progress.stage:<14}[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {progress.step}/{progress.num_steps}"
        f"  {minutes}:{seconds:02d} left  "
    )


if __name__ == "__main__":
    main()
