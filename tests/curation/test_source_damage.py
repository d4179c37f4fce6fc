"""Readers: each kind of damage stops or is kept aside; mutated files raise only the project's own errors."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from chat_files import SEEDS as CHAT_SEEDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import as_values, mutated
from native_files import FLAN_ROWS, PETS_CAST, SNI_TASK, TEMPLATES, folder, lines, read_all, write

from taskmill.curation.reader import SourceFolder, load_reader
from taskmill.errors import DataError, TaskmillError
from taskmill.recipe import known_readers

# ------------------------------------------------------------------------------------------- damage


def sni(**changes: Any) -> bytes:
    task = json.loads(SNI_TASK)
    task["URL"] = []
    return json.dumps({key: value for key, value in {**task, **changes}.items() if value != "gone"}).encode()


FLAN = json.dumps(FLAN_ROWS[2]).encode() + b"\n"
DAMAGES: list[tuple[str, str, bytes, str, int, str]] = [
    ("super_natural_instructions", "tasks/t.json", SNI_TASK[:-40].encode(), "bad_json", 0, "not valid JSON"),
    ("super_natural_instructions", "tasks/t.json", b"", "empty_file", 0, "empty"),
    ("super_natural_instructions", "tasks/t.json", b"[1]", "wrong_type", 0, "JSON object"),
    ("super_natural_instructions", "tasks/t.json", b"\xff" + SNI_TASK.encode(), "bad_json", 0, "utf-8"),
    ("super_natural_instructions", "tasks/t.json", b"[" * 100000, "bad_json", 0, "not valid JSON"),
    ("super_natural_instructions", "tasks/t.json", sni(Instances="gone"), "missing_field", 0, "Instances"),
    ("super_natural_instructions", "tasks/t.json", sni(Definition=[]), "missing_field", 0, "Definition"),
    (
        "super_natural_instructions",
        "tasks/t.json",
        sni(Instances=[{"input": "a"}]),
        "missing_field",
        2,
        "output",
    ),
    (
        "super_natural_instructions",
        "tasks/t.json",
        sni(Instances=[{"input": float("nan"), "output": []}]),
        "wrong_type",
        2,
        "input",
    ),
    (
        "super_natural_instructions",
        "tasks/t.json",
        sni(Instances=[{"input": "a", "output": [3]}]),
        "wrong_type",
        2,
        "list of strings",
    ),
    (
        "super_natural_instructions",
        "tasks/t.json",
        sni(Instances=[{"input": "\ud800", "output": []}]),
        "bad_text",
        2,
        "surrogate",
    ),
    ("super_natural_instructions", "tasks/t.json", sni(Instances=["a"]), "wrong_type", 2, "an object"),
    ("flan", "f.jsonl", FLAN + b'{"inputs": \n', "bad_json", 1, "record 1"),
    ("flan", "f.jsonl", FLAN + b'"\xff"\n', "bad_encoding", 1, "not UTF-8"),
    ("flan", "f.jsonl", FLAN + b"[]\n", "wrong_type", 1, "an object"),
    ("flan", "f.jsonl", FLAN + b'{"inputs": "a", "targets": "b"}\n', "missing_field", 1, "task_name"),
    (
        "flan",
        "f.jsonl",
        FLAN + FLAN.replace(b'"targets"', b'"target"'),
        "missing_field",
        1,
        "did you mean 'target'",
    ),
    ("flan", "f.jsonl", FLAN + FLAN.replace(b'"text"', b"5"), "wrong_type", 1, "targets"),
    ("reasoning", "s_train.tsv", b"a\tb\tc\na\tb\n", "wrong_columns", 1, "2 columns"),
    ("reasoning", "s_train.tsv", b"a\tb\tc\na\t\xe9\tb\n", "bad_encoding", 1, "not UTF-8"),
    ("reasoning", "s_train.tsv", b"", "empty_file", 0, "empty"),
    ("crossfit", "q/q_1_2_train.tsv", b"a\tb\nno output\n", "wrong_columns", 1, "at least one output"),
    (
        "unifiedskg",
        "k_train.jsonl",
        b'{"text_in": "", "struct_in": "", "seq_out": ""}\n{"text_in": ""}\n',
        "missing_field",
        1,
        "struct_in",
    ),
    ("documents", "d.jsonl", b'{"text": "a"}\n{"text": null}\n', "wrong_type", 1, "not text"),
    ("documents", "d.txt", b"a\n\n\xff\xfe\n", "bad_encoding", 1, "not UTF-8"),
    ("documents", "d.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 900, mtime=0)[:-9], "bad_gzip", 0, "gzip"),
    ("documents", "d.jsonl.gz", b"plain text", "bad_gzip", 0, "gzip"),
]


@pytest.mark.parametrize(("reader", "name", "content", "reason", "kept", "message"), DAMAGES)
def test_damage_stops_or_is_kept_aside(
    tmp_path: Path, reader: str, name: str, content: bytes, reason: str, kept: int, message: str
) -> None:
    write(tmp_path, {f"up/{name}": content})
    with pytest.raises(DataError) as stopped:
        read_all(reader, folder(tmp_path, "up"))
    assert message in str(stopped.value) and f"up/{name}" in str(stopped.value)
    (data,) = read_all(reader, folder(tmp_path, "up", on_error="skip")).values()
    (damage,) = data.aside
    assert (damage.reason, damage.file) == (reason, f"up/{name}")
    assert len(data.columns) == kept or reason == "bad_gzip"


def test_templates_that_are_none(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "ps/data/pets/cats/train.jsonl": lines({"text": "a", "label": 0, "words": []}),
        "casts/pets-cats.yaml": PETS_CAST,
    }
    bomb = "a: &a [x]\n" + "".join(
        f"{c}: &{c} [*{p}{f', *{p}' * 30}]\n" for p, c in zip("abcdefgh", "bcdefghi")
    )
    for text, reason, kept in [
        ("templates: [1]", "wrong_type", 0),
        ("templates: {a: !!python/object/apply:os.system [ls]}", "bad_yaml", 0),
        (bomb, "bad_yaml", 0),
        ("[" * 2000, "bad_yaml", 0),
        ("templates: {a: 1, a: 2}", "bad_yaml", 0),
        ("templates: {a: {jinja: x, name: y, answer_choices: null}, b: {name: z}}", "bad_template", 1),
        ("templates: {a: {jinja: [x], name: y}}", "bad_template", 0),
        ("templates: {a: ''}", "bad_template", 0),
    ]:
        write(tmp_path, {**files, "ps/templates/pets/cats/templates.yaml": text})
        casts = (tmp_path / "casts",)
        with pytest.raises(DataError, match=r"templates\.yaml"):
            read_all("promptsource", folder(tmp_path, "ps", cast_folders=casts))
        data = read_all("promptsource", folder(tmp_path, "ps", on_error="skip", cast_folders=casts))[
            "pets/cats"
        ]
        assert [damage.reason for damage in data.aside] == [reason]
        assert (len(data.templates), len(data.columns)) == (kept, 1)


@pytest.mark.parametrize("reader", known_readers())
def test_a_missing_folder_is_one_clear_message(tmp_path: Path, reader: str) -> None:
    (tmp_path / "flann").mkdir()
    options = {"cast": "scan"} if reader == "table" else {}
    path = "flan/x" if reader == "table" else "flan"
    with pytest.raises(DataError, match="no such folder"):
        load_reader(reader).discover(folder(tmp_path, path, **options))


def test_super_natural_instructions_refuses_wrong_lists(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "tasks/t.json": SNI_TASK,
            "more/t.json": SNI_TASK,
            "splits/default/train_tasks.txt": "t\n",
            "splits/default/test_tasks.txt": "t\n",
            "splits/english/train_tasks.txt": "t\n",
        },
    )
    for options, message in [
        ({"split_list": "englsh"}, "did you mean 'english'"),
        ({"split_list": "default"}, "also in the list 'train'"),
        ({"tasks": ["tasks", "more"]}, "also in tasks/t.json"),
        ({"tasks": ["task"]}, "did you mean 'tasks'"),
        ({"tasks": 3}, "option tasks"),
    ]:
        with pytest.raises(TaskmillError, match=message):
            load_reader("super_natural_instructions").discover(folder(tmp_path, **options))


# ------------------------------------------------------------------------------------- mutated records

LINES = (b"", b"\n", b"\n")
"""What stands before, between and behind the records of a file."""
LIST = (b"[", b", ", b"]")


class Seed(NamedTuple):
    """A file of a reader, as its records and what is around them."""

    name: str
    records: list[bytes]
    around: tuple[bytes, bytes, bytes] = LINES
    options: Mapping[str, Any] = MappingProxyType({})

    def content(self, records: Iterable[bytes]) -> bytes:
        before, between, behind = self.around
        if between == b", ":
            records = [text.encode("utf-8", "surrogatepass") for text in as_values(records)]
        return before + between.join(records) + behind


def jsonl(*rows: Any) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


SNI = json.loads(SNI_TASK)
SNI_HEAD = json.dumps({key: value for key, value in SNI.items() if key != "Instances"})[:-1]
TURNS = [{"speaker": "USER", "utterance": "a"}, {"speaker": "SYSTEM", "utterance": "b"}]
ASKED = {"question": "b", "orig_answer": {"text": "c"}}
BBH = {"input": "a\nOptions:\n(A) b\n(B) c", "target": "(A)"}
TABLE = {"cast": {"fields": {"text": "text"}, "references": "label"}, "files": {"train": "d.csv"}}
SEEDS: dict[str, Seed] = {
    **{reader: Seed("set.jsonl", jsonl(*rows)) for reader, rows in CHAT_SEEDS.items()},
    "bbh": Seed("t.json", jsonl(BBH), (b'{"examples": [', b", ", b"]}")),
    "code": Seed("apps/train.jsonl", jsonl({"id": 1, "question": "a", "solutions": '["b"]'})),
    "crossfit": Seed("q/q_16_13_train.tsv", [b"Who? (A) me (B) you\tyou", b"plain\tx"]),
    "dialogue": Seed("d.jsonl", jsonl({"turns": ["a", "b"], "id": 1}), options={"id": "id"}),
    "documents": Seed("d.jsonl", jsonl({"text": "a"}, {"text": "b"})),
    "evaluation": Seed("gsm8k/train.jsonl", jsonl({"question": "a?", "answer": "b\n#### 1"})),
    "exmix": Seed("boolq/dev.jsonl", jsonl({"question": "a", "passage": "b", "answer": True})),
    "flan": Seed("f_train.jsonl", jsonl(*FLAN_ROWS)),
    "mmlu": Seed("test/a_test.csv", [b"Who me?,a,b,c,d,B", b"You?,1,2,3,4,A"]),
    "p3": Seed("pets_ask.jsonl", jsonl({"prompt": "a", "completion": "b<|endoftext|>"})),
    "promptsource": Seed("data/pets/cats/train.jsonl", jsonl({"text": "a", "label": 0, "words": [], "n": 1})),
    "quac": Seed(
        "val.json",
        jsonl({"context": "a", "id": "x", "qas": [ASKED]}),
        (b'{"data": [{"paragraphs": [', b", ", b"]}]}"),
    ),
    "reasoning": Seed("s_train.tsv", [b"a\\n\tb\tc", b"d\te\tf"]),
    "sgd": Seed("dev/dialogues_1.json", jsonl({"dialogue_id": "1", "turns": TURNS}), LIST),
    "super_natural_instructions": Seed(
        "tasks/t.json", jsonl(*SNI["Instances"]), (f'{SNI_HEAD}, "Instances": ['.encode(), b", ", b"]}")
    ),
    "t5": Seed("scan/tasks.txt", [b"IN: jump OUT: I_JUMP", b"IN: walk OUT: I_WALK"]),
    "table": Seed("d.csv", [b"a b,1", b"c,0"], (b"text,label\n", b"\n", b"\n"), TABLE),
    "unifiedskg": Seed(
        "k_train.jsonl", jsonl({"text_in": "a", "struct_in": "b", "seq_out": "c", "table_id": 1})
    ),
}
NUM_MUTATIONS = 10_000
OWN_RULES = {"super_natural_instructions", "oasst", "self_instruct", "unnatural_instructions"}
"""Readers whose records may make none or several examples, or that add examples of other parts of the file."""


def source_of(root: Path, reader: str, on_error: str) -> SourceFolder:
    return SourceFolder(root / "up", root, SEEDS[reader].options, on_error, (root / "casts",))


def write_seed(root: Path, reader: str, content: bytes) -> None:
    if reader == "promptsource":
        write(root, {"casts/pets-cats.yaml": PETS_CAST, "up/templates/pets/cats/templates.yaml": TEMPLATES})
        write(root, {"up/data/pets/cats/train.jsonl": lines({"text": "a", "label": 0, "words": []})})
    else:
        (root / "casts").mkdir(exist_ok=True)
    write(root, {f"up/{SEEDS[reader].name}": content})


def test_every_reader_is_mutated() -> None:
    assert sorted(SEEDS) == known_readers()


@pytest.mark.parametrize("reader", sorted(SEEDS))
def test_of_mutated_records_none_is_lost(tmp_path: Path, reader: str) -> None:
    seed = SEEDS[reader]
    records = list(mutated(seed.records, NUM_MUTATIONS * 2, 3))
    if seed.name.endswith(".csv"):  # where a quotation mark would join lines
        records = [record for record in records if b'"' not in record]
    records = [record for record in records if record.strip()][:NUM_MUTATIONS]
    assert len(records) == NUM_MUTATIONS
    write_seed(tmp_path, reader, seed.content(records))
    found = [*read_all(reader, source_of(tmp_path, reader, "skip")).values()]
    kept = [number for data in found for number in data.columns.record]
    aside = [left.record for data in found for left in data.aside]
    assert set(range(NUM_MUTATIONS)) <= {*kept, *aside}
    assert reader in OWN_RULES or len(kept) + len(aside) == NUM_MUTATIONS
    assert min(len(kept), len(aside)) > 50
    for record in records[:40]:
        write_seed(tmp_path, reader, seed.content([record]))
        refuses_with_its_own_error(reader, source_of(tmp_path, reader, "stop"))


# ----------------------------------------------------------------------------------------- mutated files


def refuses_with_its_own_error(reader: str, source: SourceFolder) -> None:
    try:
        read_all(reader, source)
    except TaskmillError as error:
        str(error).encode("utf-8")


PIECES = [
    b"",
    b"\x00",
    b"\xff",
    b'"',
    b"{",
    b"}",
    b"[",
    b"\n",
    b"\t",
    b"NaN",
    b"1e999",
    b"null",
    b'"\\ud800"',
    b"-1",
    b"&a *a",
    b"!!x",
]


@st.composite
def mutations(draw: Callable[..., Any], content: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 12)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4) | st.just(content[end : end + 20]))
        content = content[:start] + piece + content[end:]
    return content


@pytest.mark.parametrize("reader", sorted(SEEDS))
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_raise_only_our_errors(tmp_path: Path, reader: str, data: st.DataObject) -> None:
    seed = SEEDS[reader]
    write_seed(tmp_path, reader, data.draw(mutations(seed.content(seed.records))))
    for on_error in ("stop", "skip"):
        refuses_with_its_own_error(reader, source_of(tmp_path, reader, on_error))


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_templates_raise_only_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    write_seed(tmp_path, "promptsource", b"")
    name = "up/templates/pets/cats/templates.yaml"
    write(tmp_path, {name: data.draw(mutations(TEMPLATES.encode()))})
    for on_error in ("stop", "skip"):
        refuses_with_its_own_error("promptsource", source_of(tmp_path, "promptsource", on_error))


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_gzip_and_parquet_raise_only_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1, 0]}), buffer)
    cast = {"fields": {"text": "text"}, "references": "label"}
    for name, content in (
        ("d.parquet", buffer.getvalue()),
        ("d.jsonl.gz", gzip.compress(b'{"text": "a", "label": 1}\n', mtime=0)),
    ):
        write(tmp_path, {f"up/{name}": data.draw(mutations(content))})
        options = {"cast": {**cast, "format": name.split(".")[1]}, "files": {"train": name}}
        for on_error in ("stop", "skip"):
            refuses_with_its_own_error("table", folder(tmp_path, "up", on_error=on_error, **options))
