"""The numbers of a measurement: percentiles, throughput, and how they are printed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tessera_cli.load_generator import Run

PERCENTILES = (50, 90, 99)
COUNTED = {"requests": "requests answered", "prompt_tokens": "prompt tokens", "answer_tokens": "answer tokens"}


def summary(done: Run) -> dict[str, Any]:
    """Percentiles in seconds and rates per second of what was answered."""
    answered = done.answered
    firsts = [timing.first_s for timing in answered if timing.first_s is not None]
    return {
        "duration_s": done.duration_s,
        "first_token_s": _percentiles(firsts),
        "inter_token_s": _percentiles([gap for timing in answered for gap in timing.gaps_s]),
        "answer_s": _percentiles([timing.total_s for timing in answered]),
        "requests_per_s": len(answered) / done.duration_s,
        "answer_tokens_per_s": sum(timing.answer_tokens for timing in answered) / done.duration_s,
        "prompt_tokens_per_s": sum(timing.prompt_tokens for timing in answered) / done.duration_s,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and percentiles; None of nothing."""
    if not values:
        return None
    found = {f"p{percent}": float(np.percentile(values, percent)) for percent in PERCENTILES}
    return {"mean": float(np.mean(values)), **found}


def print_run(result: dict[str, Any]) -> None:
    """Print one level of concurrency."""
    out = Console(highlight=False)
    kinds = ", ".join(f"{count} {kind}" for kind, count in result["kinds"].items())
    out.print(f"\n[bold]{result['model']}, {result['concurrency']} at a time[/bold] ({kinds})")
    table = Table(box=None, pad_edge=False)
    table.add_column("ms")
    for name in ("mean", *(f"p{percent}" for percent in PERCENTILES)):
        table.add_column(name, justify="right", min_width=9)
    for name, values in (
        ("time to first token", result["first_token_s"]),
        ("between tokens", result["inter_token_s"]),
        ("whole answer", result["answer_s"]),
    ):
        table.add_row(name, *(f"{value * 1000:.1f}" for value in (values or {}).values()))
    out.print(table)
    out.print(
        f"{result['requests_per_s']:.2f} requests/s, {result['answer_tokens_per_s']:.1f} answer tokens/s, "
        f"{result['prompt_tokens_per_s']:.1f} prompt tokens/s over {result['duration_s']:.1f} s"
    )
    for error, count in result["errors"].items():
        out.print(f"[red]{count} not answered: {error}[/red]")
    _print_counts(out, result)
    _print_hit_rates(out, result)


def _print_hit_rates(out: Console, result: dict[str, Any]) -> None:
    """What each server's caches had of what was looked up."""
    for url, caches in (result["caches"] or {}).items():
        rates = [f"{name} {had / asked:.0%} of {asked}" for name, (had, asked) in caches.items() if asked]
        out.print(f"caches of {url} had: {', '.join(rates) or 'nothing was looked up'}")


def _print_counts(out: Console, result: dict[str, Any]) -> None:
    server = result["counted_by_server"]
    if server is None:
        out.print("[dim]the server tells no counts to compare with[/dim]")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("counted", "here", "server", "its engine", ""):
        table.add_column(heading, justify="left" if heading in ("counted", "") else "right", min_width=9)
    for key, name in COUNTED.items():
        values = [result["counted_here"][key], server["http"][key], server["engine"][key]]
        differs = len({value for value in values if value is not None}) > 1
        shown = ["" if value is None else str(value) for value in values]
        table.add_row(name, *shown, "[yellow]differs: does somebody else ask, too?[/yellow]" if differs else "equal")
    out.print(table)
