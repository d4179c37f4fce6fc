"""Tokenising: our encoder beside a plain `encode_batch_fast` over the same texts, with equal ids.

    python benchmarks/tokenise.py [--quick] [--data PATH] [--run RUN] [--tokenizer FOLDER] [--json OUT]

Ours goes from rows of the prompts table in memory to ids, segments and which tokens carry loss, as the stage tokenize does:
it cuts, finds equal parts, encodes each once and puts the ids together. The plain contender has its texts (those that stand
between control segments) in memory as Python strings, calls `encode_batch_fast` on 2,000 at a time and puts the ids into
one array, nothing else. Both use all cores. The ids must be equal, or the benchmark fails. Processor seconds of all threads
stand among the figures: where other programs run, they are steadier.

`speed_over_encode_batch_fast` is the plain contender's seconds over ours, of all train prompts that the mixture reaches;
`speed_over_encode_batch_fast_NAME` the same for one benchmark alone, where ours starts without any word. `repeated_share`
says how much of the text of a benchmark stands in segments that occur more than once: what is shared as it is.

The data are invented prompts (definitions before inputs, as in Super-NaturalInstructions), or, with `--data`, a folder of
real upstream files, of which the catalogue is curated, split, rendered and mixed first, or `--run`, a run that is
finished up to mix. The tokenizer is a byte-level BPE of 32,000 ids (`--quick`: 4,000) trained on a sixth of the texts.
Contenders are fresh processes and take turns, three rounds (one with `--quick`); the medians count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import ROOT, Sample, median, peak_megabytes, sample, versions

sys.path.insert(0, str(ROOT))
RECIPE = ROOT / "examples" / "recipes" / "catalogue.yaml"
ALL = "all"


# ------------------------------------------------------------------------------------------ contenders


def clocks() -> tuple[float, float]:
    """Return the time, and the processor time of this process."""
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> tuple[float, float]:
    """Return seconds and processor seconds since `started`."""
    wall, cpu = clocks()
    return wall - started[0], cpu - started[1]


def ours(files: list[Path], wanted: Any, tokenizer: Any) -> tuple[tuple[float, float], int, str]:
    """Return the seconds, wall and processor, the number of ids and their digest, special tokens left out."""
    import numpy as np

    from taskmill.training.encoding.reading import reached
    from taskmill.training.encoding.writing import encoded

    parts = list(reached(files, wanted, validation=False))
    started = clocks()
    found = list(encoded(tokenizer, iter(parts)))
    seconds = since(started)
    digest, number = hashlib.sha256(), 0
    for part, encodings in found:
        first = np.repeat(part.rows.first_R[:-1], np.diff(encodings.offsets_R))
        ids = encodings.ids_T[~part.rows.control_S[first + encodings.segment_T]]
        digest.update(ids.astype("<i4").tobytes())
        number += len(ids)
    return seconds, number, digest.hexdigest()


def plain(files: list[Path], wanted: Any, tokenizer: Any) -> tuple[tuple[float, float], int, str]:
    """Return the same of encoding every text on its own."""
    import numpy as np

    texts = whole_texts(files, wanted)
    arrays = []
    started = clocks()
    for first in range(0, len(texts), 2000):
        batch = tokenizer.backend.encode_batch_fast(texts[first : first + 2000], add_special_tokens=False)
        arrays.append(np.fromiter((number for encoding in batch for number in encoding.ids), np.int32))
    ids = np.concatenate(arrays)
    seconds = since(started)
    return seconds, len(ids), hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()


def whole_texts(files: list[Path], wanted: Any) -> list[str]:
    """Return the texts that are encoded as a whole."""
    from taskmill.training.encoding.reading import reached

    return [text for part in reached(files, wanted, validation=False) for text in part.rows.whole_texts()]


def contend(name: str, run: Path, tokenizer_folder: Path) -> Sample:
    """Run one contender over every benchmark and over all."""
    from taskmill.training.encoding.tokenizer import open_tokenizer

    files = prompt_files(run)
    tokenizer = open_tokenizer(tokenizer_folder)
    tokenizer.backend.encode_batch_fast(["warm"] * 64, add_special_tokens=False)
    line: Sample = {}
    for benchmark, wanted in wanted_rows(run).items():
        seconds, number, digest = {"ours": ours, "plain": plain}[name](files, wanted, tokenizer)
        line |= {f"{benchmark}_seconds": seconds[0], f"{benchmark}_cpu_seconds": seconds[1]}
        line |= {f"{benchmark}_ids": number, f"{benchmark}_digest": digest}
    return {**line, "peak_mb": peak_megabytes()}


# ------------------------------------------------------------------------------------------------ data


def prompt_files(run: Path) -> list[Path]:
    """Return the prompts' files in row order."""
    return sorted((run / "prompts" / "prompts").glob("*.parquet"))


def wanted_rows(run: Path) -> dict[str, Any]:
    """Return the rows that the mixture reaches, of each benchmark and of all."""
    import numpy as np

    from taskmill.storage import read_json, read_table

    names = []
    for path in prompt_files(run):
        table = read_table(path, ["task", "split"])
        for task, split in zip(*(table[column].to_pylist() for column in ("task", "split"))):
            names.append(task.partition("/")[0] if split == "train" else "")
    of_row, rows = np.array(names), np.arange(len(names))
    if (run / "mixture" / "mixture.json").is_file():
        from taskmill.training.mixture import Mixture

        number = read_json(run / "mixture" / "mixture.json")["num_prompts"]
        rows = np.unique(Mixture.open(run / "mixture").rows(number))
    found = {name: rows[of_row[rows] == name] for name in sorted(set(of_row[rows].tolist()) - {""})}
    return {**found, ALL: np.sort(np.concatenate(list(found.values())))}


def repeated_share(files: list[Path], wanted: Any) -> float:
    """Return the share of text in segments that occur more than once, their first occurrence left out."""
    from taskmill.training.encoding.reading import reached

    total, seen = 0, dict[str, None]()
    for part in reached(files, wanted, validation=False):
        for text in part.rows.texts_S.to_pylist():
            total += len(text)
            seen[text] = None
    return 1 - sum(map(len, seen)) / max(1, total)


def write_invented(run: Path, num_tasks: int, num_rows: int) -> None:
    """Write prompts of invented tasks: a definition, an input, an answer."""
    from taskmill.records import SCHEMAS, SEGMENT_KINDS
    from taskmill.seeding import derive
    from taskmill.storage import TableWriter

    def words(count: int, *key: Any) -> str:
        draws = (derive(7, *map(str, key), place) for place in range(count))
        return " ".join(f"w{draw % 997}o{(draw >> 20) % 89}rd" if draw % 5 else "the" for draw in draws)

    codes = [SEGMENT_KINDS.index(kind) for kind in ("instruction", "input", "output", "control")]
    with TableWriter(run / "prompts" / "prompts" / "a.parquet", SCHEMAS["prompts/prompts"]) as writer:
        for task in range(num_tasks):
            definition = f"Definition: {words(70, 'definition', task)}.\n\n"
            for number in range(num_rows):
                parts = [
                    definition,
                    words(30, "input", task, number) + "\nOutput:",
                    f" {number % 4} yes",
                    "{eos}",
                ]
                sizes = [len(part.encode()) for part in parts]
                row = {"prompt": bytes(8), "example": f"i/{task}#{number}", "task": f"invented/{task}"}
                row |= {"split": "train", "text": "".join(parts), "kinds": codes, "loss_weight": 1.0}
                row |= {
                    "ends": [sum(sizes[: n + 1]) for n in range(4)],
                    "trained": [False, False, True, True],
                }
                writer.append(
                    {**row, "references": [], "demonstrations": [], "format": "plain", "joint": True}
                )


def prepared(folder: Path, data: Path | None, quick: bool) -> Path:
    """Return a run with prompts."""
    run = folder / "run"
    if data is None:
        write_invented(run, 20 if quick else 100, 100 if quick else 500)
        return run
    command = [
        sys.executable,
        "-m",
        "taskmill",
        "run",
        str(RECIPE),
        "--to",
        "mix",
        "--run",
        str(run),
        "--quiet",
    ]
    settings = ["--set", f"data_root={data.resolve()}"]
    subprocess.run([*command, *settings], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return run


def trained_tokenizer(folder: Path, run: Path, vocab_size: int) -> Path:
    """Train a tokenizer on a sixth of the texts."""
    from taskmill.artifact import ShardWriter
    from taskmill.training.encoding.tokenizer import train_tokenizer

    texts = whole_texts(prompt_files(run), wanted_rows(run)[ALL])[::6]
    with ShardWriter(folder, "tokenizer", "00") as shard:
        train_tokenizer(iter(texts), vocab_size, shard)
    return folder / "tokenizer"


# ------------------------------------------------------------------------------------------------ main


def main() -> int:
    """Run both contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few invented prompts and one round")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--run", type=Path, help="a run that is finished up to mix, instead of --data")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--contender", choices=("ours", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        sys.stdout.write(json.dumps(contend(arguments.contender, arguments.run, arguments.tokenizer)) + "\n")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = (arguments.run or prepared(folder, arguments.data, arguments.quick)).resolve()
        size = 4_000 if arguments.quick else 32_000
        tokenizer = (arguments.tokenizer or trained_tokenizer(folder, run, size)).resolve()
        samples: dict[str, list[Sample]] = {"ours": [], "plain": []}
        for _ in range(1 if arguments.quick else 3):
            for contender, taken in samples.items():
                command = [sys.executable, __file__, "--contender", contender, "--run", str(run)]
                taken.append(sample([*command, "--tokenizer", str(tokenizer)]))
        wanted = wanted_rows(run)
        shares = {name: repeated_share(prompt_files(run), rows) for name, rows in wanted.items()}
    ratios, figures = {}, {}
    for part in (ALL, *(name for name in wanted if name != ALL)):
        own, other = samples["ours"], samples["plain"]
        if own[0][f"{part}_digest"] != other[0][f"{part}_digest"]:
            sys.stderr.write(f"the ids of {part} differ\n")
            return 1
        end = "" if part == ALL else f"_{part}"
        seconds = median(own, f"{part}_seconds"), median(other, f"{part}_seconds")
        ratios[f"speed_over_encode_batch_fast{end}"] = round(seconds[1] / seconds[0], 2)
        figures |= {
            f"{part}_ours_seconds": round(seconds[0], 3),
            f"{part}_plain_seconds": round(seconds[1], 3),
        }
        figures |= {f"{part}_ids": own[0][f"{part}_ids"], f"{part}_repeated_share": round(shares[part], 3)}
    figures["found"] = samples["ours"][0][f"{ALL}_ids"]
    figures |= {
        f"{ALL}_{name}_cpu_seconds": round(median(t, f"{ALL}_cpu_seconds"), 3) for name, t in samples.items()
    }
    figures |= {f"{name}_peak_mb": round(median(taken, "peak_mb")) for name, taken in samples.items()}
    result = {"ratios": ratios, "figures": figures, "versions": versions("numpy", "pyarrow", "tokenizers")}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
