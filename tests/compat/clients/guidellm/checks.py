"""`guidellm run` with made-up prompts, over chat completions, completions and Responses."""

import json
import os
import subprocess
from pathlib import Path

import pytest

TOKENIZER = Path(os.environ["PICTURE"]).parent.parent / "training" / "bundle"


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_all_requests_are_answered(route: str, tmp_path: Path) -> None:
    url, key = os.environ["OPENAI_BASE_URL"].removesuffix("/v1"), os.environ["OPENAI_API_KEY"]
    options = {
        "backend": f"kind=openai_http,target={url},model=tessera-tiny,api_key={key},request_format={route}",
        "tokenizer": f"kind=huggingface_auto,model={TOKENIZER}",
        "data": "kind=synthetic_text,prompt_tokens=32,output_tokens=16",
        "profile": "kind=synchronous",
        "constraint": "kind=max_requests,count=3",
        "output": f"kind=json,path={tmp_path / 'report.json'}",
    }
    command = ["guidellm", "run", "--disable-console", *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    totals = report["benchmarks"][0]["metrics"]["request_totals"]
    assert totals["errored"] == 0 and totals["successful"] > 1, totals  # the last may be cut off by the end of the run
