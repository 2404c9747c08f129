"""The processes that check grammars, each of which may crash or be killed doing so.

A keeper is forked from the engine process before that has threads. It compiles nothing itself: for every grammar it
forks a process that converts and compiles it as vLLM will, generates the beginning of an answer, has limits on time and
memory, and replies on a socket of its own. A keeper can also fork another keeper, to replace a lost one.

The engine process's side: `model_executor/engine_process/grammar_check.py`.
"""

import ctypes
import json
import os
import random
import re
import resource
import signal
import socket
import struct
import time
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import xgrammar
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

from model_executor.engine import Grammar
from model_executor.ipc import frame, receive_frame
from model_executor.processor.tokenizer import Tokenizer

COMPILE_CPU_S = 5
"""CPU time for the whole check of one grammar."""
CONVERT_CPU_S = 0.25
"""CPU time for the part that vLLM does in the engine process's event loop."""
STEP_CPU_S = 0.02
"""Average CPU time for the mask of allowed tokens; the engine's step waits for it."""
DEADLINE_S = 90
"""After this time the process counts as stuck rather than busy."""
MEMORY_BYTES = 2 << 30
CHECK, CLONE = b"t", b"c"
"""Orders to a keeper, each with one end of a socket pair: check a grammar and reply there, or take orders there."""
TOO_EXPENSIVE = "takes too much time or memory to compile"
_NUM_STEPS = 48
_NUM_WALKS = 4
"""If there are more walks than this (one for each tag), they are shorter."""
_MIN_STEPS = 4
_NICENESS = 5
_PR_SET_PDEATHSIG = 1
_SOURCE_LOCATION = re.compile(r"\[[\d:]+\] \S+:\d+: |/\S+")


def fork_keeper(model_dir: Path) -> socket.socket:
    """Start a keeper; must be called before this process has threads.

    Args:
        model_dir: the model's directory, for its vocabulary.

    Returns:
        Where to send it orders; at end of file once it is gone.
    """
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _keep(theirs, model_dir)
    theirs.close()
    return ours


def structured_outputs(grammar: Grammar) -> StructuredOutputsParams:
    """`grammar` as vLLM's parameter."""
    match grammar.kind:
        case "json":
            return StructuredOutputsParams(json=grammar.value)
        case "json_object":
            return StructuredOutputsParams(json_object=True)
        case "regex":
            return StructuredOutputsParams(regex=grammar.value)
        case "choice":
            return StructuredOutputsParams(choice=json.loads(grammar.value))
        case "grammar":
            return StructuredOutputsParams(grammar=grammar.value)
        case "structural_tag":
            return StructuredOutputsParams(structural_tag=grammar.value)


def _keep(orders: socket.socket, model_dir: Path) -> NoReturn:
    """The keeper: forks a child for every order, until the engine process is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for its children
    os.nice(_NICENESS)
    try:
        tokenizer = Tokenizer(model_dir, {})
        vocabulary = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.num_tokens)]
        info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[tokenizer.num_tokens - 1])
        while True:
            order, files, _, _ = socket.recv_fds(orders, 1, 1)
            if not order:
                os._exit(0)
            end = socket.socket(fileno=files[0])
            if os.fork() == 0:
                # It continues if the keeper is lost.
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
                orders.close()
                if order == CHECK:
                    _check(end, info)
                orders = end
            else:
                end.close()
    finally:
        os._exit(1)


def _check(end: socket.socket, info: xgrammar.TokenizerInfo) -> NoReturn:
    """The process of one grammar: sends its process id, and then the verdict if it survives."""
    try:
        signal.alarm(DEADLINE_S)
        end.sendall(struct.pack(">I", os.getpid()))
        grammar = msgspec.msgpack.decode(receive_frame(end), type=Grammar)
        _limit_resources()
        end.sendall(frame(msgspec.msgpack.encode(_find_fault(grammar, info))))
    finally:
        os._exit(0)


def _limit_resources() -> None:
    """Limit this process's CPU time and memory; exceeding them kills it, or makes allocations fail."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_CPU_S, COMPILE_CPU_S))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))


def _find_fault(grammar: Grammar, info: xgrammar.TokenizerInfo) -> str | None:
    """What is wrong with `grammar`: does with it everything that vLLM will do."""
    try:
        started_at_s = time.process_time()
        params = SamplingParams(structured_outputs=structured_outputs(grammar))
        validate_xgrammar_grammar(params)
        if time.process_time() - started_at_s > CONVERT_CPU_S:
            return TOO_EXPENSIVE
        compiled = _compile(params.structured_outputs, info)
    except Exception as error:
        return f"cannot be compiled: {_reason(error)}"
    prefixes = _answer_prefixes(grammar)
    num_steps = max(_NUM_STEPS * _NUM_WALKS // max(len(prefixes), _NUM_WALKS), _MIN_STEPS)
    for prefix in prefixes:
        matcher = xgrammar.GrammarMatcher(compiled)
        matcher.accept_string(prefix)
        may_be_empty = grammar.kind in ("regex", "grammar", "structural_tag")
        if fault := _walk(matcher, info, num_steps, may_be_empty=may_be_empty):
            return fault
    return None


def _answer_prefixes(grammar: Grammar) -> list[str]:
    """Beginnings of answers that lead to different parts of the grammar: the empty one, and each tag."""
    tags: list[str] = []
    pending = [json.loads(grammar.value)] if grammar.kind == "structural_tag" else []
    while pending:
        node = pending.pop()
        if node["type"] == "tag":
            tags.append(node["begin"])
        pending += [node["format"]] if "format" in node else [*node.get("elements", []), *node.get("tags", [])]
    return ["", *tags]


def _compile(params: StructuredOutputsParams | None, info: xgrammar.TokenizerInfo) -> xgrammar.CompiledGrammar:
    """Compile as vLLM does without optional white space; choices have been converted to a grammar."""
    assert params is not None
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    if params.regex is not None:
        return compiler.compile_regex(params.regex)
    if params.grammar is not None:
        return compiler.compile_grammar(params.grammar)
    if params.structural_tag is not None:
        return compiler.compile_structural_tag(params.structural_tag)
    schema = params.json if params.json is not None else '{"type": "object"}'
    return compiler.compile_json_schema(schema, any_whitespace=False, separators=(",", ":"))


def _walk(
    matcher: xgrammar.GrammarMatcher, info: xgrammar.TokenizerInfo, num_steps: int, *, may_be_empty: bool
) -> str | None:
    """Generate the beginning of an answer, to check that there is one and that each step is fast."""
    mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
    generator = random.Random(0)
    stops = set(info.stop_token_ids)
    started_at_s = time.process_time()
    for step in range(num_steps):
        matcher.fill_next_token_bitmask(mask)
        bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")[: info.vocab_size]
        allowed = np.flatnonzero(bits)
        if len(allowed) == 0 or (step == 0 and not may_be_empty and stops.intersection(allowed.tolist())):
            return "matches no text"
        token = int(allowed[generator.randrange(len(allowed))])
        if token in stops or not matcher.accept_token(token):
            break
    if time.process_time() - started_at_s > STEP_CPU_S * (step + 1) + CONVERT_CPU_S:
        return "takes too much time for each token"
    return None


def _reason(error: Exception) -> str:
    """The message of xgrammar's error, without the location in its source."""
    text = str(error).splitlines()[-1] if str(error) else type(error).__name__
    return _SOURCE_LOCATION.sub("", text)[:300].rstrip(".")
