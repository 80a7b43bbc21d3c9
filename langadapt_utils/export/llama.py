"""llama.cpp in a separate process: ids of texts, likelihoods, greedy continuations.

The package `xllamacpp` contains llama.cpp with a web server, which listens on a free local port. If
llama.cpp crashes, for example by a failed assertion, this process continues.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any
from urllib.request import Request, urlopen

import torch
from more_itertools import chunked, split_at

from ..errors import ModelError, explained
from ..files import package_yaml

TOGETHER = 100  # texts per request
BIAS, ALL = 1e6, 10**6  # of the logit of a forced id; more ids than any vocabulary has
SERVE = package_yaml("export/llama_cpp.yaml")["serve"]


@contextmanager
def loaded(path: Path, *, context: int = 256) -> Iterator["Llama"]:
    """Load a GGUF file into llama.cpp for the duration of a block.

    Args:
        path: of the file.
        context: maximum number of tokens.

    Raises:
        ModelError: llama.cpp cannot load the file.
    """
    command = [sys.executable, "-c", SERVE, str(path), str(context), str(torch.get_num_threads())]
    quick = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # no debugger after a crash
    with Popen(command, text=True, env=quick, stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            if not address:
                raise ModelError(f"llama.cpp cannot load {path.name}: update xllamacpp")
            yield Llama(address)
        finally:
            process.kill()


@dataclass(frozen=True)
class Llama:
    """A model in llama.cpp.

    Attributes:
        address: of its server.
    """

    address: str

    def ids(self, texts: Sequence[str], separator: int) -> list[list[int]]:
        """Return the ids of each text, encoded as running text.

        Args:
            texts: any number.
            separator: id of a special token that separates the texts of a request.
        """
        found: list[list[int]] = []
        for some in chunked(texts, TOGETHER):
            content = [part for text in some for part in (separator, text)]
            ids = self._ask("tokenize", content=content, parse_special=False)["tokens"]
            found += list(split_at(ids, lambda index: index == separator))[1:]
        return found

    def nats(self, start: int, ids: Sequence[int]) -> float:
        """Return the negative log-likelihood of ids, in nats.

        llama.cpp returns the likelihood of generated ids only. So a bias forces it to generate each
        id; the bias does not change the returned likelihood. It returns nothing for an incomplete
        character. Then it generates another id and returns the likelihood of all ids.

        Args:
            start: id before the text.
            ids: of a text.
        """
        nats, plain = 0.0, self.ids(["a"], start)[0][0]
        for place, index in enumerate(ids):
            likely = self._forced([start, *ids[:place]], index, 1)
            likely = likely or self._forced([start, *ids[:place]], plain, ALL)
            nats -= likely[index]
        return nats

    def continuation(self, ids: Sequence[int], length: int) -> list[int]:
        """Return the greedy continuation of ids, at most `length` ids long."""
        return list(self._write(ids, length)["tokens"])

    def _forced(self, prompt: Sequence[int], index: int, count: int) -> dict[int, float]:
        """Force one id after a prompt; return log-likelihoods by id, or none inside a character."""
        reply = self._write(prompt, 1, n_probs=count, logit_bias=[[index, BIAS]])
        firsts = reply.get("completion_probabilities", ())
        ranked = [token for first in firsts for token in (*first["top_logprobs"], first)]
        return {token["id"]: token["logprob"] for token in ranked}

    def _write(self, prompt: Sequence[int], length: int, **options: Any) -> Any:
        greedy = {"samplers": ["top_k"], "top_k": 1, "return_tokens": True}
        return self._ask("completion", prompt=list(prompt), n_predict=length, **greedy, **options)

    def _ask(self, path: str, **body: Any) -> Any:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        stopped = explained(ModelError, "llama.cpp stopped", "update xllamacpp", OSError)
        with stopped, urlopen(Request(f"{self.address}/{path}", data, kind)) as answer:
            return json.load(answer)
