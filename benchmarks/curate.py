"""Curating: our stage beside two bare floors (parse the same files, write one Parquet file) and beside `datasets`.

    python benchmarks/curate.py [--quick] [--data PATH] [--recipe RECIPE] [--json OUT]

A floor is a script of one process that parses each file that curate reads, as often as sources read it, and writes every
record as JSON text to one Parquet file with zstd: no ids, words, groups, duplicates, licences or damage. `floor` parses with
the standard library (json, csv, gzip), `fast_floor` with orjson in json's place; YAML and Parquet go through PyYAML's C
parser and pyarrow in both. Curate has two workers. `floor_over_ours` and `fast_floor_over_ours` are wall time of the floor
over wall time of curate, `speed_over_datasets` that of `datasets.load_dataset` over it, each file once.

Without `--data` it makes Super-NaturalInstructions tasks and documents from seeded words (6 MB quick, 60 MB otherwise), of
which all must find the same number of records. With it, the recipe's sources are read from PATH; the floors and `datasets`
then read each file as it lies there, while a cast may make several examples of a record, so that the numbers of records are
figures only. The contenders take turns, three rounds of each (one with `--quick`), of which the best counts; `datasets` has
a single round. All run in fresh processes, whose start counts. Ratios above 1 mean that we are ahead.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

Load = Callable[[bytes], Any]
Dump = Callable[[Any], str]
ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
RECIPE = """
name: generated
sources:
  - {reader: super_natural_instructions, path: tasks}
  - {reader: documents, path: documents}
"""

# ------------------------------------------------------------------------------------------- the data


def make_data(folder: Path, num_bytes: int) -> Path:
    """Write about `num_bytes` of upstream files, two thirds of them tasks; return the recipe."""
    from taskmill.seeding import derive

    vocabulary = [
        f"{'aeiou'[i % 5]}{'bcdfglmnprst'[i % 12]}{i % 97:x}{'aeiou'[i // 7 % 5]}" for i in range(5000)
    ]

    def text(num_words: int, *key: object) -> str:
        state, found = derive(1, "bench", *key), []
        for _ in range(num_words):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            found.append(vocabulary[(state >> 33) % 5000])
        return " ".join(found)

    (folder / "tasks" / "tasks").mkdir(parents=True)
    (folder / "documents").mkdir()
    size = number = 0
    while size < num_bytes * 2 // 3:
        name = f"task{number:04d}"
        instances = [
            {"id": f"{name}-{i}", "input": text(40, number, i), "output": [text(3, number, i, "o")]}
            for i in range(200)
        ]
        shown = [{"input": text(40, number, "p", i), "output": "yes", "explanation": "so"} for i in range(2)]
        task = {
            "Definition": [text(20, number)],
            "Categories": ["Question Answering"],
            "Source": [f"source {number}"],
            "Positive Examples": shown,
            "Negative Examples": [],
            "Instances": instances,
        }
        path = folder / "tasks" / "tasks" / f"{name}.json"
        path.write_text(json.dumps(task, indent=4), encoding="utf-8")
        size += path.stat().st_size
        number += 1
    for file in range(4):
        lines = [json.dumps({"text": text(150, file, i)}) for i in range(num_bytes // 12 // 850)]
        (folder / "documents" / f"part{file}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


# ---------------------------------------------------------------------------------------- contenders


def floor(files: list[Path], out: Path) -> int:
    """Parse every file with the standard library; write the rows as one Parquet file."""

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    return parse_all(files, out, json.loads, dump)


def fast_floor(files: list[Path], out: Path) -> int:
    """Parse every file with orjson; write the rows as one Parquet file."""
    import orjson

    def load(raw: bytes) -> Any:
        try:
            return orjson.loads(raw)
        except ValueError:  # bare NaN
            return json.loads(raw)

    return parse_all(files, out, load, lambda value: orjson.dumps(value).decode())


def parse_all(files: list[Path], out: Path, load: Load, dump: Dump) -> int:
    """Parse every file in this process; write the rows as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names: list[str] = []
    values: list[str] = []
    for path in files:
        rows = parse(path, load, dump)
        before = len(values)
        values.extend(rows)
        names.extend([path.name] * (len(values) - before))
    pq.write_table(pa.table({"file": names, "value": values}), out, compression="zstd")
    return len(values)


def parse(path: Path, load: Load, dump: Dump) -> Iterable[str]:
    """Return the rows of a file, each as one text."""
    raw = path.read_bytes()
    name = path.name.removesuffix(".gz")
    if name != path.name:
        raw = gzip.decompress(raw)
    if name.endswith(".json"):
        value = load(raw)
        lists = (
            [rows for rows in value.values() if isinstance(rows, list)]
            if isinstance(value, dict)
            else [value]
        )
        return [dump(row) for rows in lists for row in rows if isinstance(row, dict)]
    if name.endswith(".jsonl"):
        return [dump(load(line)) for line in raw.splitlines() if line.strip()]
    if name.endswith(".tsv"):
        return [dump(line.split("\t")) for line in raw.decode().split("\n") if line]
    if name.endswith(".csv"):
        return [dump(row) for row in csv.reader(io.StringIO(raw.decode("utf-8", "replace")))]
    if name.endswith((".yaml", ".yml")):
        import yaml

        return [json.dumps(list(map(str, yaml.compose(raw.decode(), Loader=yaml.CSafeLoader).value)))]
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return [dump(row) for row in pq.read_table(path).to_pylist()]
    return raw.decode("utf-8", "replace").splitlines()


def with_datasets(files: list[Path], out: Path) -> int:
    """Read the same files with `datasets.load_dataset`, one call per folder and format, per file where that fails."""
    import datasets

    datasets.disable_progress_bars()
    groups: dict[tuple[Path, str], list[str]] = {}
    for path in sorted(set(files)):
        suffix = Path(path.name.removesuffix(".gz")).suffix
        groups.setdefault((path.parent, suffix), []).append(str(path))
    num_rows = 0
    for (_, suffix), paths in sorted(groups.items()):
        try:
            num_rows += load(suffix, paths, out)
        except Exception:  # noqa: BLE001 - the library raises its own and pyarrow's; a file is then read as text
            for path in paths:
                try:
                    num_rows += load(suffix, [path], out)
                except Exception:  # noqa: BLE001
                    num_rows += load(".txt", [path], out)
    return num_rows


def load(suffix: str, paths: list[str], out: Path) -> int:
    """Return how many rows `datasets` reads from files of one format; of a task file, its three lists."""
    import datasets

    kind = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(
        suffix, "text"
    )
    options: dict[str, Any] = {"cache_dir": str(out), "split": "train", "data_files": paths}
    if suffix == ".tsv":
        options |= {"sep": "\t", "header": None, "quoting": csv.QUOTE_NONE}
    if suffix == ".json" and b'"Instances"' in Path(paths[0]).read_bytes():
        lists = ("Instances", "Positive Examples", "Negative Examples")
        filled = {field: [p for p in paths if json.loads(Path(p).read_bytes())[field]] for field in lists}
        return sum(
            len(datasets.load_dataset(kind, **{**options, "data_files": found}, field=field))
            for field, found in filled.items()
            if found
        )
    return len(datasets.load_dataset(kind, **options))


def child(name: str, listing: str, out: str) -> None:
    """Run one contender on the files of a listing; print how many rows it found."""
    files = [Path(line) for line in Path(listing).read_text(encoding="utf-8").splitlines()]
    found = {"floor": floor, "fast_floor": fast_floor, "datasets": with_datasets}[name](files, Path(out))
    sys.stdout.write(json.dumps({"records": found}))


# ------------------------------------------------------------------------------------------ measuring


def run(command: list[str]) -> tuple[float, int, str]:
    """Run a command; return its seconds, the peak memory of it and its children together (bytes), and its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env=environment)
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        errors = process.stderr.read().decode() if process.stderr else ""
        output.seek(0)
        text = output.read().decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    return seconds, peak, text


def memory_of(pid: int) -> int:
    """Return the resident bytes of a process and its descendants, as Linux tells them; 0 elsewhere."""
    total = 0
    waiting = [pid]
    while waiting:
        number = waiting.pop()
        try:
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for task in Path(f"/proc/{number}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError, IndexError):
            continue
    return total


def ours(recipe: Path, data: Path, folder: Path) -> list[str]:
    """Return the command that curates with our stage; the cache of file digests starts empty."""
    settings = ["--set", f"data_root={data}", "--run", str(folder), "--workers", str(WORKERS)]
    return [sys.executable, "-m", "taskmill", "curate", str(recipe), *settings, "--quiet"]


def measure(recipe: Path, data: Path, folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return seconds (the best round), peak bytes and records of each contender."""
    results: dict[str, dict[str, float]] = {}
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    listing = folder / "files.txt"
    for turn in range(rounds):
        for name in ("ours", "floor", "fast_floor", "datasets"):
            if name == "datasets" and turn:
                continue
            out = folder / f"{name}-{turn}"
            command = [sys.executable, __file__, "--child", name, str(listing), str(out)]
            seconds, peak, text = run(ours(recipe, data, out) if name == "ours" else command)
            if name == "ours":
                manifest = json.loads((out / "tasks" / "manifest.json").read_text())
                files = sorted(data / file["name"] for s in manifest["upstream"] for file in s["files"])
                listing.write_text("\n".join(str(f) for f in files if f.is_file()), encoding="utf-8")
                records = manifest["counts"]["examples_read"]
            else:
                records = json.loads(text)["records"]
            before = results.get(name, {"seconds": seconds})["seconds"]
            peak = max(peak, int(results.get(name, {"peak": 0})["peak"]))
            results[name] = {"seconds": min(before, seconds), "peak": peak, "records": records}
    return results


def main() -> int:
    """Run all contenders in turn, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="6 MB and one round")
    parser.add_argument("--data", type=Path, help="folder of real upstream files")
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples" / "recipes" / "catalogue.yaml")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder, data, recipe = Path(name), arguments.data, arguments.recipe
        if data is None:
            sys.path.insert(0, str(ROOT))
            data = folder / "data"
            recipe = make_data(data, 6_000_000 if arguments.quick else 60_000_000)
        results = measure(recipe.resolve(), data.resolve(), folder, 1 if arguments.quick else 3)
        num_bytes = sum(Path(f).stat().st_size for f in (folder / "files.txt").read_text().splitlines())
    if arguments.data is None and len({result["records"] for result in results.values()}) != 1:
        sys.stderr.write(f"the numbers of records differ: {results}\n")
        return 1
    seconds = {name: result["seconds"] for name, result in results.items()}
    result = {
        "ratios": {
            "floor_over_ours": round(seconds["floor"] / seconds["ours"], 3),
            "fast_floor_over_ours": round(seconds["fast_floor"] / seconds["ours"], 3),
            "speed_over_datasets": round(seconds["datasets"] / seconds["ours"], 2),
        },
        "figures": {
            "found": results["ours"]["records"],
            "megabytes": round(num_bytes / 1e6, 1),
            **{f"{name}_seconds": round(value, 2) for name, value in seconds.items()},
            **{f"{name}_peak_mb": round(result["peak"] / 1e6) for name, result in results.items()},
            **{f"{name}_records": result["records"] for name, result in results.items()},
        },
        "versions": {
            "python": platform.python_version(),
            **{p: metadata.version(p) for p in ("numpy", "pyarrow", "datasets")},
        },
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
