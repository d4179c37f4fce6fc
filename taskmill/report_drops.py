"""The part of a report that says what each stage left out of a run, how often, and what each reason means.

Reads the manifests and the tables of dropped rows, overlaps/assignment and splits/members. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands.finished import FinishedRun, Row
from taskmill.stages import NAMES

NUM_CHARACTERS = 160

_DAMAGED = "a damaged record, kept aside as curate.on_error says"
_DAMAGES = (
    *(
        "bad_csv",
        "bad_encoding",
        "bad_header",
        "bad_json",
        "bad_label",
        "bad_parquet",
        "bad_schema",
        "bad_table",
    ),
    *(
        "bad_text",
        "bad_turn",
        "bad_yaml",
        "empty_file",
        "missing_field",
        "missing_line",
        "no_match",
        "repeated_id",
    ),
    *("too_deep", "too_large", "unreadable_file", "wrong_columns", "wrong_type"),
)
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "curate": {
        "duplicate": "equal content within one task; the evaluation copy stays, then the first",
        "max_examples": "more examples than the recipe keeps of a task",
        "limit": "more examples than a quick look reads of a task",
        "dataset_elsewhere": "another benchmark has the data set, and this one is in curate.only_new",
        "license": "the licence is not among those that curate.licenses accepts",
        "missing_table": "the table that the example points at is not there",
        "missing_schema": "the schema that the example points at is not there",
        "read_before": "the question stands in a file that was read before",
        "inverted_template": "the template asks for the input instead of the output",
        "template_type": "the template is of a type that the recipe does not want",
        "wrong_choice": "a choice that upstream marks as wrong",
        "uncut_exemplar": "a worked exemplar that has not four choices",
        "not_single_turn": "a system text or earlier turns in an instruction set",
        "no_answer": "a conversation in which nobody answered",
        "no_turns": "a conversation without turns",
        "system_turn": "a system turn, which TULU's rules leave out",
        "bing_turn": "a turn of another system, which TULU's rules leave out",
        "other_turn": "a turn of an unknown speaker, which TULU's rules leave out",
        "not_alternating": "turns that do not alternate, which TULU's rules leave out",
        "tree_not_ready": "the message tree is not marked as ready",
        "deleted": "a message on the path was deleted",
        "rejected": "a message on the path was rejected in review",
        "language": "another language than the recipe asks for",
        "prediction": "a model's answer to an evaluation task",
        "no_instances": "an instruction without instances",
        **dict.fromkeys(_DAMAGES, _DAMAGED),
    },
    "overlap": {
        "task": "its task is excluded by the plan",
        "unused_test": "a test row of a task that is only trained on, or that chooses models (plan.validation.rest: exclude)",
        "unused_validation": "a validation row that is not needed: its task has test rows, or gives enough to validation",
        "unlabelled": "a test or validation row without an answer",
        "group": "it shares a group with an example on the other side",
    },
    "split": {
        "decision": "taken out by a decision on an overlapping pair",
        "duplicate": "a train example of the same content as an evaluation example",
        "near_duplicate": "a train example that another of its cluster of near-duplicates survives",
    },
    "render": {
        "unlabelled": "upstream gives no answer to show",
        "changes_task": "a template that upstream does not mark as the original task",
        "template_error": "a template that cannot be compiled",
        "unfit_template": "a template that renders nothing for the examples that are evaluated",
        "render_error": "a template that fails on this example",
        "no_output": "the template renders no output",
        "empty": "the template renders an empty input or output",
    },
    "tokenize": {"no_trained_token": "no token that carries loss is left within the length"},
}
"""What each reason means, by stage."""


def drops(run: FinishedRun) -> Row:
    """Return the reasons of every finished stage with their counts, meanings and how many tasks they touch."""
    counts = {stage: {**run.manifests[stage].dropped} for stage in NAMES if run.has(stage)}
    if "overlap" in counts and "split" in counts:
        counts["split"] = _beside(counts["split"], counts["overlap"])
    stages = [
        {"name": stage, "num": sum(found.values()), "rows": _rows(run, stage, found)}
        for stage, found in counts.items()
        if any(found.values())
    ]
    return {
        "stages": stages,
        "nothing": [stage for stage in counts if stage in MEANINGS and not any(counts[stage].values())],
    }


def _beside(split: Mapping[str, int], overlap: Mapping[str, int]) -> dict[str, int]:
    """Return what the decisions left out beside what the plan had already excluded."""
    return {reason: number - overlap.get(reason, 0) for reason, number in split.items()}


def _rows(run: FinishedRun, stage: str, counts: Mapping[str, int]) -> list[Row]:
    tasks, details = _tasks(run, stage), _details(run, stage)
    known = MEANINGS.get(stage, {})
    rows = [
        {
            "reason": reason,
            "num": number,
            "tasks": tasks.get(reason, 0),
            "meaning": known.get(reason, ""),
            "detail": details.get(reason, ""),
        }
        for reason, number in counts.items()
        if number
    ]
    return sorted(rows, key=lambda row: (-row["num"], row["reason"]))


def _table(run: FinishedRun, stage: str, column: str) -> pa.Table | None:
    names = {"overlap": "assignment", "split": "members"}
    if column == "detail" and stage in names:
        return None
    return run.table(stage, names.get(stage, "dropped"), [column, "reason"])


def _tasks(run: FinishedRun, stage: str) -> dict[str, int]:
    """Return how many tasks each reason touches."""
    found = _table(run, stage, "task")
    if found is None:
        return {}
    grouped = found.filter(pc.is_valid(found["reason"])).group_by("reason")
    rows: Iterable[Row] = grouped.aggregate([("task", "count_distinct")]).to_pylist()
    return {row["reason"]: row["task_count_distinct"] for row in rows}


def _details(run: FinishedRun, stage: str) -> dict[str, str]:
    """Return the detail of the first row of each reason, in few characters."""
    found = _table(run, stage, "detail")
    if found is None or not found.num_rows:
        return {}
    grouped = found.group_by("reason", use_threads=False).aggregate([("detail", "first")]).to_pylist()
    return {
        row["reason"]: text if len(text) <= NUM_CHARACTERS else f"{text[:NUM_CHARACTERS]} \u2026"
        for row in grouped
        if (text := row["detail_first"] or "")
    }
