"""Measurements a person would ask for, side by side in one run. Never an assertion on time.

Run: `make bench`, or `python -m benchmarks [--model FOLDER]`. Ratios are what to quote; times are this machine's.
"""

import argparse
from pathlib import Path

from benchmarks import rivals, serving


def main() -> None:
    """Measure the server, then transformers on the same weights and inputs, and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/random"), help="checkpoint folder")
    model = parser.parse_args().model

    print(f"model {model}, float32, medians\n")
    ours = serving.measure(model)
    print("measuring transformers on the same weights …")
    theirs = rivals.measure(model)
    print(f"\n{'':44}{'tessera':>12}{'transformers':>14}{'ratio':>8}")
    for name, value in ours.items():
        other = theirs.get(name)
        compared = f"{other:14.1f}{other / value:8.2f}" if other is not None else f"{'-':>14}{'-':>8}"
        print(f"{name:44}{value:12.1f}{compared}")


if __name__ == "__main__":
    main()
