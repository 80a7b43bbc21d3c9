"""Generation: a model continues a text or answers a prompt until it ends the text."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, TextStreamer
from transformers import PreTrainedTokenizerFast as Tokenizer

from .. import hardware
from ..chat import answer_tokens
from ..models import longest_context
from ..tokens import document_end, document_ids, document_start


class Reply(NamedTuple):
    """The text that a model generated after a prompt.

    Attributes:
        text: without special tokens.
        tokens: number of generated tokens, including the one that ends the text.
        seconds: generation time, including the prompt.
        ended: whether the model ended the text.
    """

    text: str
    tokens: int
    seconds: float
    ended: bool

    def __str__(self) -> str:
        speed = f"{len(self.text) / self.seconds:,.0f} characters per second"
        return f"{self.tokens} tokens, {speed}, {'ended by itself' if self.ended else 'cut off'}"


def sampled(temperature: float, top_p: float = 0.9) -> dict[str, Any]:
    """Return the options of `generate` for a temperature. At 0 it takes the most likely token, but
    never repeats three tokens.

    Example:
        >>> sampled(0)
        {'do_sample': False, 'no_repeat_ngram_size': 3}
    """
    if not temperature:
        return {"do_sample": False, "no_repeat_ngram_size": 3}
    drawn = {"temperature": temperature, "top_p": top_p, "repetition_penalty": 1.1}
    return {"do_sample": True, **drawn}


def reply(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompt: str,
    new_tokens: int,
    *,
    chat: bool = False,
    show: Callable[[str], Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> Reply:
    """Generate text after a prompt, until the model ends it or the tokens are used up.

    Args:
        model: that generates.
        tokenizer: of the model.
        prompt: to continue or answer.
        new_tokens: maximum; fewer if they exceed the context of the model.
        chat: whether to use the chat template of the tokenizer.
        show: called with each piece of text as soon as it is generated.
        seed: of sampling.
        options: of `generate`, for example from `sampled`.

    Raises:
        ModelError: `chat` is true, but the base has no chat template.
    """
    before = answer_tokens(tokenizer, prompt) if chat else (document_ids(tokenizer, prompt), [])
    ends = list({document_start(tokenizer), document_end(tokenizer), *before[-1]} - {None})
    new_tokens = min(new_tokens, longest_context(model) - 1)
    room = longest_context(model) - new_tokens
    options |= {"max_new_tokens": new_tokens, "eos_token_id": ends, "pad_token_id": ends[0]}
    # Whatever the base's own settings are; they may also have `stop_strings`.
    options = {"num_beams": 1, "num_return_sequences": 1, "tokenizer": tokenizer} | options
    if show:
        options["streamer"] = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        options["streamer"].on_finalized_text = lambda text, stream_end=False: show(text)
    ids_BT = torch.tensor([before[0][-room:]], device=model.device)
    began, precision = time.perf_counter(), hardware.native_precision()
    with torch.random.fork_rng(), torch.no_grad(), hardware.autocast(precision, model.device.type):
        torch.manual_seed(seed)
        new = _written(model, ids_BT, **options)[0, ids_BT.shape[1] :].tolist()
    seconds, text = time.perf_counter() - began, tokenizer.decode(new, skip_special_tokens=True)
    return Reply(text, len(new), seconds, new[-1] in ends)


def _written(model: PreTrainedModel, ids_BT: torch.Tensor, **options: Any) -> Any:
    """Return ids followed by the ids that a model generates.

    If `generate` fails, as with the cache of some architectures, it runs again without a cache.
    """
    options |= {"attention_mask": torch.ones_like(ids_BT)}
    try:
        return model.generate(ids_BT, **options)
    except Exception:  # of many kinds; any other fault stops the second call, too
        if streamer := options.get("streamer"):
            streamer.end()  # so that it begins again, wherever `generate` failed
        return model.generate(ids_BT, **options | {"use_cache": False})
