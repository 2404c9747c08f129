"""The engine's sampling parameters of a request; the context's length is enforced here. Pure."""

from collections.abc import Mapping

from model_executor.engine import SamplingParams
from server.core.errors import BadRequestError
from server.generation.request import GenerationRequest
from server.prompt.context_length import require_fit
from server.prompt.plain import check_token_ids


def sampling_params(
    request: GenerationRequest,
    *,
    num_prompt_tokens: int,
    param: str,
    max_model_len: int,
    num_vocabulary_tokens: int,
    defaults: Mapping[str, float],
) -> SamplingParams:
    """The engine's parameters for one prompt of a request.

    Args:
        request: whose sampling fields count.
        num_prompt_tokens: length of the prompt.
        param: the request field the prompt stands in.
        max_model_len: length of the context, prompt and output together.
        num_vocabulary_tokens: valid token ids are below it.
        defaults: the checkpoint's values for sampling fields the request leaves open.

    Raises:
        BadRequestError: prompt and output do not fit, or a token id is none of the model's.
    """
    fields = request.sampling
    if open_fields := {name: defaults[name] for name in defaults.keys() - fields.sent_fields}:
        fields = fields.model_copy(update=open_fields)
    require_fit(num_prompt_tokens, request.max_output_tokens, max_model_len, param=param)
    room = max_model_len - num_prompt_tokens
    max_tokens = request.max_output_tokens or min(request.default_max_tokens or room, room)
    if fields.min_tokens > max_tokens:
        raise BadRequestError(
            f"'min_tokens' is {fields.min_tokens}, and the answer can be no longer than {max_tokens} tokens.",
            param="min_tokens",
            code="invalid_value",
        )
    bias = {int(token_id): value for token_id, value in fields.logit_bias.items()}
    check_token_ids((("logit_bias", token_id) for token_id in bias), num_vocabulary_tokens)
    stops = ((f"stop_token_ids[{index}]", token_id) for index, token_id in enumerate(fields.stop_token_ids))
    check_token_ids(stops, num_vocabulary_tokens)
    # The engine takes temperature 0 for one output only; sampling from a single candidate is the same for several.
    greedy_outputs = fields.n > 1 and fields.temperature == 0
    return SamplingParams(
        max_tokens=max_tokens,
        n=fields.n,
        temperature=1.0 if greedy_outputs else fields.temperature,
        top_p=fields.top_p,
        top_k=1 if greedy_outputs else max(fields.top_k, 0),
        min_p=fields.min_p,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        repetition_penalty=fields.prompt_penalty,
        seed=fields.seed,
        stop=fields.stop_strings,
        stop_token_ids=fields.stop_token_ids,
        include_stop_str_in_output=fields.include_stop_str_in_output,
        ignore_eos=fields.ignore_eos,
        min_tokens=fields.min_tokens,
        logprobs=request.num_top_logprobs,
        prompt_logprobs=request.num_top_logprobs if request.echoes else None,
        logit_bias=bias,
        skip_special_tokens=fields.skip_special_tokens,
        grammar=request.grammar,
    )
