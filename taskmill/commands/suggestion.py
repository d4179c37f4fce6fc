"""What `taskmill split --suggest` found, on the terminal: proposals with their prices, then what the plan itself costs.

Reads the object that `suggest` makes (its --json); writes to stdout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskmill.commands.figures import count, counted, percent
from taskmill.commands.terminal import Terminal

_NUM_LINES = 12
"""Lines of a table; --json has all."""
_NUM_PAIRS = 3
"""Pairs of a proposal."""


class SuggestionPrinter(Terminal):
    """Writes a suggestion; one method for each part."""

    def __init__(self, weight: int) -> None:
        super().__init__()
        self.weight = weight

    def suggestion(self, body: dict[str, Any]) -> None:
        self.summary(body)
        for number, proposal in enumerate(body["proposals"], 1):
            pairs = proposal["pairs"]
            note = f"{counted(len(pairs), 'pairs')} around {proposal['about']}: {proposal['reason']}"
            self.title(f"{number}. {proposal['price']['text']}", note)
            for pair in pairs[:_NUM_PAIRS]:
                self.line(f"   {pair['train_task']} -> {pair['eval_task']}")
            self.more(len(pairs) - _NUM_PAIRS, "pairs")
            for price in proposal["alternatives"]:
                self.line(("   or ", "dim"), price["text"])
        self.decided(body)
        self.planned(body)
        if not body["proposals"]:
            self.line("")
            self.line("nothing to propose: no pair waits for a decision")
        elif body["file"]:
            self.line("")
            self.line(f"The proposals are rows of {body['file']}: change what you judge otherwise, then")
            self.line(f"  taskmill decisions apply {body['run']} {body['file']}")
            self.line("and the same command without --suggest")

    def summary(self, body: dict[str, Any]) -> None:
        whole, pairs, examples = body["catalogue"], body["pairs"], body["examples"]
        self.line(
            f"{counted(whole['tasks'], 'tasks')}, {counted(whole['pairs'], 'pairs of tasks')}: "
            f"{count(whole['pairs_sharing'])} share text or a data set, {count(whole['directed_pairs_above'])} times one "
            f"task touches more than {percent(body['threshold'], 0)} of another's examples"
        )
        parts = [
            f"{count(pairs['rule'])} decided by rules",
            f"{count(pairs['person'])} by people" if pairs["person"] else "",
            f"{count(pairs['dropped'])} of dropped tasks" if pairs["dropped"] else "",
            f"{count(pairs['proposed'])} by {counted(len(body['proposals']), 'proposals')}",
        ]
        self.line(
            (f"{counted(pairs['above'], 'pairs')} above the threshold: ", "bold"),
            ", ".join(p for p in parts if p),
        )
        for side in ("train", "evaluation"):
            before, decided, after = (examples[k][side] for k in ("assigned", "decided", "proposed"))
            self.line(
                f"{side} examples: {count(before)} assigned, {count(decided)} after the decisions made, "
                f"{count(after)} after the proposals"
            )
        self.line(f"an evaluation example is priced as {count(self.weight)} train examples")

    def decided(self, body: dict[str, Any]) -> None:
        if body["rules"]:
            self.title("what is decided costs", "each alone")
            costs = (
                [r["rule"], *(count(r[k]) for k in ("pairs", "train", "evaluation"))] for r in body["rules"]
            )
            self.table(("rule", ">pairs", ">train examples", ">evaluation examples"), costs)
        if body["exchanges"]:
            self.title("cheaper than a rule", "a decision of yours wins over it")
            rows = (
                (
                    f"drop_eval_task {e['evaluation_task']}",
                    *(count(e["num_evaluation"]), count(e["num_train"]), _some(e["train_tasks"])),
                )
                for e in body["exchanges"][:_NUM_LINES]
            )
            self.table(("decision", ">evaluation examples lost", ">train examples kept", "of"), rows)

    def planned(self, body: dict[str, Any]) -> None:
        for key, title in (
            ("evaluation_tasks", "evaluation tasks"),
            ("held_out_categories", "held-out categories"),
        ):
            if body[key]:
                self.title(f"the dearest {title}", "train tasks that go for their sake alone")
                rows = (
                    [p["name"], count(p["num_evaluation"]), count(p["num_train"]), _some(p["alone"])]
                    for p in body[key][:_NUM_LINES]
                )
                self.table(("name", ">evaluation examples", ">train examples lost", "train tasks"), rows)
        if body["moves"]:
            self.title(
                "train tasks of other categories that go",
                "exclude them in the plan, or hold them out as well",
            )
            rows = (
                [m["train_task"], m["category"], _some(m["eval_tasks"])] for m in body["moves"][:_NUM_LINES]
            )
            self.table(("train task", "its category", "goes for"), rows)
            self.more(len(body["moves"]) - _NUM_LINES, "of them; --json lists all")
        if body["suspects"]:
            self.title(
                "below the threshold, and yet one source by all their text",
                "upstream rows of other splits count",
            )
            rows = ([m["train_task"], m["eval_task"], m["reason"]] for m in body["suspects"][:_NUM_LINES])
            self.table(("train task", "evaluation task", "why"), rows)
            self.more(len(body["suspects"]) - _NUM_LINES, "of them; --json lists all")
        self.categories(body["categories"])

    def categories(self, prices: list[dict[str, Any]]) -> None:
        planned = [price for price in prices if price["planned"]]
        others = [price for price in prices if not price["planned"]][:_NUM_LINES]
        names = (
            "category",
            "planned",
            ">tasks",
            ">examples",
            ">tied tasks",
            ">their examples",
            ">touched at most",
        )
        for title, part in (
            ("categories of the plan", planned),
            ("cheapest other categories to hold out", others),
        ):
            if part:
                self.title(title, "examples that training loses, by cause")
                rows = (
                    (
                        *(p["category"], p["planned"].replace("_", " ") or "-"),
                        *(count(p["num_tasks"]), count(p["num_examples"])),
                        *(count(len(p["tied"])), count(p["num_tied"]), count(p["num_touched"])),
                    )
                    for p in part
                )
                self.table(names, rows)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
