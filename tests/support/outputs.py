"""The engine's deltas read as output events, outside of a server."""

from model_executor.engine import PositionLogprobs, Prompt, TokenLogprob
from model_executor.processor.tokenizer import Tokenizer
from server.generation.output import OutputReader
from server.generation.request import GenerationRequest

END = 151_645
"""`<|im_end|>`."""


def reader(tokenizer: Tokenizer, prompt: Prompt, request: GenerationRequest, *, may_call: bool = False) -> OutputReader:
    return OutputReader(
        [prompt],
        num_outputs=request.sampling.n,
        may_call=may_call,
        num_top_logprobs=request.num_top_logprobs,
        tokenizer=tokenizer,
        end_token_ids=(END,),
    )


def position(token_id: int, logprob: float, *top: tuple[int, float]) -> PositionLogprobs:
    return PositionLogprobs(TokenLogprob(token_id, logprob), [TokenLogprob(*one) for one in top])
