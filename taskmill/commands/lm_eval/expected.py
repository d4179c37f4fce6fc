"""The run's own scores of what is exported, by the names that the harness has for it.

Reads predictions.parquet and scores.parquet of the evaluate stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taskmill.commands.finished import FinishedRun
from taskmill.commands.lm_eval.layout import Names
from taskmill.commands.lm_eval.leaves import Group, Leaf, corpora
from taskmill.commands.scoring.scores import score_rows
from taskmill.evaluation.aggregation.hierarchy import DECIMALS
from taskmill.evaluation.aggregation.variants import DEFAULT

_COLUMNS = ("model", "task", "template", "shots", "metric", "value")


def own_scores(
    found: FinishedRun, leaves: Mapping[Leaf, str], groups: Iterable[Group], names: Names
) -> dict[str, dict[str, Any]]:
    """Return {harness name: {"metric": ..., "values": {model: score}}}; empty where the run has no scores.

    Args:
        found: the run.
        leaves: what the harness calls the metric of each leaf.
        groups: of the export.
        names: of leaves and groups.
    """
    if found.table("evaluate", "scores") is None:
        return {}
    scores: dict[str, dict[str, Any]] = {}
    for leaf, values in _of_leaves(found).items():
        if leaf in leaves:
            scores[names.leaf(leaf)] = {"metric": leaves[leaf], "values": values}
    rows = score_rows(found, ("variant", "level", "category", "benchmark"))
    by_place: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in rows:
        by_place.setdefault((row["scope"], row["name"], row["shots"]), {})[row["model"]] = row["value"]
    for group in groups:
        values = by_place.get((group.scope, group.name, group.shots), {})
        scores[names.group(group)] = {"metric": group.metric, "values": values}
    for leaf in corpora(leaves.keys()):  # no mean over predictions
        place = ("variant", f"{leaf.task}::{leaf.variant}", leaf.shots)
        scores[names.leaf(leaf)] = {"metric": leaves[leaf], "values": by_place.get(place, {})}
    return dict(sorted(scores.items()))


def _of_leaves(found: FinishedRun) -> dict[Leaf, dict[str, float]]:
    """Return the mean value of the predictions of each leaf, by model."""
    parts = []
    for batch in found.inputs.batches("evaluate", "predictions", [*_COLUMNS, "scores"]):
        table = pa.Table.from_batches([batch]).select(_COLUMNS)
        parts.append(table.append_column("ranked", pc.is_valid(batch.column("scores"))))
    if not parts:
        return {}
    table = pa.concat_tables(parts)
    if table.column("value").null_count:
        return {}
    keys = ["model", "task", "template", "shots", "metric", "ranked"]
    means: dict[Leaf, dict[str, float]] = {}
    for row in table.group_by(keys).aggregate([("value", "mean")]).to_pylist():
        leaf = Leaf(row["task"], row["template"] or DEFAULT, row["shots"], row["ranked"], row["metric"])
        means.setdefault(leaf, {})[row["model"]] = round(row["value_mean"], DECIMALS)
    return {leaf: dict(sorted(values.items())) for leaf, values in means.items()}
