"""How many examples each real upstream file holds, counted without the package: json, csv, gzip and re alone.

`count_files` looks at every file below the folder of real data: it holds a number of examples that a reader must account for,
or it is auxiliary and holds none, with the reason. A file that no line of the two tables fits is an error.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple


class UpstreamFile(NamedTuple):
    """What a file is."""

    kind: str
    """Its format, or why it is auxiliary."""
    num: int | None
    """Examples in it; None: it is auxiliary."""


def text_of(path: Path) -> str:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")


def lines_of(path: Path) -> list[str]:
    return [line for line in text_of(path).split("\n") if line.strip()]


def load(path: Path) -> Any:
    return json.loads(text_of(path))


def load_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in lines_of(path)]


def csv_rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text_of(path), newline="")))


# ------------------------------------------------------------------------------------------- one format


def _list(path: Path) -> int:
    return len(load(path))


def _lines(path: Path) -> int:
    return len(lines_of(path))


def _table(path: Path) -> int:
    """Rows below a header line."""
    return len(lines_of(path)) - 1


def _sni(path: Path) -> int:
    body = load(path)
    return sum(len(body[key]) for key in ("Instances", "Positive Examples", "Negative Examples"))


def _multirc(path: Path) -> int:
    questions = [asked for row in load_lines(path) for asked in row["passage"]["questions"]]
    return sum(len(asked["answers"]) for asked in questions)


def _record_lines(path: Path) -> int:
    return sum(len(row["qas"]) for row in load_lines(path))


def _record_list(path: Path) -> int:
    return sum(len(row["qas"]) for row in load(path)["data"])


def paragraphs(path: Path) -> list[Any]:
    """The paragraphs of a file of SQuAD's nesting."""
    return [paragraph for part in load(path)["data"] for paragraph in part["paragraphs"]]


def _squad(path: Path) -> int:
    return sum(len(paragraph["qas"]) for paragraph in paragraphs(path))


def _quac(path: Path) -> int:
    return len(paragraphs(path))


def _drop(path: Path) -> int:
    return sum(len(passage["qa_pairs"]) for passage in load(path).values())


def _tabfact(path: Path) -> int:
    return sum(len(entry[0]) for entry in load(path).values())


def leaves(tree: dict[str, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every path of messages from the root to a message without replies."""
    above = (*above, tree)
    if not tree["replies"]:
        yield above
    for reply in tree["replies"]:
        yield from leaves(reply, above)


def _oasst_tree(path: Path) -> int:
    return sum(len(list(leaves(row["prompt"]))) for row in load_lines(path))


def _oasst_message(path: Path) -> int:
    return sum(len(list(leaves(row))) for row in load_lines(path))


def _oasst_list(path: Path) -> int:
    messages = load(path)
    answered = {message["parent_message_id"] for message in messages}
    return sum(message["user_message_id"] not in answered for message in messages)


def _instances(path: Path) -> int:
    return sum(len(row["instances"]) for row in load_lines(path))


def _bbh(path: Path) -> int:
    return len(load(path)["examples"])


def _exemplars(path: Path) -> int:
    return text_of(path).count("\n\nQ: ")


def _mmlu_prompts(path: Path) -> int:
    return sum(text.count("\n\nQ:") for text in load(path).values())


def _csv(path: Path) -> int:
    return len(csv_rows(path))


def _csv_header(path: Path) -> int:
    return len(csv_rows(path)) - 1


# --------------------------------------------------------------------------------------------- all files

_FIXTURES = "exmix_t5/allennlp_fixtures"
_FEWGLUE = "exmix_t5/superglue_fewglue"
COUNTED: dict[str, tuple[str, Callable[[Path], int]]] = {
    "super_natural_instructions/tasks*/task*.json": ("super_natural_instructions", _sni),
    "promptsource/t0_train_rendered/*.jsonl": ("p3", _lines),
    "reasoning/flan_cot/*_train.tsv": ("reasoning", _lines),
    "reasoning/mmlu_flan_cot_fewshot/_cot_prompts.json": ("mmlu_exemplars", _mmlu_prompts),
    f"{_FEWGLUE}/MultiRC/*.jsonl": ("multirc", _multirc),
    f"{_FEWGLUE}/ReCoRD/*.jsonl": ("record", _record_lines),
    f"{_FEWGLUE}/*/*.jsonl": ("superglue", _lines),
    "exmix_t5/boolq/dev.jsonl": ("boolq", _lines),
    "exmix_t5/codah/full_data.tsv": ("codah", _lines),
    "exmix_t5/scan/tasks.txt": ("scan", _lines),
    f"{_FIXTURES}/classification/boolq.jsonl": ("boolq", _lines),
    f"{_FIXTURES}/classification/sst.txt": ("sst", _lines),
    f"{_FIXTURES}/mc/commonsenseqa.jsonl": ("commonsense_qa", _lines),
    f"{_FIXTURES}/mc/piqa.jsonl": ("piqa", _lines),
    f"{_FIXTURES}/mc/swag.csv": ("swag", _csv_header),
    "snli*.jsonl": ("snli", _lines),
    f"{_FIXTURES}/pair_classification/quora_paraphrase.tsv": ("quora", _lines),
    f"{_FIXTURES}/rc/qangaroo.json": ("wiki_hop", _list),
    f"{_FIXTURES}/rc/record.json": ("record", _record_list),
    f"{_FIXTURES}/rc/superglue_rte.jsonl": ("superglue", _lines),
    f"{_FIXTURES}/rc/*.json": ("squad", _squad),
    "unifiedskg/dart/dart-*.json": ("dart", _list),
    "unifiedskg/fetaqa/*.jsonl": ("fetaqa", _lines),
    "unifiedskg/spider/dev.json": ("spider", _list),
    "unifiedskg/tabfact/test_examples.json": ("tabfact", _tabfact),
    "unifiedskg/wikitablequestions/data/*.tsv": ("wikitq", _table),
    "eval/mmlu/*/*.csv": ("mmlu", _csv),
    "eval/bbh/cot-prompts/*.txt": ("bbh_exemplars", _exemplars),
    "eval/bbh/*.json": ("bbh", _bbh),
    "eval/gsm8k/*.jsonl": ("gsm8k", _lines),
    "eval/truthfulqa/*.csv": ("truthfulqa", _csv_header),
    "eval/drop/drop.json": ("drop", _drop),
    "code/humaneval/HumanEval.jsonl.gz": ("humaneval", _lines),
    "chat/alpaca/alpaca_data*.json": ("alpaca", _list),
    "chat/code_alpaca/*.json": ("alpaca", _list),
    "chat/llama_factory/alpaca_en_demo.json": ("alpaca", _list),
    "chat/self_instruct/*.jsonl": ("self_instruct", _instances),
    "chat/self_instruct/predictions/*.jsonl": ("predictions", _lines),
    "chat/code_alpaca/seed_tasks.jsonl": ("self_instruct", _instances),
    "chat/dolly/dolly.json": ("dolly", _list),
    "chat/sharegpt/*.json": ("sharegpt", _list),
    "chat/llama_factory/glaive_toolcall_en_demo.json": ("sharegpt", _list),
    "chat/oasst/en_100_tree.jsonl": ("oasst", _oasst_tree),
    "chat/oasst/en_100_message.jsonl": ("oasst", _oasst_message),
    "chat/oasst/realistic_seed_data.json": ("oasst", _oasst_list),
    "chat/oasst/*_text.jsonl": ("oasst", _lines),
    "dialogue/sgd/*/dialogues_*.json": ("sgd", _list),
    "dialogue/quac/quac_sample.json": ("quac", _quac),
    "pretraining/c4_demo.jsonl": ("documents", _lines),
    "pretraining/wiki_demo.txt": ("documents", _lines),
}
"""Files -> format and counter; the first line that fits counts."""

AUXILIARY: dict[str, str] = {
    "*/README.md": "text of a licence, or a page about the repository",
    "MANIFEST.tsv": "list of the files of this folder",
    "README.md": "list of the files of this folder",
    "super_natural_instructions/sni_tasks*.tsv": "list of the files of this folder",
    "*LICENSE*": "text of a licence, or a page about the repository",
    "promptsource/CITATION.cff": "text of a licence, or a page about the repository",
    "super_natural_instructions/splits/default/*_tasks.txt": "split list: read as `upstream_role`",
    "templates.yaml": "templates: read where rows of their data set are there",
    "unifiedskg/wikitablequestions/csv/*-csv/*.csv": "table or schema that examples point at",
    "unifiedskg/spider/tables.json": "table or schema that examples point at",
    "unifiedskg/wikitablequestions/data/training-before300.examples": "the questions of a TSV file beside it, as LispTree",
    "unifiedskg/blec/template_to_names_test.json": "names of the slots of SQL queries, without questions",
    "dialogue/sgd/*/schema.json": "annotation of services, which dialogues are read without",
    "chat/alpaca/seed_tasks.jsonl": "byte for byte `chat/self_instruct/seed_tasks.jsonl`",
    "chat/alpaca/prompt.txt": "prompt that a data set was generated with",
    "crossfit/custom_tasks_splits/*.json": "task partition of CrossFit; its TSV files are not there",
    "flan/flan_collection_info.csv": "list of FLAN's tasks; its rows are not there",
    f"{_FIXTURES}/coref/preco.jsonl": "fixture of an annotation that no benchmark here carries",
    f"{_FIXTURES}/lm/conll2003.txt": "fixture of an annotation that no benchmark here carries",
}
"""Files that hold no example -> why."""


def count_files(data: Path) -> dict[str, UpstreamFile]:
    """Return what every file below the folder is, by its name with forward slashes.

    Raises:
        LookupError: a file that is in neither table.
    """
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file())
    return {name: _look(data / name, name) for name in names}


def _look(path: Path, name: str) -> UpstreamFile:
    for pattern, (kind, count) in COUNTED.items():
        if PurePosixPath(name).match(pattern):
            return UpstreamFile(kind, count(path))
    for pattern, why in AUXILIARY.items():
        if PurePosixPath(name).match(pattern):
            return UpstreamFile(why, None)
    raise LookupError(f"{name}: neither counted nor auxiliary")
