"""What the command `trace` prints: lines of at most 80 columns, every text of a run made visible.

Reads the answer of `trace`, writes to stdout: coloured on a terminal, plain elsewhere. What two texts share stands in [[ ]] off
the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskmill.commands.figures import count, counted, named, percent
from taskmill.commands.finished import Row
from taskmill.commands.terminal import Terminal

WIDTH = 80
_SHOWN = 240  # characters of a quote
_SAYS = {
    "trained": ("trained on", "green"),
    "seen": ("read while training, without loss", "green"),
    "planned": ("in what the next training takes", "yellow"),
    "train_examples": ("in examples of the train split", "yellow"),
    "left_out": ("reached by the mixture, but in no update", "yellow"),
    "unreached": ("not trained on: the mixture does not reach it", "yellow"),
    "evaluation": ("not trained on: evaluation prompts only", "red"),
    "catalogue": ("not trained on: in examples that no train prompt shows", "yellow"),
    "not_found": ("not found", "bold"),
}
_GROUPS = {
    "trained": "trained on",
    "planned": "to be trained on",
    "left_out": "reached by the mixture, in no update",
    "unreached": "train prompts that the mixture does not reach, never trained on",
    "validation": "validation prompts, never trained on",
    "test": "evaluation prompts, never trained on",
}
_SPLITS = {
    "train": "examples of the train split",
    "validation": "validation examples",
    "test": "test examples",
    "demonstration": "demonstration examples",
    "excluded": "excluded examples",
    "catalogue": "examples of the catalogue",
}
_REASONS = {
    "cut_off": "cut off to fit the context",
    "behind_last_update": "behind the last update",
    "nothing_to_learn": "without a token that carries loss",
}

_LOSS = {True: ", with loss", False: ", without loss", None: ""}
_LEARNT = ("trained", "planned")
_MOST = 10  # positions and updates

Part = str | tuple[str, str]


class Printer(Terminal):
    """Writes the answer."""

    def show(self, body: Row) -> None:
        """Write what is known of every text, what was searched, and what cannot be told yet."""
        num_texts = body["num_texts"]
        for place, row in enumerate(body["texts"]):
            if place:
                self.line("")
            self._text(row, body, num_texts > 1)
        self.line("")
        if num_texts > 1:
            verdicts = [
                f"{count(number)} {_SAYS[name][0]}" for name, number in body["verdicts"].items() if number
            ]
            self._wrapped("", (counted(num_texts, "texts"), "bold"), f": {'; '.join(verdicts)}")
        self._wrapped("", (_searched(body), "dim"))
        for item in body["missing"]:
            self._wrapped("", ("not told: ", "yellow"), f"{item['what']}: {item['why']}")
            self._wrapped("  ", f"`{item['command']}`")

    def _wrapped(self, indent: str, *parts: Part, hanging: str = "  ") -> None:
        """Write parts as lines of at most WIDTH columns."""
        text = self.text([part if isinstance(part, tuple) else (part, "") for part in parts])
        width = WIDTH - len(indent) - len(hanging)
        for place, line in enumerate(text.wrap(self.console, width)):
            line.rstrip()
            self.console.print(indent + (hanging if place else ""), line, sep="", soft_wrap=True)

    def _text(self, row: Row, body: Row, is_labelled: bool) -> None:
        if is_labelled:
            field = f", field {row['field']}" if row["field"] else ""
            record = f", record {row['record']}" if row["record"] is not None else ""
            self._wrapped("", (f"{row['file']}{record}{field}", "dim"))
        says, style = _SAYS[row["verdict"]]
        self._wrapped("", (says, f"bold {style}"), f": {_flat(row['text'], 120)}")
        if row["compared"] == "whole":
            words = counted(row["num_words"], "words")
            note = f"{words}, fewer than {body['n']}: compared with whole parts of prompts; `--n {row['num_words']}` "
            self._wrapped("  ", (note + "looks inside of them too", "dim"), hanging="")
        if row["verdict"] == "not_found" and row["compared"] == "windows":
            windows = counted(row["num_words"] - body["n"] + 1, "windows")
            note = f"none of its {windows} of {body['n']} words; `--n {max(2, body['n'] // 2)}` finds shorter stretches"
            self._wrapped("  ", note, hanging="")
        for name, group in row["groups"].items():
            self._group(name, group, row, body)

    def _group(self, name: str, group: Row, row: Row, body: Row) -> None:
        in_prompts = group["num_prompts"] > 0
        title = (_GROUPS if in_prompts else _SPLITS)[name]
        self.line("")
        self._wrapped("  ", (title, "cyan"), f": {_size(group)}")
        if in_prompts and group["num_positions"]:
            self._wrapped("    ", _when(group, body), hanging="")
        if group.get("reasons"):
            reasons = (f"{count(number)} {_REASONS[reason]}" for reason, number in group["reasons"].items())
            self._wrapped("    ", "prompts: " + ", ".join(reasons), hanging="")
        extent = f"longest stretch {counted(group['longest'], 'words')}; {percent(group['share'])} of the text's words"
        loss = _LOSS[group.get("carries_loss")] if name in _LEARNT else ""
        self._wrapped("    ", extent + loss, hanging="")
        for example in group["examples"]:
            self._example(example, name in _LEARNT)
        left = group["num_examples"] - len(group["examples"])
        if left:
            self._wrapped("    ", (f"and {counted(left, 'examples')} more; -k shows more of them", "dim"))

    def _example(self, example: Row, is_learnt: bool) -> None:
        self._wrapped("    ", (example["example"], "bold"))
        upstream = [f"{example['file']}, record {example['record']}"] if example["file"] else []
        if example["reader"]:
            upstream.append(f"reader {example['reader']}")
        place = f"{example['repository']} at " if example["repository"] else ""
        upstream += [place + example["revision"]] if example["revision"] else []
        self._wrapped("      ", ("from ", "dim"), "; ".join(upstream) or "nowhere that is known")
        ground = f" ({example['license_evidence']})" if example["license_evidence"] else ""
        self._wrapped("      ", ("licence ", "dim"), f"{example['license'] or 'not known'}{ground}")
        self._wrapped("      ", ("category ", "dim"), f"{example['category']} of {example['benchmark']}")
        for span in (example["prompts"][0] if "prompts" in example else example)["spans"][:2]:
            self._span(span, is_learnt)
        for prompt in example.get("prompts", [])[:2]:
            template = f", template {prompt['template']}" if prompt["template"] else ""
            when = f": {_listed(prompt)}" if prompt["num_positions"] else ""
            self._wrapped("      ", ("prompt ", "dim"), f"{prompt['prompt']}{template}{when}")
        if "prompts" in example:
            left = example["num_prompts"] - len(example["prompts"][:2])
            if left > 0:
                self._wrapped("      ", (f"and {counted(left, 'prompts')} more of this example", "dim"))

    def _span(self, span: Row, is_learnt: bool) -> None:
        loss = _LOSS[span.get("carries_loss")] if is_learnt else ""
        of = f" that shows {span['demonstration']}" if span.get("demonstration") else ""
        kinds = " and ".join(span["kinds"])
        self._wrapped("      ", (f"{counted(span['num_words'], 'words')} in {kinds}{of}{loss}", "dim"))
        quote = span["record"] or {"before": "", "text": span["text"], "after": ""}
        before, after = _flat(quote["before"], 40, from_end=True), _flat(quote["after"], 40)
        text = _flat(quote["text"], _SHOWN)
        if self.colour:
            parts: list[Part] = [before, (text, "underline green"), after]
        else:
            parts = [before, "[[", text, "]]", after]
        self._wrapped("        ", *parts, hanging="")


def _flat(text: str, most: int, from_end: bool = False) -> str:
    """Return a text on one line, shortened; spaces at its ends stay one."""
    line = " ".join(text.split())
    if text[:1].isspace():
        line = " " + line
    if text[-1:].isspace() and line.strip():
        line += " "
    if len(line) <= most:
        return line
    return "... " + line[-most:].lstrip() if from_end else line[:most].rstrip() + " ..."


def _size(group: Row) -> str:
    examples = counted(group["num_examples"], "examples")
    prompts = (
        f"{counted(group['num_prompts'], 'prompts')} of {examples}" if group["num_prompts"] else examples
    )
    tasks = group["tasks"]
    names = ", ".join(item["task"] for item in tasks[:3])
    rest = f" and {count(len(tasks) - 3)} more tasks" if len(tasks) > 3 else ""
    return f"{prompts} in {names}{rest}"


def _when(group: Row, body: Row) -> str:
    """Say how often and when the prompts of a group are drawn."""
    number = group["num_positions"]
    text = f"drawn {counted(number, 'times')}, at {named('positions', number)} {_range(group, 'position')}"
    text += f" of {count(body['num_positions'])}" if body["num_positions"] else ""
    text += f" and {count(group['num_left_out'])} that no update takes" if group["num_left_out"] else ""
    if group.get("num_steps"):
        text += f", in {counted(group['num_steps'], 'updates')}: {_range(group, 'step')} of {count(body['num_steps'])}"
    return text + _epochs(group)


def _listed(row: Row) -> str:
    """Say at which positions and updates a prompt is drawn."""
    text = f"{named('positions', row['num_positions'])} {_some(row, 'positions')}"
    if row.get("num_steps"):
        text += f"; {named('updates', row['num_steps'])} {_some(row, 'steps')}"
    return text + _epochs(row)


def _epochs(row: Row) -> str:
    epochs: Sequence[int] = row.get("epochs", ())
    if not epochs:
        return ""
    more = f" and {count(len(epochs) - _MOST)} more" if len(epochs) > _MOST else ""
    return f"; {named('epochs', len(epochs))} {', '.join(map(count, epochs[:_MOST]))}{more}"


def _some(row: Row, name: str) -> str:
    shown = ", ".join(map(str, row[name][:_MOST]))
    left = row[f"num_{name}"] - len(row[name][:_MOST])
    return f"{shown} and {count(left)} more" if left else shown


def _range(row: Row, name: str) -> str:
    first, last = row[f"first_{name}"], row[f"last_{name}"]
    return count(first) if first == last else f"{count(first)} to {count(last)}"


def _searched(body: Row) -> str:
    searched = body["searched"]
    parts = []
    if "num_prompts" in searched:
        kinds = [f"{count(searched[f'num_{s}_prompts'])} {s}" for s in ("train", "validation", "test")]
        reached = (
            f"; the mixture reaches {count(searched['num_reached_prompts'])}" if body["num_positions"] else ""
        )
        parts.append(f"{counted(searched['num_prompts'], 'prompts')} ({', '.join(kinds)}{reached})")
    if "num_examples" in searched:
        parts.append(counted(searched["num_examples"], "examples"))
    return f"searched {' and '.join(parts)} of {body['run']}, windows of {body['n']} words ({body['normalisation']})"
