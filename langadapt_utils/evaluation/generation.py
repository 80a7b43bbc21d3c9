"""Generation: a model continues a text or answers a prompt until it ends the text."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, TextStreamer
from transformers import PreTrainedTokenizerFast as Tokenizer

from .. import hardware
from ..chat import answer_tokens
from ..models import longest_context
from ..tokens import document_end, document_start, token_ids
from ..trials import LEAKED, keeps_apart


class Reply(NamedTuple):
    """The text that a model generated after a prompt.

    Attributes:
        text: without special tokens.
        tokens: number of generated tokens, including the one that ends the text.
        seconds: generation time, including the prompt, of all prompts answered together.
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


def replies(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    new_tokens: int,
    *,
    chat: bool = False,
    show: Callable[[str], Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Reply]:
    """Generate text after each prompt, until the model ends it or the tokens are used up.

    Args:
        model: that generates.
        tokenizer: of the model.
        prompts: to continue or answer; read together if a trial shows that padding is not seen.
        new_tokens: maximum per prompt; fewer if they exceed the context of the model.
        chat: whether to use the chat template of the tokenizer.
        show: called with each piece of text as soon as it is generated, for a single prompt.
        seed: of sampling.
        options: of `generate`, for example from `sampled`.

    Raises:
        ModelError: `chat` is true, but the base has no chat template.
    """
    first, longest = document_start(tokenizer), longest_context(model)
    if chat:
        asked = [answer_tokens(tokenizer, prompt) for prompt in prompts]
    else:
        asked = [([first, *ids], [], []) for ids in token_ids(tokenizer, prompts)]
    ends = {first, document_end(tokenizer), *asked[0][-1]} - {None}
    new_tokens = min(new_tokens, longest - 1)
    read = [before[new_tokens - longest :] for before, *_ in asked]
    ids_BT, mask_BT = _padded(read)
    width, short = ids_BT.shape[1], read.index(min(read, key=len))
    if show:
        options["streamer"] = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        options["streamer"].on_finalized_text = lambda text, stream_end=False: show(text)
    precision, device = hardware.native_precision(), model.device
    with torch.random.fork_rng(), torch.no_grad(), hardware.autocast(precision, device.type):
        trial = model, torch.tensor([read[short]]), ids_BT[[short]], LEAKED
        hidden = len(read[short]) == width or keeps_apart(*trial, attention_mask=mask_BT[[short]])
        if len(prompts) > 1 and not hidden:
            options |= {"chat": chat, "seed": seed}
            return [replies(model, tokenizer, [p], new_tokens, **options)[0] for p in prompts]
        options |= {"max_new_tokens": new_tokens, "eos_token_id": list(ends), "pad_token_id": first}
        options |= {"attention_mask": mask_BT.to(device), "return_dict_in_generate": False}
        torch.manual_seed(seed)
        began = time.perf_counter()
        written_BT = _written(model, ids_BT.to(device), **options)
    seconds, found = time.perf_counter() - began, list[Reply]()
    for new in written_BT[:, width:].tolist():
        new = new[: 1 + next((n for n, token in enumerate(new) if token in ends), len(new))]
        text = tokenizer.decode(new, skip_special_tokens=True)
        found.append(Reply(text, len(new), seconds, new[-1] in ends))
    return found


def _padded(read: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids with padding on the left, and a mask that is 0 there.

    A prompt is padded with a token of its own, as a penalty for repetition counts padding, too.
    """
    width = max(map(len, read))
    mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in read])
    return torch.tensor([ids[:1] * (width - len(ids)) + ids for ids in read]), mask_BT


def _written(model: PreTrainedModel, ids_BT: torch.Tensor, **options: Any) -> Any:
    """Return ids followed by the ids that a model generates.

    The base's own settings of generation do not count. If `generate` fails, as with the cache of
    some architectures, it runs again without a cache.
    """
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        return model.generate(ids_BT, **options)
    except Exception:  # of many kinds; any other fault stops the second call, too
        if streamer := options.get("streamer"):
            streamer.end()  # so that it begins again, wherever `generate` failed
        return model.generate(ids_BT, **options | {"use_cache": False})
    finally:
        model.generation_config = own
