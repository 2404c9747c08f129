"""The first requests are such as the engine takes: their items fit their placeholders and their files."""

from collections.abc import AsyncIterator
from pathlib import Path

from model_executor.engine import Modality, Prompt, RequestFailedError, SamplingParams
from model_executor.engine_process.media_files import OpenMediaFiles
from model_executor.engine_process.warm_up import warm_up
from model_executor.processor.placeholders import find_placeholder_fault


class Checking:
    """Checks requests as the engine does, and answers none."""

    placeholder_ids: dict[Modality, int] = {"image": 7, "video": 8}

    def __init__(self, directory: Path, *, fails: bool = False) -> None:
        self._files = OpenMediaFiles(directory)
        self._fails = fails
        self.seen: list[tuple[str, list[str], float]] = []

    async def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncIterator[None]:
        assert find_placeholder_fault(prompt, self.placeholder_ids) is None
        self._files.close(self._files.open(prompt.media))
        self.seen.append((request_id, [item.modality for item in prompt.media], params.temperature))
        if self._fails:
            raise RequestFailedError("the engine failed on this request")
        yield None


async def test_a_text_an_image_and_a_video_are_asked_greedily_and_sampled(tmp_path: Path) -> None:
    engine = Checking(tmp_path)
    await warm_up(engine, tmp_path)  # type: ignore[arg-type]
    assert [modalities for _, modalities, _ in engine.seen] == [[], ["image"], ["video"]] * 2
    assert [temperature > 0 for *_, temperature in engine.seen] == [False] * 3 + [True] * 3
    assert len({request_id for request_id, *_ in engine.seen}) == 6
    assert not list(tmp_path.iterdir())


async def test_what_fails_does_not_end_the_start(tmp_path: Path) -> None:
    engine = Checking(tmp_path, fails=True)
    await warm_up(engine, tmp_path)  # type: ignore[arg-type]
    assert len(engine.seen) == 6
