"""What a request asks of sampling, as the engine's limits; the context's length is enforced here. Pure."""

from model_executor.engine import Grammar, SamplingParams
from server.core.errors import BadRequestError
from server.generation.sampling_fields import SamplingRequest
from server.prompt.context_length import require_fit


def sampling_params(
    request: SamplingRequest,
    *,
    num_prompt_tokens: int,
    max_model_len: int,
    default_max_tokens: int | None,
    num_vocabulary_tokens: int,
    prompt_param: str = "messages",
    grammar: Grammar | None = None,
) -> SamplingParams:
    """The engine's limits for a request.

    Args:
        request: what was asked.
        num_prompt_tokens: length of the prompt.
        max_model_len: length of the context, prompt and answer together.
        default_max_tokens: longest answer where the request names none; None for what the context leaves.
        num_vocabulary_tokens: valid token ids are below it.
        prompt_param: the request field the prompt stands in.
        grammar: what the answer follows, or None for free text.

    Raises:
        BadRequestError: prompt or answer do not fit, or a token id is none of the model's.
    """
    require_fit(num_prompt_tokens, request.max_answer_tokens, max_model_len, param=prompt_param)
    room = max_model_len - num_prompt_tokens
    max_tokens = request.max_answer_tokens or min(default_max_tokens or room, room)
    if request.min_tokens > max_tokens:
        raise BadRequestError(
            f"'min_tokens' is {request.min_tokens}, and the answer can be no longer than {max_tokens} tokens.",
            param="min_tokens",
            code="invalid_value",
        )
    bias = {int(token_id): value for token_id, value in request.logit_bias.items()}
    _require_known(bias, "logit_bias", num_vocabulary_tokens)
    _require_known(request.stop_token_ids, "stop_token_ids", num_vocabulary_tokens)
    # The engine takes temperature 0 for one choice only; sampling from a single candidate is the same for several.
    greedy_choices = request.n > 1 and request.temperature == 0
    return SamplingParams(
        max_tokens=max_tokens,
        n=request.n,
        temperature=1.0 if greedy_choices else request.temperature,
        top_p=request.top_p,
        top_k=1 if greedy_choices else max(request.top_k, 0),
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        seed=request.seed,
        stop=request.stop_strings,
        stop_token_ids=request.stop_token_ids,
        include_stop_str_in_output=request.include_stop_str_in_output,
        ignore_eos=request.ignore_eos,
        min_tokens=request.min_tokens,
        logprobs=request.num_top_logprobs,
        logit_bias=bias,
        skip_special_tokens=request.skip_special_tokens,
        grammar=grammar,
    )


def _require_known(token_ids: dict[int, float] | list[int], param: str, num_vocabulary_tokens: int) -> None:
    for token_id in token_ids:
        if token_id >= num_vocabulary_tokens:
            raise BadRequestError(
                f"'{param}' has the token id {token_id}; the model's ids are below {num_vocabulary_tokens}.",
                param=param,
                code="invalid_value",
            )
