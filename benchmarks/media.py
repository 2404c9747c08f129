"""What preparing media costs, side by side with transformers and with FFmpeg itself, in one run. Never an assertion.

Run: `make bench`, or `python -m benchmarks.media [--seconds 600] [--cache FOLDER] [--model FOLDER] [ROWS …]`. Times
are CPU seconds of one process with all its threads (the machine's load hardly shows in them), besides the wall clock
where that is what a person feels. Every comparison alternates between the sides. Ratios are what to quote.
"""

import argparse
import asyncio
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import msgspec
import numpy as np
import openai
import skimage.data
from av.codec.context import ThreadType
from av.filter import Graph
from PIL import Image
from sklearn.datasets import load_sample_images

from model_executor.processor.geometry import MAX_VIDEO_TOKENS, TOKEN_PX, Size, image_grid
from model_executor.processor.patches import row_bytes, write_image
from server.core.errors import BadRequestError
from server.core.settings import MediaSettings
from server.media.decode.image import ImageDecoder, image_size
from server.media.decode.tracks import DECODER_THREADS
from server.media.messages import FramesDone, ImageBudget, Job, Outcome, Prepared, Ready, VideoBudget
from server.media.preprocessor import MediaPreprocessor
from server.media.types import MediaPart
from tests.support.images import asked, encoded, text_part
from tests.support.serving import RunningServer
from tests.support.videos import BUDGET, REAL_VIDEOS, remux

PICTURE_SIZES = ((1280, 960), (4000, 3000))
PICTURE_ROUNDS = 5
PIECE_S = 10
"""The long clip is this much of a moving picture, again and again."""
STREAM_S = 8.0
NUM_CLIPS = 8
MINUTE_S = 60
REFUSALS = 20
ROWS = ("pictures", "clips", "refusals", "long", "interference")
_ANSWER: msgspec.json.Decoder[Outcome | FramesDone] = msgspec.json.Decoder(Outcome | FramesDone)


@dataclass(frozen=True)
class Usage:
    """What one way of preparing a clip took."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    """Largest resident memory, less the output."""


def long_clip(folder: Path, seconds: int) -> Path:
    """A clip of 1080p H.264 at 30 frames a second: a photograph, panned. Made once, then kept in `folder`."""
    path = folder / f"panned-1080p-{seconds}s.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    ground = np.asarray(Image.fromarray(skimage.data.rocket()).resize((2240, 1400), Image.Resampling.LANCZOS))
    piece = io.BytesIO()
    with av.open(piece, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"preset": "ultrafast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(30 * min(PIECE_S, seconds)):
            view = np.ascontiguousarray(ground[number : number + 1080, number : number + 1920])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, "rgb24")))
        container.mux(stream.encode(None))
    unfinished = path.with_suffix(".part")
    remux(piece.getvalue(), unfinished, repeat=max(1, seconds // PIECE_S))
    return unfinished.rename(path)


def prepared_by_worker(clip: Path, budget: VideoBudget) -> tuple[Usage, Prepared]:
    """One clip through one fresh worker process: its headers, then its frames, as every request has it."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "server.media.workers.main", str(MediaSettings().max_worker_bytes), "/dev/shm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert worker.stdin is not None and worker.stdout is not None
    # The sandbox lets a worker read what lies in shared memory.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared, worker.stdin, worker.stdout:
        output = Path(shared) / "output"
        output.touch()
        content = shutil.copy(clip, shared)
        try:
            assert msgspec.json.decode(worker.stdout.readline(), type=Ready).sandbox_error is None
            before_s = _cpu_s(worker.pid)
            started = time.monotonic()
            for path in (None, str(output)):
                job = Job(contents=[content], is_frame_list=False, output=path, budget=budget, timeout_s=3600)
                worker.stdin.write(msgspec.json.encode(job) + b"\n")
                worker.stdin.flush()
                while isinstance(outcome := _ANSWER.decode(worker.stdout.readline()), FramesDone):
                    pass
            wall_s = time.monotonic() - started
            assert isinstance(outcome, Prepared), outcome
            peak = _peak_bytes(worker.pid) - output.stat().st_size
            return Usage(_cpu_s(worker.pid) - before_s, wall_s, peak), outcome
        finally:
            worker.kill()
            worker.wait()


def filtered_by_ffmpeg(clip: Path, size: Size, fps: float) -> float:
    """FFmpeg's own `fps,scale` to RGB with the same libraries and threads; CPU seconds."""
    started = time.process_time()
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = ThreadType.FRAME, DECODER_THREADS
        graph = Graph()
        graph.threads = 1
        nodes = [
            graph.add_buffer(template=stream, time_base=stream.time_base),
            graph.add("fps", f"{fps:g}"),
            graph.add("scale", f"{size.width}:{size.height}:flags=bicubic"),
            graph.add("format", "gbrp"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        for frame in container.decode(stream):
            graph.push(frame)
            _drain(graph)
        graph.push(None)
        _drain(graph)
    return time.process_time() - started


def decoded_then_resized(clip: Path, size: Size, times_s: list[float]) -> float:
    """Every frame decoded to RGB at full size, the sampled ones resized by Pillow; CPU seconds."""
    started = time.process_time()
    wanted = set(times_s)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = ThreadType.FRAME, DECODER_THREADS
        rate = float(stream.average_rate or 30)
        numbers = {round(time_s * rate) for time_s in wanted}
        for number, frame in enumerate(container.decode(stream)):
            pixels = frame.to_ndarray(format="rgb24", threads=1)
            if number in numbers:
                Image.fromarray(pixels).resize((size.width, size.height), Image.Resampling.BICUBIC)
    return time.process_time() - started


def measure_clip(clip: Path, name: str) -> None:
    """Print a clip's rows."""
    ours, outcome = prepared_by_worker(clip, BUDGET)
    size = Size(*outcome.size)
    ffmpeg_s = filtered_by_ffmpeg(clip, size, outcome.effective_fps or BUDGET.fps)
    everything_s = decoded_then_resized(clip, size, outcome.frame_times_s)
    frames = len(outcome.frame_times_s)
    print(f"{name}: {frames} frames of {size.width}x{size.height}")
    print(f"  worker                       {ours.cpu_s:8.1f} s CPU {ours.wall_s:8.1f} s wall")
    print(f"  worker's peak beyond output  {ours.peak_bytes / 1e6:8.0f} MB")
    print(f"  FFmpeg's own fps,scale       {ffmpeg_s:8.1f} s CPU; worker / FFmpeg {ours.cpu_s / ffmpeg_s:.2f}")
    print(f"  decode all, then resize      {everything_s:8.1f} s CPU; that / worker {everything_s / ours.cpu_s:.2f}")


def measure_pictures() -> None:
    """Print the rows of JPEG to engine-ready, against transformers' processor for the same grid."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    limits = {"min_pixels": 4 * TOKEN_PX, "max_pixels": MAX_VIDEO_TOKENS * TOKEN_PX}
    budget = ImageBudget(**limits, resized=None, max_source_pixels=MediaSettings().max_source_pixels)
    processor: Any = Qwen2VLImageProcessorPil(**limits)
    photo = Image.fromarray(load_sample_images().images[0])
    for width, height in PICTURE_SIZES:
        data = encoded(photo.resize((width, height), Image.Resampling.LANCZOS), "JPEG", quality=90)
        size = image_size(Size(height, width), budget)
        grid = image_grid(size)
        rows = np.zeros((grid.num_patches, row_bytes(1)), np.uint8)

        def ours(data: bytes = data, rows: Any = rows, size: Size = size) -> None:
            picture = ImageDecoder(io.BytesIO(data), max_source_pixels=budget.max_source_pixels)
            write_image(rows, image_grid(size), picture.render(size))

        def theirs(data: bytes = data) -> Any:
            return processor(images=[Image.open(io.BytesIO(data)).convert("RGB")], return_tensors="np")

        result = theirs()
        assert result["image_grid_thw"].tolist() == [[1, grid.h, grid.w]]
        pairs = [(_taken_s(ours), _taken_s(theirs)) for _ in range(PICTURE_ROUNDS)]
        ours_ms, theirs_ms = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
        full = Image.open(io.BytesIO(data)).resize((size.width, size.height), Image.Resampling.BICUBIC)
        pixels = ImageDecoder(io.BytesIO(data), max_source_pixels=budget.max_source_pixels).render(size)
        difference = np.abs(pixels.astype(np.int16) - np.asarray(full)).mean()
        print(
            f"{width}x{height} JPEG: {ours_ms:.1f} ms CPU, transformers {theirs_ms:.1f} ms, ratio "
            f"{theirs_ms / ours_ms:.2f}; {rows.nbytes} bytes, {result['pixel_values'].nbytes / rows.nbytes:.1f} times "
            f"fewer; {difference:.2f}/255 from Pillow's bicubic"
        )


async def measure_interference(server: RunningServer, clip: Path) -> None:
    """Print how a text stream and `/health` fare while clips are prepared, which previews do without the model."""
    async with (
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=900) as client,
        httpx.AsyncClient(base_url=server.url, timeout=900) as health,
    ):
        alone = await _stream_and_health(client, health, asyncio.create_task(asyncio.sleep(STREAM_S)))
        _print_interference("alone", alone)
        previews = [
            health.post(
                "/v1/chat/completions/preview",
                json={"model": "tessera-test", "messages": asked(_own_part(clip, number), text_part("What?"))},
            )
            for number in range(NUM_CLIPS)
        ]
        beside = await _stream_and_health(client, health, preparing := asyncio.gather(*previews))
        for answer in preparing.result():
            answer.raise_for_status()
    _print_interference(f"beside {NUM_CLIPS} clips", beside)
    print(f"decode rate beside / alone {beside[0] / alone[0]:.2f}")


def _print_interference(name: str, measured: tuple[float, float]) -> None:
    rate, p99_s = measured
    print(f"text stream {name}: {rate:.1f} tokens a second, /health p99 {p99_s * 1000:.1f} ms", flush=True)


def _own_part(clip: Path, number: int) -> dict[str, Any]:
    """The clip with a start of its own, so that nothing prepared before serves again."""
    wishes = {"video_start": number / 10}
    return {"type": "video_url", "video_url": {"url": clip.as_uri(), **wishes}}


async def _stream_and_health(
    client: openai.AsyncOpenAI, health: httpx.AsyncClient, until: "asyncio.Future[Any]"
) -> tuple[float, float]:
    """Tokens a second of one text stream, and the 99th percentile of `/health`, until something is done."""
    arrivals: list[float] = []
    answers_s: list[float] = []

    async def stream() -> None:
        while not until.done():
            events = await client.chat.completions.create(
                model="tessera-test",
                messages=asked(text_part("Tell a long story.")),
                max_tokens=512,
                logprobs=True,  # an event for every token
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for event in events:
                if event.choices and event.choices[0].logprobs:
                    arrivals.append(time.monotonic())
                if until.done():
                    break
            await events.close()

    async def ask_health() -> None:
        while not until.done():
            asked_at = time.monotonic()
            (await health.get("/health")).raise_for_status()
            answers_s.append(time.monotonic() - asked_at)
            await asyncio.sleep(0.02)

    await asyncio.gather(stream(), ask_health(), until)
    gap_s = statistics.median(np.diff(arrivals).tolist())
    return 1 / gap_s, float(np.percentile(answers_s, 99))


def _drain(graph: Graph) -> None:
    while True:
        try:
            graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def _taken_s(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure_refusals(clip: Path) -> None:
    """Print how long it takes to refuse what is over a budget."""
    times_s = []

    async def refuse() -> None:
        settings = MediaSettings(max_video_s=30, allowed_local_path=clip.parent)
        service = MediaPreprocessor(
            settings, image_min_pixels=4 * TOKEN_PX, image_max_pixels=MAX_VIDEO_TOKENS * TOKEN_PX
        )
        await service.start()
        try:
            for _ in range(REFUSALS):
                started = time.monotonic()
                try:
                    await service.prepare([MediaPart("video", clip.as_uri(), "clip")], "bench")
                except BadRequestError as error:
                    times_s.append(time.monotonic() - started)
                    fact = error.message
        finally:
            await service.close()
        median_ms, worst_ms = statistics.median(times_s) * 1000, max(times_s) * 1000
        size_mb = clip.stat().st_size / 1e6
        print(f"over-budget clip, {size_mb:.0f} MB: refused in {median_ms:.0f} ms, at most {worst_ms:.0f}: {fact}")

    asyncio.run(refuse())


def main() -> None:
    """Print all rows, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], default=list(ROWS), help="which ones; all by default")
    parser.add_argument("--seconds", type=int, default=600, help="length of the long clip")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "tessera-bench", help="for clips")
    parser.add_argument("--model", type=Path, help="checkpoint folder; with it, a server is measured, too")
    arguments = parser.parse_args()
    cache = arguments.cache.absolute()
    if "pictures" in arguments.rows:
        measure_pictures()
    if "clips" in arguments.rows:
        for name in ("bigbuckbunny", "bikes"):
            measure_clip(REAL_VIDEOS / f"{name}.mp4", f"{name}, a real clip")
    if "refusals" in arguments.rows:
        measure_refusals(long_clip(cache, MINUTE_S))
    if "long" in arguments.rows:
        measure_clip(long_clip(cache, arguments.seconds), f"{arguments.seconds} s of 1080p H.264")
    if "interference" in arguments.rows and arguments.model is not None:
        clip = long_clip(cache, MINUTE_S)
        settings = {
            "TESSERA_MEDIA__ALLOWED_LOCAL_PATH": str(clip.parent),
            "TESSERA_MEDIA__DECODE_TIMEOUT_S": "600",
            "TESSERA_ENGINE__KV_CACHE_BYTES": str(1 << 29),
            "TESSERA_ENGINE__WARM_STANDBY": "false",  # its start would compete as well
        }
        with RunningServer(arguments.model, settings) as server:
            print(f"server ready after {server.ready_s:.0f} s", flush=True)
            asyncio.run(measure_interference(server, clip))


if __name__ == "__main__":
    main()
