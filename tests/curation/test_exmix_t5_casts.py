"""Casts of the sets of T5 and ExMix: original files in their published form, and rows of the Hub."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from native_files import folder, lines, read_all, write


def table(*rows: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


MARKS = {"toxic": 1, "severe_toxic": 0, "obscene": 0, "threat": 0, "insult": 0, "identity_hate": 0}
KILT = {
    "id": "k1",
    "input": "The [START_ENT] Tern [END_ENT] sails.",
    "output": [{"answer": "Tern (boat)", "provenance": [{"title": "Tern (boat)"}]}],
    "meta": {},
}


def english_into(language: str) -> dict[str, str]:
    return {"text": "A gull.", "source_language": "English", "target_language": language}


Case = tuple[dict[str, str], list[tuple[str | None, dict[str, Any], list[str]]]]
CASES: dict[str, Case] = {
    "cogs": (
        {
            "train.tsv": "A gull slept .\tgull ( x )\tprimitive\n",
            "gen.tsv": "A tern slept .\ttern ( x )\tsubj_to_obj\n",
        },
        [
            ("train", {"request": "A gull slept ."}, ["gull ( x )"]),
            ("test", {"request": "A tern slept ."}, ["tern ( x )"]),
        ],
    ),
    "shakespeare": (
        {"valid.modern.nltktok": "Where are you ?\n", "valid.original.nltktok": "Where art thou ?\n"},
        [("validation", {"text": "Where are you ?"}, ["Where art thou ?"])],
    ),
    "gpt2_output": (
        {
            "webtext.train.jsonl": lines({"id": 0, "ended": True, "length": 2, "text": "a b"}),
            "xl-1542M-k40.test.jsonl": lines({"id": 0, "ended": True, "length": 2, "text": "c d"}),
        },
        [("train", {"text": "a b"}, ["human"]), ("test", {"text": "c d"}, ["machine"])],
    ),
    "funql": (
        {"geo_funql_test.tsv": "which rivers\tanswer(river(all))\n"},
        [("test", {"request": "which rivers"}, ["answer(river(all))"])],
    ),
    "ukp": (
        {
            "boats.tsv": "topic\tretrievedUrl\tarchivedUrl\tsentenceHash\tsentence\tannotation\tset\n"
            "boats\tu\ta\th1\tThey float.\tArgument_for\tval\n"
        },
        [("validation", {"text_a": "boats", "text_b": "They float."}, ["argument for"])],
    ),
    "dialoglue_banking": (
        {"val.csv": table({"text": "Where is it, please?", "category": "card_arrival"})},
        [("validation", {"utterance": "Where is it, please?"}, ["card_arrival"])],
    ),
    "dialoglue_top": (
        {"eval.tsv": "Sail home?\tSail home ?\t[IN:SAIL Sail [SL:TO home ] ? ]\n"},
        [("validation", {"utterance": "Sail home?"}, ["[IN:SAIL Sail [SL:TO home ] ? ]"])],
    ),
    "kilt_wned": (
        {"wned-dev-kilt.jsonl": lines(KILT)},
        [("validation", {"text": KILT["input"]}, ["Tern (boat)"])],
    ),
    "kilt_aidayago2": (
        {"aidayago2-test_without_answers-kilt.jsonl": lines({"id": "k2", "input": KILT["input"]})},
        [(None, {"text": KILT["input"]}, [])],
    ),
    "wikipedia_toxicity": (
        {"train.csv": table({"id": "1", "comment_text": 'You "gull",\nyou!', **MARKS})},
        [("train", {"text": 'You "gull",\nyou!'}, ["yes"])],
    ),
    "wmt14_en_de": (
        {"newstest2014.en": "A gull.\n", "newstest2014.de": "Eine Möwe.\n"},
        [("test", english_into("German"), ["Eine Möwe."])],
    ),
    "wmt16_en_ro": (
        {"train.en": "A gull.\n", "train.ro": "Un pescăruș.\n"},
        [("train", english_into("Romanian"), ["Un pescăruș."])],
    ),
    "cnn_dailymail": (
        {"test.jsonl": lines({"article": "Long.", "highlights": "Short.", "id": "a1"})},
        [("test", {"document": "Long."}, ["Short."])],
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_original_files(tmp_path: Path, name: str) -> None:
    files, wanted = CASES[name]
    write(tmp_path, {f"up/{name}/{file}": content for file, content in files.items()})
    for reader in ("exmix", "t5"):
        data = read_all(reader, folder(tmp_path, "up"))[name]
        assert data.columns.references == [references for _, _, references in wanted]
        assert data.columns.upstream_split == [split for split, _, _ in wanted]
        assert data.columns.fields == [fields for _, fields, _ in wanted]
        assert data.facts["definition"] and data.facts["category"]


def test_translations_of_the_hub(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "up/wmt14_en_fr").mkdir(parents=True)
    rows = [{"translation": {"en": "A gull.", "fr": "Une mouette."}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "up/wmt14_en_fr/train-00000-of-00001.parquet")
    data = read_all("t5", folder(tmp_path, "up"))["wmt14_en_fr"]
    assert data.columns.fields == [english_into("French")] and data.columns.references == [["Une mouette."]]
    json.dumps(data.facts)


def test_a_folder_called_like_a_cast_is_read_or_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = "IN: jump OUT: JUMP\n"
    write(tmp_path, {"boolq/other.jsonl": row, "sst/train.txt": row, "scan/tasks_train_simple.txt": row})
    assert set(read_all("t5", folder(tmp_path))) == {"scan"}
    assert "boolq is not read: no file that the cast 'boolq' reads; there is other.jsonl" in caplog.text
    assert "sst is not read: the cast has no `shape`" in caplog.text
