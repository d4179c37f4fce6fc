"""Contenders of train.py: `python train_contenders.py NAME JOB`; JOB is JSON, the last line printed is the sample.

NAME is `ours`, `padded` (transformers alone, one document per row, the model's own loss), `trl` (TRL's SFTTrainer; with the job's
`check`, afterwards, which of its settings keep documents apart and whether its loss is ours).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from measuring import peak_megabytes
from train_data import FIRST, documents, make_model

Job = dict[str, Any]
ISOLATED = 1e-4  # largest difference of logits that counts as equal, in fp32
SETTINGS: dict[str, dict[str, Any]] = {
    "packing, bfd, sdpa": {"packing": True, "packing_strategy": "bfd", "attention": "sdpa"},
    "packing, bfd, eager": {"packing": True, "packing_strategy": "bfd", "attention": "eager"},
    "packing, wrapped, sdpa": {"packing": True, "packing_strategy": "wrapped", "attention": "sdpa"},
    "padding-free, sdpa": {"padding_free": True, "max_length": None, "attention": "sdpa"},
}


def data_of(job: Job) -> Any:
    """Return documents for all updates of a job."""
    num_tokens = int(1.1 * job["updates"] * job["batch_size"] * job["context"])
    return documents(num_tokens, job["shape"]["vocab_size"], job["mean_length"], job["context"])


def wait(device: str) -> tuple[float, float]:
    """Return the time, and this process's own, when the device has done all that it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def peak(device: str) -> float:
    """Return the peak megabytes of this process on its device."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    return peak_megabytes()


def lora_of(job: Job) -> dict[str, Any]:
    """Return peft's settings."""
    return {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }


def sample_of(ends: list[tuple[float, float]], tokens: list[int], job: Job) -> Job:
    """Sum the updates up, the first set aside; `tokens` has those of each update."""
    seconds, cpu_seconds = np.diff(ends, axis=0).T
    kept = np.array(tokens[1:])
    return {
        "tokens_per_second": float(np.median(kept / seconds)),
        "tokens_per_cpu_second": float(np.median(kept / cpu_seconds)),
        "peak_mb": peak(job["device"]),
    }


# ------------------------------------------------------------------------------------------------ ours


def run_ours(job: Job) -> Job:
    """Train with this project's packing, attention, loss and update."""
    import torch

    from taskmill.recipe import Lora, Train
    from taskmill.training.models.adapters import add_lora
    from taskmill.training.monitoring import throughput
    from taskmill.training.packing.batches import collate
    from taskmill.training.packing.packs import pack
    from taskmill.training.updating import attention
    from taskmill.training.updating.update import Updater

    data, device, size = data_of(job), job["device"], job["micro_batch_size"]
    model = make_model(job["shape"], job["context"], device)
    if job["method"] == "lora":
        model = add_lora(model, Lora(dropout=0.0), 0)
    name = attention.install(model, job["attention"], job["precision"])
    attention.isolation_check(model, name, job["shape"]["vocab_size"], job["precision"])
    train = Train(attention=name, precision=job["precision"], method=job["method"], learning_rate=1e-4)
    updater = Updater(model.train(), train, device=torch.device(device))
    packs = pack(data.lengths, job["context"], 1024, 0)
    shape, flops, ends, tokens, losses = throughput.model_shape(model), [], [], [], []
    trained: list[int] = []

    def step(number: int) -> None:
        numbers = np.arange(number * job["batch_size"], (number + 1) * job["batch_size"])
        batches = [collate(data, packs, numbers[i : i + size], 0) for i in range(0, len(numbers), size)]
        done = updater.update(batches, sum(batch.weight for batch in batches), 1e-4)
        ends.append(wait(device))
        losses.append(done.loss)
        tokens.append(sum(batch.num_tokens for batch in batches))
        trained.append(sum(batch.num_targets for batch in batches))
        flops.append(sum(shape.flops(batch) for batch in batches))

    for number in range(min(job["updates"], packs.num_packs // job["batch_size"])):
        step(number)
    found = sample_of(ends, tokens, job)
    found["threads"] = torch.get_num_threads()
    rate = throughput.matmul_rate(device, job["precision"])
    per_token = sum(flops) / sum(tokens)
    found |= {
        "attention": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops_per_token": per_token,
        "matmul_tflops": rate / 1e12,
        "mfu": found["tokens_per_second"] * per_token / rate,
        "share_trained": sum(trained) / sum(tokens),
        "num_trained": sum(trained),
        "losses": losses,
    }
    if device == "cuda" and found["mfu"] < 0.5:
        found["profile"] = profile(lambda: step(0))
    return found


def profile(work: Any) -> list[str]:
    """Return where an update's time on the GPU goes: the longest kernels, in milliseconds."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as seen:
        started = time.perf_counter()
        work()
        wall = time.perf_counter() - started
    events = [e for e in seen.key_averages() if getattr(e, "self_device_time_total", 0) > 0]
    events.sort(key=lambda e: -e.self_device_time_total)
    lines = [
        f"{1e3 * wall:8.1f} ms  the update, {sum(e.self_device_time_total for e in events) / 1e3:.1f} of it on the GPU"
    ]
    return lines + [
        f"{e.self_device_time_total / 1e3:8.1f} ms  {e.count:6d} x {e.key[:90]}" for e in events[:20]
    ]


# ----------------------------------------------------------------------------------- padding, transformers alone


def run_padded(job: Job) -> Job:
    """Train with one document per row, padded to the longest of its forward pass."""
    import torch

    data, device, rows = data_of(job), job["device"], job["padded_rows"]
    model = make_model(job["shape"], job["context"], device).train()
    if job["method"] == "lora":
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(**lora_of(job)))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    wanted, at, ends, tokens = job["batch_size"] * job["context"], 0, [], []
    half = torch.bfloat16 if job["precision"] == "bf16" else None
    for _ in range(job["updates"]):
        number, until = 0, at
        while number < wanted and until < len(data.lengths):
            number, until = number + int(data.lengths[until]), until + 1
        passes = [range(i, min(i + rows, until)) for i in range(at, until, rows)]
        targets = sum(
            int(data.trained[data.offsets[i] : data.offsets[i + 1]].sum()) for i in range(at, until)
        )
        for some in passes:
            width = max(int(data.lengths[i]) for i in some)
            ids, labels = np.zeros((len(some), width), np.int64), np.full((len(some), width), -100)
            mask = np.zeros_like(ids)
            for row, i in enumerate(some):
                mine, marked = data.of(i)
                ids[row, : len(mine)], labels[row, : len(mine)], mask[row, : len(mine)] = mine, marked, 1
            given = {"input_ids": ids, "labels": labels, "attention_mask": mask}
            tensors = {name: torch.from_numpy(value).to(device) for name, value in given.items()}
            with torch.autocast(device, half, enabled=half is not None):
                loss = model(**tensors, num_items_in_batch=targets, use_cache=False).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(wait(device))
        tokens.append(number)
        at = until
    return sample_of(ends, tokens, job)


# ------------------------------------------------------------------------------------------------- TRL


def make_trainer(job: Job, data: Any, model: Any, folder: str, **settings: Any) -> Any:
    """Return an SFTTrainer for documents that are tokenised already."""
    import datasets
    import peft
    import tokenizers
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    vocabulary = {"<pad>": 0, "<s>": FIRST, "</s>": 2}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    ids, labels = zip(*(data.of(i) for i in range(len(data.lengths))))
    arguments: Job = {
        "output_dir": folder,
        "max_length": job["context"],
        "gradient_checkpointing": False,
        "bf16": job["precision"] == "bf16",
        "use_cpu": job["device"] == "cpu",
        "optim": "adamw_torch_fused",
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1000,
        "disable_tqdm": True,
        "dataset_num_proc": 1,
        "max_steps": job["updates"],
        **settings,
    }
    return SFTTrainer(
        model,
        args=SFTConfig(**arguments),
        train_dataset=datasets.Dataset.from_dict({"input_ids": list(ids), "labels": list(labels)}),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(**lora_of(job)) if job["method"] == "lora" else None,
    )


def run_trl(job: Job) -> Job:
    """Train with TRL's SFTTrainer, with the settings of the job's `setting`."""
    import transformers

    settings = dict(SETTINGS[job["setting"]])
    name = settings.pop("attention")
    if job["device"] == "cuda" and job["precision"] == "bf16" and has_flash():
        name = "flash_attention_2"
    rows = job["trl_rows"]
    settings |= {"per_device_train_batch_size": rows}
    if settings.get("packing"):
        settings |= {"gradient_accumulation_steps": max(1, job["batch_size"] // rows)}
    else:
        each = job["batch_size"] * job["context"] / job["mean_length"]
        settings |= {"gradient_accumulation_steps": max(1, round(each / rows))}
    model = make_model(job["shape"], job["context"], job["device"], name)
    ends: list[tuple[float, float]] = []
    tokens = [0]

    class Clock(transformers.TrainerCallback):
        """Notes when an update is done."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(wait(job["device"]))
            tokens.append(int(trainer._total_train_tokens))

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(job, data_of(job), model, folder, **settings)
        trainer.add_callback(Clock())
        trainer.train()
    found = {**sample_of(ends, np.diff(tokens).tolist(), job), "attention": name}
    return {**found, **checked_settings(job)} if job["check"] else found


def has_flash() -> bool:
    """Return whether the flash-attn package is there."""
    import importlib.util

    return importlib.util.find_spec("flash_attn") is not None


def checked_settings(job: Job) -> Job:
    """Compare the logits of each setting's first batch with those of its documents alone; and its loss with ours."""
    small = {**job, "device": "cpu", "precision": "fp32", "method": "full", "context": 256, "mean_length": 40}
    small |= {"updates": 1, "batch_size": 8}
    small["shape"] = {**job["shape"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    small["shape"] |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 512}
    data, found, losses = data_of(small), {}, {}
    for name, settings in SETTINGS.items():
        settings = dict(settings)
        model = make_model(small["shape"], small["context"], "cpu", settings.pop("attention"))
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(small, data, model, folder, per_device_train_batch_size=4, **settings)
            inputs = next(iter(trainer.get_train_dataloader()))
            found[name] = largest_difference(model, dict(inputs))
            if found[name] <= ISOLATED:
                losses[name] = difference_of_losses(trainer, model, dict(inputs))
    return {"differences": found, "loss_differences": losses}


def largest_difference(model: Any, inputs: Job) -> float:
    """Return how far the logits of a batch are from those of its documents alone."""
    import torch

    model.eval()
    labels = inputs.pop("labels")
    largest = 0.0
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
        for row in range(len(labels)):
            ids = inputs["input_ids"][row]
            starts = torch.nonzero(ids == FIRST).flatten().tolist()
            last = int((ids != 0).nonzero().max()) + 1
            for start, end in zip(starts, [*starts[1:], last]):
                alone = model(input_ids=ids[None, start:end], use_cache=False).logits[0]
                largest = max(largest, float((logits[row, start:end] - alone).abs().max()))
    return largest


def difference_of_losses(trainer: Any, model: Any, inputs: Job) -> float:
    """Return how far TRL's loss of a batch is from ours of the same documents."""
    import torch

    from taskmill.training.packing.batches import Batch
    from taskmill.training.updating import attention
    from taskmill.training.updating.objective import packed_loss

    ids, labels = inputs["input_ids"].numpy(), inputs["labels"].numpy()
    positions = inputs["position_ids"].numpy()
    begins = positions == 0
    targets, weights = np.zeros_like(ids), np.zeros(ids.shape, np.float32)
    follows = (labels[:, 1:] != -100) & ~begins[:, 1:]
    targets[:, :-1], weights[:, :-1] = np.where(follows, ids[:, 1:], 0), follows
    batch = Batch(ids, positions, np.cumsum(begins, 1) - 1, targets, weights, ids.size)
    with torch.no_grad():
        theirs = float(
            trainer.compute_loss(model, dict(inputs), num_items_in_batch=torch.tensor(batch.num_targets))
        )
        name = attention.install(model, "auto")
        ours = float(packed_loss(model, batch, name)) / batch.weight
    return abs(ours - theirs)


RUNS = {"ours": run_ours, "padded": run_padded, "trl": run_trl}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    told = json.loads(Path(sys.argv[2]).read_text())
    if told["threads"]:
        os.environ["OMP_NUM_THREADS"] = str(told["threads"])  # before torch is imported
    result = RUNS[sys.argv[1]](told)
    sys.stdout.write("\n" + json.dumps(result) + "\n")
