"""Is the bundled model as good through this server as through transformers? The same held-out questions to both.

Run a server, then `python -m benchmarks.accuracy --url http://127.0.0.1:8000/v1 --cases 500`. The shares are added to
`runs/tiny/evaluation.json`, from which the model card is written.
"""

import argparse
import asyncio
import base64

from PIL import Image

from tests.support.oracle import Clip, Oracle, Still, Turn
from training.__main__ import BUNDLE, RUNS
from training.cases import KIND_OF_TASK, Case, cases
from training.evaluate import MAX_TOKENS, SERVED_NAME, ask_server, media_url, record
from training.judge import is_right
from training.recipe import FULL

END = "<|im_end|>"


def turns(case: Case) -> list[Turn]:
    """A case as the oracle takes it: pictures as pixels, clips as the file a server is sent."""

    def part(index: int) -> Still | Clip:
        item = case.media[index]
        if item.modality == "image":
            return Still(Image.fromarray(item.frames[0]))
        content = base64.b64decode(media_url(item).partition(",")[2])
        return Clip(content, FULL.limits.video_max_pixels, FULL.limits.video_min_pixels)

    return [
        (message.role, [value if isinstance(value, str) else part(value.index) for value in message.parts])
        for message in case.exchange.messages
    ]


def ask_oracle(oracle: Oracle, case: Case) -> str:
    """Transformers' greedy answer, without the token that ends it."""
    (end,) = oracle.tokenizer.encode(END, add_special_tokens=False)
    return oracle.text(oracle.answer(turns(case), MAX_TOKENS, until=end).token_ids)


def main() -> None:
    """Ask both, print and record the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="root of a running server's API")
    parser.add_argument("--cases", type=int, default=500, help="held-out cases a task")
    arguments = parser.parse_args()
    oracle = Oracle(BUNDLE)
    shares = {}
    same = 0
    for task in KIND_OF_TASK:
        asked = list(cases(FULL.stages[-1], task, arguments.cases))
        ours = [reply.text for reply in asyncio.run(ask_server(arguments.url, SERVED_NAME, asked))]
        theirs = [ask_oracle(oracle, case) for case in asked]
        same += sum(a == b for a, b in zip(ours, theirs, strict=True))
        shares[task], mine = (
            sum(is_right(case.exchange.asked, text) for case, text in zip(asked, texts, strict=True)) / len(asked)
            for texts in (theirs, ours)
        )
        print(f"{task:<20} server {mine:6.1%}   transformers {shares[task]:6.1%}", flush=True)
    total = len(KIND_OF_TASK) * arguments.cases
    print(f"the same answer to {same} of {total} questions")
    values = {"cases": arguments.cases, "accuracy": shares, "same": same / total}
    record(RUNS / "tiny", {"transformers": values})


if __name__ == "__main__":
    main()
