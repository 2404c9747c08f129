"""lm-eval with `local-completions`: a likelihood task over `echo` with `logprobs`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

QUESTIONS = [
    {"question": "The color of a red circle is", "choices": ["red", "seventeen"], "answer": 0},
    {"question": "The number after one is", "choices": ["circle", "two"], "answer": 1},
]
TOKENIZER = Path(os.environ["PICTURE"]).parent.parent / "training" / "bundle"
TASK = """
task: tessera_likelihood
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (tmp_path / "task.yaml").write_text(TASK.format(data=data))
    return tmp_path


def test_a_likelihood_task(task: Path) -> None:
    url = os.environ["OPENAI_BASE_URL"]
    arguments = f"model=tessera-tiny,base_url={url}/completions,num_concurrent=2,max_retries=1"
    arguments += f",tokenizer_backend=huggingface,tokenizer={TOKENIZER}"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments]
    command += ["--tasks", "tessera_likelihood", "--include_path", str(task), "--output_path", str(task / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=task)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (result,) = (task / "out").rglob("results*.json")
    assert 0 <= json.loads(result.read_text())["results"]["tessera_likelihood"]["acc,none"] <= 1
