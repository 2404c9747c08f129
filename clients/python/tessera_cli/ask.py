"""`tessera ask "what is this?" photo.jpg video.mp4`: a question to a server, its answer as it comes."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tessera_cli.answer import GROUNDED, boxes_in_pixels, show
from tessera_cli.connection import Parser, UsageError, add_connection, connected, model_of, run
from tessera_cli.conversation import talk
from tessera_cli.grounded_text import without_tokens
from tessera_cli.sources import source_of
from tessera_cli.terminal import stderr, uploading, waiting
from tessera_client.parts import MediaError, Part, is_url, text
from tessera_client.session import session_headers
from tessera_client.uploads import content

EPILOG = """\
tessera ask "What is in this image?" photo.jpg
tessera ask "What happens?" video.mp4 --system "Answer in one sentence."
tessera ask "Which color?" photo.jpg --schema '{"enum": ["red", "green", "blue"]}'
curl -s https://example.org/a.jpg | tessera ask "What is this?" -
tessera ask                                  a conversation; /help lists its commands
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    return run(parser, lambda: _ask(options))


def _parser() -> Parser:
    parser = Parser(
        prog="tessera ask",
        description="Ask about images and videos.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "question",
        nargs="?",
        help="the text; - or nothing reads it from stdin; on a terminal, nothing opens a conversation",
    )
    parser.add_argument("media", nargs="*", help="images and videos: files, URLs, or - for the bytes on stdin")
    parser.add_argument("-c", "--chat", action="store_true", help="go on with a conversation after the first answer")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told to be")
    parser.add_argument("--schema", metavar="FILE_OR_JSON", help="JSON schema the answer follows")
    parser.add_argument("--json", action="store_true", help="print the server's whole answer as JSON")
    parser.add_argument("--boxes", action="store_true", help="after the answer, print its boxes in the image's pixels")
    parser.add_argument("--temperature", type=float, default=0.0, help="default: 0, the likeliest answer")
    parser.add_argument("--max-tokens", type=int, help="longest answer")
    parser.add_argument("--seed", type=int, help="repeats an answer at a temperature above 0")
    add_connection(parser)
    return parser


def _ask(options: argparse.Namespace) -> int:
    question, media = _read(options)
    fields = _fields(options)
    console = stderr()
    with connected(options) as client:
        model = model_of(client, options)
        messages: list[Any] = [{"role": "system", "content": options.system}] if options.system else []
        if question is None:
            return talk(client, model, messages, fields, console)
        try:
            with uploading(console) as on_upload:
                parts = content(*media, text(question), client=client, on_upload=on_upload)
        except MediaError as error:
            raise UsageError(str(error)) from error
        messages.append({"role": "user", "content": parts})
        if options.json:
            with waiting(console, "waiting for the answer"):
                raw = client.chat.completions.with_raw_response.create(
                    model=model, messages=messages, extra_body=fields, extra_headers=session_headers(messages)
                )
            print(raw.text)
            return 0
        answer, report = show(client, model, messages, fields, console)
        if options.boxes:
            _print_boxes(answer, report)
        if options.chat:
            messages.append({"role": "assistant", "content": without_tokens(answer)})
            return talk(client, model, messages, fields, console)
    return 0


def _read(options: argparse.Namespace) -> tuple[str | None, list[Part | Path]]:
    """The question, None for a conversation, and the media in order."""
    on_stdin = [options.question, *options.media].count("-")
    if on_stdin > 1:
        raise UsageError("stdin can be read once only")
    question = options.question
    if question is None and sys.stdin.isatty():
        if options.json or options.boxes:
            raise UsageError("a conversation goes with neither --json nor --boxes")
        return None, []
    if question is None or question == "-":
        question = sys.stdin.read().strip()
    if not question:
        raise UsageError("the question is empty")
    if Path(question).is_file() or is_url(question):
        raise UsageError(f"{question!r} is a file or a URL; the question comes first, then images and videos")
    return question, [source_of(name) for name in options.media]


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """The request beyond model and messages."""
    fields: dict[str, Any] = {"temperature": options.temperature}
    if options.max_tokens is not None:
        fields["max_tokens"] = options.max_tokens
    if options.seed is not None:
        fields["seed"] = options.seed
    if options.schema:
        form = {"name": "answer", "schema": _schema(options.schema), "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": form}
    if options.boxes:
        if options.json:
            raise UsageError("--boxes does not go with --json")
        fields |= GROUNDED
    return fields


def _schema(given: str) -> Any:
    try:
        source = given if given.lstrip().startswith("{") else Path(given).expanduser().read_text("utf-8")
        return json.loads(source)
    except OSError as error:
        raise UsageError(f"the schema {given} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the schema is no JSON: {error}") from error


def _print_boxes(answer: str, report: list[dict[str, Any]]) -> None:
    found = boxes_in_pixels(answer, report)
    if found is None:
        num = sum(media_item["modality"] == "image" for media_item in report)
        raise UsageError(f"--boxes needs one image; there are {num}")
    for box in found:
        corners = {side: round(getattr(box, side), 1) for side in ("left", "top", "right", "bottom")}
        print(json.dumps({"label": box.label, **corners}, ensure_ascii=False))
