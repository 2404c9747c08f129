"""`tessera bench`: how fast a server answers, and whether its own counts agree."""

import argparse
import asyncio
import json
import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

import openai

from tessera_cli.connection import Parser, add_connection, api_key, base_url, connected, model_of, run
from tessera_cli.load_generator import Question, Run, ask_all
from tessera_cli.server_metrics import ServerCounts, counted_here, read_all, settled, total
from tessera_cli.terminal import stderr, waiting
from tessera_client.parts import image as image_part
from tessera_client.parts import text

try:
    import numpy as np

    from tessera_cli.report import print_run, summary
    from tessera_cli.synthetic import Shape, image_url, video_url
except ImportError as error:
    sys.exit(f"tessera: bench needs {error.name}: pip install 'tessera-client[bench]'")

KINDS = ("text", "image", "video")
WORDS = ("stone", "river", "seven", "lamp", "blue", "under", "cloud", "window", "walks", "green", "north", "small")


def main(arguments: list[str]) -> int:
    """Run the command; returns 0 where everything was answered."""
    parser = Parser(
        prog="tessera bench",
        description="Measure a server that speaks the OpenAI API: latencies, throughput and, of a Tessera server, "
        "whether its own counts agree. Every question is new, so that caches do not answer.",
    )
    add = parser.add_argument
    shown = "default: %(default)s"
    add("--concurrency", type=_count, nargs="+", default=[1, 4, 16], metavar="N", help="default: 1 4 16")
    add("--requests", type=_count, default=32, metavar="N", help="for each concurrency (default: 32)")
    add("--mix", type=_mix, default="text=1,image=1", help=f"shares of text, image and video ({shown})")
    add("--image-size", type=_size, default="640x480", metavar="WxH", help=shown)
    add("--video-size", type=_size, default="320x240", metavar="WxH", help=shown)
    add("--video-seconds", type=float, default=4, metavar="S", help=shown)
    add("--words", type=_count, default=40, metavar="N", help=f"of a question ({shown})")
    add("--max-tokens", type=_count, default=64, metavar="N", help=f"longest answer ({shown})")
    add("--ignore-eos", action="store_true", help="all answers of full length (Tessera and vLLM only)")
    add("--repeat", type=_share, default=0, metavar="SHARE", help=f"of media that earlier questions had ({shown})")
    add("--same-media", action="store_true", help="one image and one video for all questions: caches answer")
    add("--seed", type=int, help="same questions again (default: others every time)")
    add("--json", action="store_true", help="print the numbers as JSON")
    add_connection(parser, several=True)
    options = parser.parse_args(arguments)
    return run(parser, lambda: _bench(options))


def _bench(options: argparse.Namespace) -> int:
    first = argparse.Namespace(**{**vars(options), "url": options.url[0]})
    with connected(first) as client:
        model = model_of(client, options)
    return asyncio.run(_measure(options, model))


async def _measure(options: argparse.Namespace, model: str) -> int:
    console = stderr()
    rng = np.random.default_rng(secrets.randbits(64) if options.seed is None else options.seed)
    fields = {"temperature": 0, "max_tokens": options.max_tokens} | ({"ignore_eos": True} if options.ignore_eos else {})
    results, failed = [], False
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                openai.AsyncOpenAI(
                    base_url=base_url(url), api_key=api_key(options), timeout=options.timeout, max_retries=0
                )
            )
            for url in options.url
        ]
        with waiting(console, "warming up"):
            for client in clients:
                await ask_all([client], model, questions(options, rng, num=len(options.mix)), 1, fields)
        for concurrency in options.concurrency:
            asked = questions(options, rng, num=options.requests)
            before = await read_all(clients)
            with waiting(console, f"{len(asked)} requests, {concurrency} at a time"):
                done = await ask_all(clients, model, asked, concurrency, fields)
            counted = None if before is None else await settled(clients, before, counted_here(done.timings))
            failed = failed or len(done.answered) < len(done.timings)
            results.append(_result(model, done, options.url, counted))
            if not options.json:
                print_run(results[-1])
    if options.json:
        print(json.dumps(results))
    return int(failed)


def _result(model: str, done: Run, urls: Sequence[str], counted: Sequence[ServerCounts] | None) -> dict[str, Any]:
    """One level as plain values."""
    errors = Counter(timing.error for timing in done.timings if timing.error)
    kinds = Counter(timing.kind for timing in done.timings)
    return {
        "model": model,
        "concurrency": done.concurrency,
        "kinds": dict(kinds),
        "errors": dict(errors),
        **summary(done),
        "counted_here": asdict(counted_here(done.timings)),
        "counted_by_server": None if counted is None else asdict(total(counted)),
        "caches": None if counted is None else {url: each.caches for url, each in zip(urls, counted, strict=True)},
    }


def questions(options: argparse.Namespace, rng: "np.random.Generator", *, num: int) -> list[Question]:
    """So many questions, kinds by their shares and spread evenly.

    Args:
        options: the command line.
        rng: decides words and pixels.
        num: how many.
    """
    width, height = options.image_size
    image = Shape(width, height)
    width, height = options.video_size
    video = Shape(width, height, options.video_seconds)
    media: dict[str, list[str]] = {kind: [] for kind in KINDS}
    asked = []
    for kind in spread(options.mix, num):
        words = text(" ".join(rng.choice(WORDS, options.words)))
        if kind == "text":
            asked.append(Question(kind, [words]))
            continue
        share = 1 if options.same_media else options.repeat
        if media[kind] and rng.random() < share:
            url = str(rng.choice(media[kind]))
        else:
            media_rng = np.random.default_rng(0) if options.same_media else rng
            url = image_url(media_rng, image) if kind == "image" else video_url(media_rng, video)
            media[kind].append(url)
        part = image_part(url) if kind == "image" else {"type": "video_url", "video_url": {"url": url}}
        asked.append(Question(kind, [part, words]))
    return asked


def spread(mix: dict[str, float], num: int) -> list[str]:
    """So many kinds, each as often as its share says within one, mixed evenly. Pure."""
    total = sum(mix.values())
    given: Counter[str] = Counter()
    chosen = []
    for number in range(1, num + 1):
        kind = max(mix, key=lambda kind: mix[kind] / total * number - given[kind])
        given[kind] += 1
        chosen.append(kind)
    return chosen


def _count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _share(value: str) -> float:
    share = float(value)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return share


def _size(value: str) -> tuple[int, int]:
    width, _, height = value.partition("x")
    return _count(width), _count(height)


def _mix(value: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for entry in value.split(","):
        kind, _, share = entry.partition("=")
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"there is no {kind!r}; kinds are {', '.join(KINDS)}")
        shares[kind] = float(share or 1)
    if min(shares.values()) < 0 or not sum(shares.values()) > 0:
        raise argparse.ArgumentTypeError("shares must be positive")
    return {kind: share for kind, share in shares.items() if share}
