"""FLAN: one pass over files that mix tasks, every form of the release, inverted templates, damage."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mutations import mutated
from native_files import folder, lines, read_all, write

from taskmill.cache import cache_folder
from taskmill.curation.reader import SourceFolder, TaskData
from taskmill.curation.sources import _buckets, flan
from taskmill.errors import DataError, TaskmillError

INFO = (
    "Source,Dataset,Specific Task Category,Generic Task Category,Languages\n"
    "FLAN/T0,glue_boats,Paraphrasing Identification,Paraphrasing Identification,English\n"
    "FLAN/T0,glue_boats,Inverted Paraphrasing Identification,Inverted Paraphrasing Identification,English\n"
    "T0,boats_qa,boats_qa_ask,Question Generation,English\n"
    "T0,boats_qa,boats_qa_answer,Extractive QA,English\n"
    "NIv2,boats,task9_boats_question_generation,Question Generation,\"['English', 'French']\"\n"
    "NIv2,boats,task8_boats_answering,Question Answering,['English']\n"
    "CoT,stream_tides,Question Answering,Question Answering,English\n"
)


def row(name: str, number: int, kind: str | None = "zs_opt", **more: Any) -> dict[str, Any]:
    made = {"inputs": f"Say {number}.", "targets": f"{number}", "task_name": name, "task_source": "Flan2021"}
    return {**made, **({"template_type": kind} if kind else {}), **more}


def counted(found: dict[str, TaskData]) -> int:
    return sum(len(data.columns) + len(data.aside) for data in found.values())


def test_each_file_is_parsed_once_and_then_the_cache_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"f/a_train.jsonl": lines(*(row(f"t{n % 70}:1.0.0", n) for n in range(700)))})
    opened: Counter[Path] = Counter()
    real = _buckets._raw_records

    def counting(path: Path, source: SourceFolder) -> Any:
        opened[path] += 1
        return real(path, source)

    monkeypatch.setattr(_buckets, "_raw_records", counting)
    found = read_all("flan", folder(tmp_path, "f"))
    assert len(found) == 70 and opened == {tmp_path / "f/a_train.jsonl": 1}
    for name, data in found.items():
        number = int(name[1:])
        assert [f["inputs"] for f in data.columns.fields] == [f"Say {n}." for n in range(number, 700, 70)]
        assert data.columns.record == list(range(number, 700, 70))
        assert set(data.columns.upstream_split) == {"train"}
    assert read_all("flan", folder(tmp_path, "f")).keys() == found.keys()
    assert sum(opened.values()) == 1
    write(tmp_path, {"f/a_train.jsonl": lines(*(row(f"u{n % 70}:1.0.0", n) for n in range(700)))})
    assert "u3" in read_all("flan", folder(tmp_path, "f")) and sum(opened.values()) == 2


def test_the_cache_may_vanish_between_discovering_and_reading(tmp_path: Path) -> None:
    write(tmp_path, {"f/a.jsonl": lines(*(row(f"t{n % 3}", n) for n in range(30)))})
    source = folder(tmp_path, "f")
    entries = flan.discover(source)
    for spoil in (shutil.rmtree, _cut_short, _empty):
        for entry in entries:
            (bucket,) = [
                p.parent for p in cache_folder().glob("buckets/*/index.json") if "t0" in p.read_text()
            ][:1]
            spoil(bucket)
            assert len(flan.read(entry, source).columns) == 10


def _cut_short(bucket: Path) -> None:
    for path in bucket.glob("*.jsonl"):
        path.write_bytes(path.read_bytes()[:-5])


def _empty(bucket: Path) -> None:
    (bucket / "index.json").write_text("{")


def _count(args: tuple[str, str]) -> int:
    root, cache = args
    os.environ["TASKMILL_CACHE"] = cache
    source = folder(Path(root), "f")
    return sum(len(flan.read(entry, source).columns) for entry in flan.discover(source))


def test_two_processes_may_cut_at_once(tmp_path: Path) -> None:
    write(tmp_path, {"f/a.jsonl": lines(*(row(f"t{n % 9}", n) for n in range(3000)))})
    cache = tmp_path / "cache"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_count, [(str(tmp_path), str(cache))] * 4) == [3000] * 4
    assert len(list((cache / "buckets").iterdir())) == 1


def test_buckets_that_nobody_asks_for_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "cache"))
    write(
        tmp_path, {"cache/buckets/.half/x": "", "cache/buckets/young/x": "", "f/a.jsonl": lines(row("t", 1))}
    )
    os.utime(tmp_path / "cache/buckets/.half", (1, 1))
    flan.discover(folder(tmp_path, "f"))
    names = {path.name for path in (tmp_path / "cache/buckets").iterdir()}
    assert len(names) == 2 and "young" in names and ".half" not in names


def test_a_cache_that_cannot_be_written_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"f/a.jsonl": lines(row("t", 1)), "file": "x"})
    monkeypatch.setenv("TASKMILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(TaskmillError, match="cache"):
        flan.discover(folder(tmp_path, "f"))


def test_every_form_of_the_release(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row("glue/boats:2.0.0", 1), row("tides:1.0.0", 2, "fs_noopt"), row("tides:1.0.1", 3, None)]
    cached = {
        "inputs_pretokenized": "a",
        "targets_pretokenized": "b",
        "_task_name": "old",
        "_template_type": "zs_opt",
    }
    write(
        tmp_path,
        {
            "f/zs_opt_train.jsonl.gz": gzip.compress(lines(rows[0]).encode()),
            "f/deep/validation.jsonl": lines({**rows[1], "task": "x"}),
            "f/cached.jsonl": lines(cached, {"inputs": "a", "targets": "b", "task": "short\u00e9"}),
            "f/dataset_infos.json": "{}",
        },
    )
    pq.write_table(
        pa.Table.from_pylist([{**rows[2], "template_type": None}]),
        tmp_path / "f/train-00000-of-00001.parquet",
    )
    found = read_all("flan", folder(tmp_path, "f"))
    assert {name: len(data.columns) for name, data in found.items()} == {
        "glue/boats": 1,
        "old": 1,
        "short\u00e9": 1,
        "tides": 2,
    }
    tides = found["tides"]
    assert tides.columns.upstream_split == ["validation", "train"]
    assert tides.columns.fields == [{"inputs": "Say 2."}, {"inputs": "Say 3."}]
    assert tides.facts["metadata"]["template_types"] == {"fs_noopt": 1, "unknown": 1}
    assert tides.facts["metadata"]["task_names"] == ["tides:1.0.0", "tides:1.0.1"]
    assert found["old"].columns.fields == [{"inputs": "a"}] and found["old"].columns.references == [["b"]]
    assert found["glue/boats"].columns.upstream_split == ["train"]


def test_options_are_read_from_rows_that_offer_them(tmp_path: Path) -> None:
    shown = "Which?\nOPTIONS:\n- 1\n- 2"
    rows = [row("t", 1, kind, inputs=shown) for kind in ("zs_opt", "zs_noopt", "fs_opt", "fs_noopt")]
    write(tmp_path, {"f/a.jsonl": lines(*rows)})
    columns = read_all("flan", folder(tmp_path, "f"))["t"].columns
    assert columns.options == [["1", "2"], None, ["1", "2"], None]
    only = read_all("flan", folder(tmp_path, "f", template_types=["zs_opt", "zs_noopt"]))["t"]
    assert len(only.columns) == 2 and [aside.reason for aside in only.aside] == ["template_type"] * 2


def test_inverted_templates(tmp_path: Path) -> None:
    names = ("cot_tides", "cot_tides_ii", "wiki_boats_input_inversion", "boats_qa_ask", "boats_qa_answer")
    names = (*names, "glue/boats:2.0.0", "task9_boats_question_generation", "nobody_knows")
    write(tmp_path, {"f/a.jsonl": lines(*map(row, names, range(8))), "f/info.csv": INFO})
    found = read_all("flan", folder(tmp_path, "f", info="info.csv"))
    left = {name for name, data in found.items() if data.aside}
    assert left == {"cot_tides_ii", "wiki_boats_input_inversion", "boats_qa_ask"} and counted(found) == 8
    assert {aside.reason for data in found.values() for aside in data.aside} == {"inverted_template"}
    told = {name: data.facts["metadata"].get("inverted_templates") for name, data in found.items()}
    assert told == {
        **dict.fromkeys(left, "marked"),
        "cot_tides": "none",
        "boats_qa_answer": "none",
        "glue/boats": "unmarked",
        "task9_boats_question_generation": "none",
        "nobody_knows": None,
    }
    facts = found["task9_boats_question_generation"].facts
    assert facts["languages"] == ["English", "French"] and facts["metadata"]["collections"] == ["NIv2"]
    assert found["cot_tides"].facts["metadata"]["upstream_categories"] == ["Question Answering"]
    kept = read_all("flan", folder(tmp_path, "f", info="info.csv", inverted="keep"))
    assert not any(data.aside for data in kept.values())
    without = read_all("flan", folder(tmp_path, "f"))
    assert {name for name, data in without.items() if data.aside} == left - {"boats_qa_ask"}


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    write(tmp_path, {"f/a.jsonl": lines(row("t", 1)), "f/bad.csv": "Source,Dataset\na,b\n"})
    for options, message in [
        ({"inverted": "kep"}, "did you mean 'keep'"),
        ({"template_types": ["zs"]}, "zs_noopt"),
        ({"info": 3}, "path of a file"),
        ({"info": "nowhere.csv"}, "nowhere.csv"),
        ({"info": "bad.csv"}, "no column 'Specific Task Category'"),
    ]:
        with pytest.raises(TaskmillError, match=message):
            flan.discover(folder(tmp_path, "f", **options))


def test_files_without_a_task_are_the_first_tasks_business(tmp_path: Path) -> None:
    """Empty, broken and nameless files stop, or every record and file of them is kept aside once."""
    sound = lines(row("b", 1), row("c", 2))
    broken = gzip.compress(sound.encode())[:-9]
    for name, content, reasons in [
        ("empty.jsonl", b"", ["empty_file"]),
        (
            "nameless.jsonl",
            b'{"inputs": "a"}\n[]\n{"task_name": ""}\nx\n',
            ["missing_field", "wrong_type"] * 2,
        ),
        ("cut.jsonl.gz", broken, ["bad_gzip"]),
        ("bad.parquet", b"PAR1", ["bad_parquet"]),
    ]:
        write(tmp_path, {f"{name}.d/s.jsonl": sound, f"{name}.d/{name}": content})
        with pytest.raises(DataError, match=name.split(".")[0]):
            read_all("flan", folder(tmp_path, f"{name}.d"))
        found = read_all("flan", folder(tmp_path, f"{name}.d", on_error="skip"))
        aside = [aside for data in found.values() for aside in data.aside]
        if name == "nameless.jsonl":
            reasons = ["missing_field", "wrong_type", "wrong_type", "bad_json"]
        assert [a.reason for a in aside] == reasons and {a.file for a in aside} == {f"{name}.d/{name}"}
        assert sum(len(data.columns) for data in found.values()) >= 2
    write(tmp_path, {"alone/empty.jsonl": b""})
    with pytest.raises(DataError, match="the file is empty"):
        flan.discover(folder(tmp_path, "alone", on_error="skip"))


def test_a_name_that_is_not_at_the_top_is_damage_of_its_line(tmp_path: Path) -> None:
    rows = [row("t", 1), {"inputs": "a", "targets": "b", "meta": {"task_name": "t"}}]
    escaped = json.dumps(row("t", 2, inputs='"task_name": "u"')).replace('"t"', '"\\u0074"')
    write(tmp_path, {"f/a.jsonl": lines(*rows) + escaped + "\n"})
    (data,) = read_all("flan", folder(tmp_path, "f", on_error="skip")).values()
    assert data.columns.record == [0, 2] and [aside.reason for aside in data.aside] == ["missing_field"]


def test_buckets_are_written_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_buckets, "_BUFFER", 200)
    write(tmp_path, {"f/a.jsonl": lines(*(row(f"t{n % 7}", n) for n in range(70)))})
    found = read_all("flan", folder(tmp_path, "f"))
    assert [data.columns.record for data in found.values()] == [list(range(n, 70, 7)) for n in range(7)]


def test_mutated_records_are_kept_or_kept_aside(tmp_path: Path) -> None:
    seeds = [json.dumps(row(f"t{n}", n, inputs="Which?\nOPTIONS:\n- 1\n- 2")).encode() for n in range(4)]
    seeds += [lines({"inputs": "a", "targets": "b", "task": "t1", "task_source": "CoT"}).strip().encode()]
    changed = [line for line in mutated(seeds, 10_000, 5) if line.strip()]
    write(tmp_path, {"f/a.jsonl": b"\n".join(changed)})
    found = read_all("flan", folder(tmp_path, "f", on_error="skip"))
    assert counted(found) == len(changed)
    places = [place for data in found.values() for place in data.columns.record]
    places += [aside.record for data in found.values() for aside in data.aside]
    assert sorted(places) == list(range(len(changed)))


def test_real_collection_info(shared_data: Path) -> None:
    import csv

    from taskmill.curation.sources._flan_info import facts_of, is_inverted, read_info

    path = shared_data / "flan/flan_collection_info.csv"
    info = read_info(path, folder(shared_data, "flan"))
    with path.open(encoding="utf-8-sig", newline="") as file:
        raw = list(csv.DictReader(file))
    assert len(info) == len(raw) == 1945
    assert [line.specific for line in info] == [r["Specific Task Category"] for r in raw]
    inverted = {line.specific for line in info if line.source == "T0" and is_inverted(line.specific, info)}
    assert len(inverted) == 7 and "adversarial_qa_dbert_generate_question" in inverted
    assert not any(is_inverted(line.specific, info) for line in info if line.source == "NIv2")
    assert facts_of("glue/mrpc", info)["inverted_templates"] == "unmarked"
    assert facts_of("cot_creak_ii", info)["collections"] == ["CoT"]
