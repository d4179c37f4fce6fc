"""Rendered P3: names of data sets, both forms, marks of the end, damage; real files against an independent reading."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from mutations import mutated
from native_files import folder, lines, read_all, write

from taskmill.curation.sources import p3
from taskmill.errors import DataError, TaskmillError

KNOWN = {
    p3.spelling(name): name for name in ("ag_news", "glue/mrpc", "paws", "paws/labeled_final", "cos_e/v1.11")
}


@pytest.mark.parametrize(
    ("rendered", "task", "template"),
    [
        ("ag_news_classify", "ag_news", "classify"),
        ("glue_mrpc_want_to_know", "glue/mrpc", "want_to_know"),
        ("paws_labeled_final_Meaning", "paws/labeled_final", "Meaning"),
        ("paws_labeled_swap_Meaning", "paws", "labeled_swap_Meaning"),
        ("cos_e_v1.11_i_think", "cos_e/v1.11", "i_think"),
        ("cos_e_v1_11_i_think", "cos_e/v1.11", "i_think"),
        ("ag_newspaper_classify", "ag_newspaper_classify", "ag_newspaper_classify"),
        ("ag_news", "ag_news", "ag_news"),
        ("___", "___", "___"),
    ],
)
def test_names_are_cut_at_the_longest_data_set(rendered: str, task: str, template: str) -> None:
    assert p3.split_name(rendered, KNOWN) == (task, template)


def test_json_lines(tmp_path: Path) -> None:
    first = {"prompt": "Which?\n", "completion": "b<|endoftext|>"}
    write(
        tmp_path,
        {
            "r/boats_tides_ask.jsonl": lines(first, {"prompt": "Why?", "completion": "so <|endoftext|> so"}),
            "r/boats_tides_Taking_a_test.jsonl": lines(first),
            "r/unheard_of.jsonl": lines({"prompt": "a", "completion": "b"}),
            "templates/boats/tides/templates.yaml": "templates: {}",
        },
    )
    found = read_all("p3", folder(tmp_path, "r", templates="../templates"))
    assert sorted(found) == ["boats/tides", "unheard_of"]
    data = found["boats/tides"]
    assert data.columns.fields == [{"inputs": "Which?\n"}, {"inputs": "Which?\n"}, {"inputs": "Why?"}]
    assert data.columns.references == [["b"], ["b"], ["so <|endoftext|> so"]]
    assert data.columns.upstream_split == [None] * 3
    assert data.facts["metadata"] == {
        "templates": {"Taking_a_test": 1, "ask": 2},
        "end_mark": "<|endoftext|>",
        "num_end_marks": 2,
    }
    assert found["unheard_of"].facts["metadata"] == {"templates": {"unheard_of": 1}}
    split = read_all("p3", folder(tmp_path, "r", split="train"))["unheard_of"].columns.upstream_split
    assert split == ["train"]
    for options, message in [
        ({"split": "trian"}, "did you mean 'train'"),
        ({"templates": "nowhere"}, "no such folder"),
        ({"templates": 3}, "path of a file or folder"),
    ]:
        with pytest.raises(TaskmillError, match=message):
            p3.discover(folder(tmp_path, "r", **options))


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "inputs_pretokenized": "x",
            "targets_pretokenized": "\nyes",
            "answer_choices": ["no", "yes"],
            "inputs": [1],
        },
        {
            "inputs_pretokenized": "y",
            "targets_pretokenized": "maybe",
            "answer_choices": ["no", "yes"],
            "inputs": [2],
        },
    ]
    for name in ("ag_news_classify/train-00000-of-00001", "ag_news_classify/validation/0000"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    scored = [{**rows[0], "is_correct": right} for right in (True, False)]
    (tmp_path / "ag_news_classify_score_eval").mkdir()
    pq.write_table(
        pa.Table.from_pylist(scored), tmp_path / "ag_news_classify_score_eval/test-00000-of-00001.parquet"
    )
    (tmp_path / "templates/ag_news").mkdir(parents=True)
    (tmp_path / "templates/ag_news/templates.yaml").touch()
    data = read_all("p3", folder(tmp_path, templates="templates"))["ag_news"]
    assert Counter(data.columns.upstream_split) == {"train": 2, "validation": 2, "test": 1}
    assert data.columns.references[:2] == [["\nyes"], ["maybe"]]
    assert data.columns.options[:2] == [["no", "yes"], None]
    assert data.facts["metadata"] == {"templates": {"classify": 4, "classify_score_eval": 1}}
    assert [(a.reason, a.record) for a in data.aside] == [("wrong_choice", 1)]


@pytest.mark.parametrize(
    ("content", "reason", "kept"),
    [
        (b'{"prompt": "a"}\n', "missing_field", 0),
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": 3, "completion": "b"}\n', "wrong_type", 1),
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff"}\n', "bad_encoding", 1),
        (b'{"prompt": "a", "completion": "b"}\n{"promp', "bad_json", 1),
        (b"", "empty_file", 0),
        (b"[1]", "wrong_type", 0),
        (b'{"prompt": "\\ud800", "completion": "b"}', "bad_text", 0),
    ],
)
def test_damage(tmp_path: Path, content: bytes, reason: str, kept: int) -> None:
    write(tmp_path, {"r/boats_ask.jsonl": content})
    with pytest.raises(DataError, match=r"r/boats_ask\.jsonl"):
        read_all("p3", folder(tmp_path, "r"))
    (data,) = read_all("p3", folder(tmp_path, "r", on_error="skip")).values()
    assert [aside.reason for aside in data.aside] == [reason] and len(data.columns) == kept


def test_mutated_records_are_kept_or_kept_aside(tmp_path: Path) -> None:
    seeds = [
        json.dumps({"prompt": "Is it?", "completion": "yes<|endoftext|>"}).encode(),
        json.dumps(
            {
                "inputs_pretokenized": "a",
                "targets_pretokenized": "b",
                "answer_choices": ["a", "b"],
                "is_correct": True,
            }
        ).encode(),
    ]
    changed = [line for line in mutated(seeds, 10_000, 3) if line.strip()]
    write(tmp_path, {"r/boats_ask.jsonl": b"\n".join(changed)})
    (data,) = read_all("p3", folder(tmp_path, "r", on_error="skip")).values()
    assert len(data.columns) + len(data.aside) == len(changed) and len(data.aside) > 1000


def test_real_rendered_prompts(shared_data: Path) -> None:
    root = shared_data / "promptsource"
    found = read_all("p3", folder(root, "t0_train_rendered", templates="../templates", split="train"))
    assert len(found) == 37 and not any(data.aside for data in found.values())
    by_file: dict[str, list[tuple[str, list[str]]]] = {}
    for name, data in found.items():
        assert (root / "templates" / name / "templates.yaml").is_file()
        for file, fields, references in zip(
            data.columns.file, data.columns.fields, data.columns.references, strict=True
        ):
            assert fields.keys() == {"inputs"}
            by_file.setdefault(file, []).append((fields["inputs"], references))
    paths = sorted((root / "t0_train_rendered").glob("*.jsonl"))
    assert len(paths) == 271 == len(by_file)
    for path in paths:
        raw = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        wanted = [(r["prompt"], [r["completion"][: -len("<|endoftext|>")]]) for r in raw]
        assert by_file[f"t0_train_rendered/{path.name}"] == wanted
