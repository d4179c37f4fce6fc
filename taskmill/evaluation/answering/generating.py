"""Generation with a causal language model: greedy, or seeded samples at a temperature.

Openings are sorted by length and cut into static batches, padded on the left; results come in the order of the
requests. A prompt is read once for all its samples in a batch, and rows that are done leave it. Nothing depends on the
batch size, or on what else is in a batch, but the last bits of a float: what is drawn is a function of the opening's key,
the number of the sample and the step. Position ids and masks are always explicit.

Shapes: B prompts of a batch, R rows (samples of prompts), L tokens of the longest prompt, T steps, V vocabulary.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskmill.errors import DataError, LimitError, MissingPackageError
from taskmill.evaluation.answering import caching, drawing
from taskmill.evaluation.answering.scorer import Scorer
from taskmill.evaluation.answering.stopping import Watch, cut
from taskmill.evaluation.asking.fitting import Opening
from taskmill.recipe_evaluate import Sampling
from taskmill.training.encoding.tokenizer import TextTokenizer

try:
    import torch
except ImportError as error:
    raise MissingPackageError("torch", "train", "scoring with a model") from error

log = logging.getLogger("taskmill")

_DONE_SHARE = 0.25
"""Rows leave a batch once this share of them is done: what is left is copied then, about as much work as one step."""


def generate(
    scorer: Scorer, tokenizer: TextTokenizer, openings: Sequence[Opening], sampling: Sampling
) -> list[list[str]]:
    """Return `num_samples` generated texts for each opening, without special tokens and outer spaces.

    Each stops at its first end of sequence or of turn, before its first stop string, or after its own `max_new_tokens`.
    At temperature 0 all texts of an opening are the one with the likeliest token each time; among equal logits the
    lowest id wins.

    Raises:
        DataError: the model gives no number for a token.
        LimitError: one opening alone does not fit the device's memory.
    """
    num_drawn = sampling.num_samples if sampling.temperature > 0 else 1
    ids: list[list[list[int]]] = [[[] for _ in range(num_drawn)] for _ in openings]
    with torch.inference_mode():
        asked = _Asked(scorer, tokenizer, sampling)
        for batch in asked.batches(openings, num_drawn):
            for row in _run(asked, batch):
                ids[row.place][row.sample] = row.ids
    decoded = iter(
        tokenizer.backend.decode_batch([row for rows in ids for row in rows], skip_special_tokens=True)
    )
    texts = [[cut(next(decoded), opening.stop).strip() for _ in range(num_drawn)] for opening in openings]
    return [many * (sampling.num_samples if num_drawn == 1 else 1) for many in texts]


@dataclass
class _Row:
    """One sample of an opening, and the tokens generated for it so far."""

    place: int
    sample: int
    opening: Opening
    ids: list[int]
    watch: Watch | None

    def take(self, token: int, eos_id: int) -> bool:
        """Add a token, and return whether the row goes on."""
        if token in (eos_id, self.opening.end_id):
            return False
        self.ids.append(token)
        if len(self.ids) >= self.opening.max_new_tokens:
            return False
        return self.watch is None or not self.watch.stopped(self.ids)


class _Asked:
    """A model with what is known of it for all batches."""

    def __init__(self, scorer: Scorer, tokenizer: TextTokenizer, sampling: Sampling) -> None:
        self.scorer, self.tokenizer, self.sampling = scorer, tokenizer, sampling
        self.takes = caching.takes(scorer.model)
        self.device = scorer.device
        self.most_tokens = caching.most_tokens(scorer.model, self.device)
        self.watches: dict[tuple[str, ...], Watch] = {}
        probe = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
        cache = self.forward(probe, torch.ones_like(probe), probe, None)[1]
        self.has_cache = cache is not None
        self.picks = cache is None or caching.pickable(cache)
        self.probed = cache

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any, reuse: bool = True
    ) -> tuple[torch.Tensor, Any]:
        """Return the logits behind the last tokens, [rows, V], and the model's cache (None where it has none)."""
        arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": reuse}
        if "position_ids" in self.takes:
            arguments["position_ids"] = positions.clone()  # which some models change
        if cache is not None:
            arguments["past_key_values"] = cache
        if "logits_to_keep" in self.takes:
            arguments["logits_to_keep"] = 1
        with contextlib.nullcontext() if "logits_to_keep" in self.takes else _last_only(self.scorer.model):
            out = self.scorer.model(**arguments)
        return out.logits[:, -1], getattr(out, "past_key_values", None)

    def watch(self, stop: tuple[str, ...]) -> Watch | None:
        """Return what looks out for these stop strings."""
        if not any(stop):
            return None
        return self.watches.setdefault(stop, Watch(self.tokenizer, stop))

    def batches(self, openings: Sequence[Opening], num_drawn: int) -> Iterator[list[_Row]]:
        """Cut all rows, longest prompts first and samples of one prompt together, into batches.

        Rows of a model without a cache are never padded: a recurrent one would read the padding.
        """
        order = sorted(
            (i for i in range(len(openings)) if openings[i].max_new_tokens > 0),
            key=lambda i: (-len(openings[i].ids), -openings[i].max_new_tokens, i),
        )
        batch: list[_Row] = []
        most = 0
        for place in order:
            opening = openings[place]
            for sample in range(num_drawn):
                length = len(batch[0].opening.ids) if batch else len(opening.ids)
                longest = max(most, opening.max_new_tokens)
                over = (len(batch) + 1) * (length + longest) > self.most_tokens
                uneven = not self.has_cache and length != len(opening.ids)
                if batch and (len(batch) >= self.scorer.batch_size or over or uneven):
                    yield batch
                    batch, longest = [], opening.max_new_tokens
                batch.append(_Row(place, sample, opening, [], self.watch(opening.stop)))
                most = longest
        if batch:
            yield batch


@contextlib.contextmanager
def _last_only(model: Any) -> Iterator[None]:
    """Give the output layer the last place of each row alone, where the model has one that can be found."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, given: (given[0][:, -1:], *given[1:]), prepend=True)
    try:
        yield
    finally:
        hook.remove()


def _run(asked: _Asked, rows: list[_Row]) -> list[_Row]:
    """Generate rows together or, where the device's memory does not suffice, half of them after the other."""
    try:
        return _Batch(asked, rows).run()
    except torch.cuda.OutOfMemoryError:
        pass  # what the failure holds of the device is free behind this block only
    opening, half = rows[0].opening, len(rows) // 2
    if not half:
        raise LimitError(
            f"a prompt of {len(opening.ids)} tokens and {opening.max_new_tokens} new ones do not fit the memory of "
            f"{asked.device} beside the model; lower evaluate.max_new_tokens or tokenize.max_length"
        )
    asked.most_tokens = half * (len(opening.ids) + max(row.opening.max_new_tokens for row in rows))
    log.warning(
        "evaluate: %d texts at once do not fit the memory of %s; fewer at once", len(rows), asked.device
    )
    for row in rows:
        row.ids.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return _run(asked, rows[:half]) + _run(asked, rows[half:])


class _Batch:
    """Rows that are generated together: `run` returns them when all are done."""

    def __init__(self, asked: _Asked, rows: list[_Row]) -> None:
        self.asked, self.rows = asked, rows
        self.num_steps = max(row.opening.max_new_tokens for row in rows)
        self.cache: Any = None
        sampling, device = asked.sampling, asked.device
        if sampling.temperature > 0:
            uniform_RT = drawing.uniforms(
                [row.opening.key for row in rows], [row.sample for row in rows], self.num_steps
            )
            self.uniform_TR = torch.from_numpy(np.ascontiguousarray(uniform_RT.T)).to(device)

    def run(self) -> list[_Row]:
        """Generate until every row is done."""
        logits_RV = self._read()
        if bool(logits_RV.isnan().any()):
            raise DataError(
                "the model gives no number (NaN) for the next token of a prompt: its weights are no numbers, or they "
                "overflow evaluate.precision"
            )
        present = self.rows
        going = np.ones(len(present), dtype=bool)
        for step in range(self.num_steps):
            tokens_R = self._choose(logits_RV, step)
            for r, token in enumerate(tokens_R.tolist()):
                if going[r]:
                    going[r] = present[r].take(token, self.asked.scorer.eos_id)
            num_going = int(going.sum())
            if not num_going:
                break
            if len(present) - num_going >= _DONE_SHARE * len(present) and self._leave(going):
                kept = np.flatnonzero(going)
                present, tokens_R = [present[r] for r in kept], tokens_R[self._on_device(kept)]
                going = going[kept]
            logits_RV = self._step(tokens_R)
        return self.rows

    def _read(self) -> torch.Tensor:
        """Read the prompts, each once, and return the logits behind them: [R, V]."""
        asked, rows = self.asked, self.rows
        fresh = [not (r and asked.picks and rows[r - 1].place == row.place) for r, row in enumerate(rows)]
        first, source_R = np.flatnonzero(fresh).tolist(), np.cumsum(fresh) - 1
        openings = [rows[r].opening for r in first]
        length = max(len(opening.ids) for opening in openings)
        ids_BL = np.full((len(openings), length), asked.scorer.pad_id, dtype=np.int64)
        mask_BL = np.zeros((len(openings), length + self.num_steps), dtype=np.int64)
        for b, opening in enumerate(openings):
            ids_BL[b, length - len(opening.ids) :] = opening.ids
            mask_BL[b, length - len(opening.ids) :] = 1
        ids, self.mask = self._on_device(ids_BL), self._on_device(mask_BL)
        self.length = length
        positions = (self.mask[:, :length].cumsum(1) - 1).clamp(min=0)
        logits, self.cache = asked.forward(
            ids,
            self.mask[:, :length],
            positions,
            caching.roomy(asked.probed, length + self.num_steps),
            asked.has_cache,
        )
        self.position = positions[:, -1:]
        self.ids = ids
        if len(first) == len(rows):
            return logits
        source = self._on_device(source_R)
        if self.cache is not None:
            self.cache = caching.pick(self.cache, source)
        self.mask, self.position, self.ids = self.mask[source], self.position[source], ids[source]
        return logits[source]

    def _step(self, tokens_R: torch.Tensor) -> torch.Tensor:
        """Read the tokens just chosen, and return the logits behind them: [R, V]."""
        self.length += 1
        self.position = self.position + 1
        mask = self.mask[:, : self.length]
        if self.cache is not None:
            logits, self.cache = self.asked.forward(tokens_R[:, None], mask, self.position, self.cache)
            return logits
        self.ids = torch.cat([self.ids, tokens_R[:, None]], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return self.asked.forward(self.ids, mask, positions, None, reuse=False)[0]

    def _choose(self, logits_RV: torch.Tensor, step: int) -> torch.Tensor:
        sampling = self.asked.sampling
        if sampling.temperature <= 0:
            return drawing.likeliest(logits_RV)
        return drawing.draw(logits_RV, self.uniform_TR[step], sampling.temperature, sampling.top_p)

    def _leave(self, going: NDArray[np.bool_]) -> bool:
        """Keep only the rows that go on; return whether that could be done."""
        if not self.asked.picks:
            return False
        kept = self._on_device(np.flatnonzero(going))
        if self.cache is not None:
            self.cache = caching.pick(self.cache, kept)
        else:
            self.ids = self.ids[kept]
        self.mask, self.position = self.mask[kept], self.position[kept]
        if self.asked.sampling.temperature > 0:
            self.uniform_TR = self.uniform_TR[:, kept]
        return True

    def _on_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.asked.device)
