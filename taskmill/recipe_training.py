"""The sections `mix`, `tokenize` and `train` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Auxiliary:
    """A part of the mixture set aside before the benchmarks share the rest."""

    share: float
    """From 0 to under 1, of all that is drawn."""
    unit: Literal["prompts", "sequences", "tokens"] = "prompts"
    """What the share counts; sequences and tokens are both shares of the text."""
    paid_by: str | None = None
    """The benchmark whose share pays for it; by default all are rescaled."""


@dataclass(frozen=True)
class Mix:
    """What is drawn how often (OPT-IML section 4)."""

    mode: Literal["shares", "concatenation"] = "shares"
    """shares draws each part at its share, repeating small tasks (OPT-IML); concatenation takes every prompt that is kept
    once per epoch (TULU, FLAN-MINI, OpenChat)."""
    by: Literal["benchmark", "class"] = "benchmark"
    """What a part of the mixture is: a benchmark, or a class of quality as in `render.conditions` (OpenChat); prompts
    without a class are the part `none`."""
    shares: dict[str, float] | None = None
    """Mode shares: share of prompts per part, summing to 1; by default proportional to the capped sizes."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Mode concatenation: prompts taken of a part, spread over its tasks by capped size (FLAN-MINI); others are taken whole."""
    keep: dict[str, float] = field(default_factory=dict)
    """Mode concatenation: share of a part's prompts that is kept, those of smallest hash (OpenChat's sub-sampling of a class)."""
    epochs: int = 1
    """Mode concatenation: how often every kept prompt is drawn, each epoch in an order of its own."""
    cap: int = 4096
    """Most examples of a task that count towards its rate."""
    auxiliary: dict[Literal["reasoning", "pretraining", "dialogue", "chat"], Auxiliary] = field(
        default_factory=dict
    )
    num_prompts: int | None = None
    """Positions of the mixture that the run reaches; by default one for each train prompt, in mode concatenation all epochs."""
    block: int = 1000
    """Positions over which every share is met, but for rounding to whole prompts."""


@dataclass(frozen=True)
class Tokenize:
    """How the mixture becomes token ids."""

    tokenizer: str | None = None
    """Folder or Hub id of a tokenizer; by default one is trained on the run's own mixture."""
    revision: str | None = None
    """Commit or tag of a tokenizer on the Hub."""
    vocab_size: int = 4096
    """Size of the tokenizer that the run trains."""
    max_length: int = 2048
    """Tokens of context; longer prompts lose input on the left, longer documents are cut into pieces."""
    conversations: Literal["cut", "split"] = "cut"
    """Conversations longer than the context: cut on the right, or split between pairs of turns; a pair that is too long by
    itself is left out."""
    add_tokens: bool = True
    """Whether marks of a chat format that the tokenizer lacks become new special tokens of it, or stop the stage."""


@dataclass(frozen=True)
class Architecture:
    """A small causal language model made on the spot when the recipe names none."""

    num_layers: int = 2
    """Transformer blocks."""
    hidden_size: int = 128
    """Width; a multiple of twice the number of heads."""
    num_heads: int = 4
    """Attention heads."""
    feedforward_size: int = 384
    """Width of the feed-forward layer."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters through peft."""

    rank: int = 8
    """Rank of each adapter."""
    alpha: int = 16
    """Scale: adapters are multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout on the adapters' input."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Modules that get an adapter."""


@dataclass(frozen=True)
class Train:
    """How the model is fine-tuned."""

    model: str | None = None
    """Folder or Hub id of a causal language model, or with `weights: random` a file config.json; by default one of
    `architecture` is initialised."""
    revision: str | None = None
    """Commit or tag of a model on the Hub."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Whether `model` gives its weights, or its configuration only."""
    architecture: Architecture = Architecture()
    method: Literal["full", "lora"] = "full"
    """All weights, or low-rank adapters."""
    lora: Lora = Lora()
    quantization: Literal["none", "4bit"] = "none"
    """Method lora: the frozen weights in 4 bits (NF4, through bitsandbytes)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """fp32; bf16; or fp16 with dynamic loss scaling. The optimizer's state and its copy of the weights are fp32 in each."""
    attention: Literal["auto", "documents", "flash", "flex", "sdpa", "eager"] = "auto"
    """Implementation; each is checked at the start to keep packed documents apart. auto takes the fastest that is there."""
    activation_checkpointing: bool = False
    """Whether activations are computed again in the backward pass, for memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    num_steps: int | None = None
    """Updates; by default as many as the tokens fill."""
    loss: Literal["targets", "sequence"] = "targets"
    """What carries loss: the trained tokens of a prompt, or every token but the first of a document."""
    loss_normalisation: Literal["token", "message"] = "token"
    """message divides the weight of each trained message by its tokens (OpenChat's per-sequence loss)."""
    packing: Literal["best_fit", "none"] = "best_fit"
    """Whether several documents share a sequence, or each has its own."""
    batch_size: int = 16
    """Packed sequences per update, over all devices."""
    batch_tokens: int | None = None
    """Most tokens per update over all devices, instead of `batch_size`; balanced over them (OpenChat's multipack)."""
    micro_batch_size: int = 4
    """Packed sequences per forward pass of a device."""
    packing_window: int = 1024
    """Consecutive documents of the mixture that are packed together."""
    learning_rate: float = 5e-5
    """At its peak."""
    warmup_steps: int = 60
    """Updates of linear warm-up."""
    warmup_share: float | None = None
    """Share of all updates, rounded up, instead of `warmup_steps` (TULU 3 %)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """After warm-up: linear to 0, cosine to 10 %, or constant."""
    weight_decay: float = 0.0
    """AdamW's; biases and norms do not decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's."""
    epsilon: float = 1e-8
    """AdamW's."""
    max_gradient_norm: float = 1.0
    """Gradients are clipped to it."""
    dropout: float = 0.0
    """Wherever the model has a setting for it."""
    validation_steps: int | None = None
    """Updates between measurements of the loss on validation prompts, by level; also after the last; by default only then."""
    checkpoint_steps: int = 500
    """Updates between checkpoints."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
