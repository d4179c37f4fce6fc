"""Rouge-L: our values beside those of Super-NaturalInstructions' own evaluator, pair by pair.

    python benchmarks/rouge_fidelity.py [--tk-instruct CLONE] [--quick] [--seed 0] [--json OUT]

`--tk-instruct` is a clone of yizhongw/Tk-Instruct, whose src/compute_metrics.py is loaded as it is, with its own copy of
the Rouge scorer; only the GPT-2 tokenizer of its cross-lingual track, which would be downloaded, is left out. Without it
the scorer of the package rouge_score is called as that evaluator calls its copy.

Compared are 10,000 random predictions with one to three random references (words of English, odd letters of many scripts,
punctuation alone, nothing, long texts), and the predictions that the clone carries in output/default. A value is equal when
it is the same float. Times are of one process. `--quick` takes 300 pairs of each.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from taskmill.evaluation.metrics.rouge import rouge_l  # noqa: E402

Pair = tuple[str, list[str]]
Rouge = Callable[[str, list[str]], float]

_WORDS = (ROOT / "README.md").read_text(encoding="utf-8").split()
_LETTERS = (
    "abcdefghij XYZ0123456789 .,;'\n\t-_"
    "\u00e9\u00df\u0130\u0131\u017f\u212a\u03a9\u4e2d\u6587\u65e5\u0e01\u00a0\u200b\U0001f600"
)


def best_of(score: Callable[..., float]) -> Rouge:
    """Return the best value over references of a function that takes one."""
    return lambda prediction, references: max(float(score(prediction, text)) for text in references)


def package_rouge() -> Rouge:
    """Return Rouge-L by the package, a scorer being made for each pair as the evaluator does."""
    from rouge_score.rouge_scorer import RougeScorer

    def score(prediction: str, target: str) -> float:
        scorer = RougeScorer(["rougeL"], use_stemmer=True)
        return float(scorer.score(target=target, prediction=prediction)["rougeL"].fmeasure)

    return best_of(score)


def evaluator_rouge(clone: Path) -> Rouge:
    """Return Rouge-L by compute_metrics.py of a clone; what it would download at once is put there as nothing."""
    path = clone / "src" / "compute_metrics.py"
    spec = importlib.util.spec_from_file_location("compute_metrics", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not there; --tk-instruct is a clone of yizhongw/Tk-Instruct")
    sys.path.insert(0, str(path.parent))
    without: Any = ModuleType("transformers")
    without.AutoTokenizer = type("AutoTokenizer", (), {"from_pretrained": lambda *_, **__: None})
    before = sys.modules.get("transformers")
    sys.modules["transformers"] = without
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    del sys.modules["transformers"]
    if before is not None:
        sys.modules["transformers"] = before
    return lambda prediction, references: module.metric_max_over_ground_truths(
        module.rougeL_score, prediction, references
    )


def random_text(chance: random.Random) -> str:
    """Return a text: nothing, punctuation, letters of many scripts, or words."""
    kind = chance.random()
    if kind < 0.04:
        return ""
    if kind < 0.1:
        return "".join(chance.choices(".,;!?- ", k=chance.randint(1, 9)))
    if kind < 0.4:
        return "".join(chance.choices(_LETTERS, k=chance.randint(1, 80)))
    return " ".join(chance.choices(_WORDS, k=chance.choice((1, 4, 12, 40, 120, 400))))


def random_pairs(number: int, seed: int) -> list[Pair]:
    """Return predictions with their references; half of the predictions share words with a reference."""
    chance = random.Random(seed)
    pairs = []
    for _ in range(number):
        references = [random_text(chance) for _ in range(chance.randint(1, 3))]
        prediction = random_text(chance)
        if chance.random() < 0.5:
            words = chance.choice(references).split() + prediction.split()[:5]
            prediction = " ".join(word for word in words if chance.random() < 0.8)
        pairs.append((prediction, references))
    return pairs


def published_pairs(clone: Path) -> list[Pair]:
    """Return the predictions that the clone carries, with the references of their instances."""
    pairs = []
    for path in sorted((clone / "output" / "default").rglob("predicted_examples.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            pairs.append((row["prediction"], list(row["Instance"]["output"])))
    return pairs


def timed(function: Rouge, pairs: Sequence[Pair]) -> tuple[list[float], float]:
    """Return (values, seconds)."""
    started = time.perf_counter()
    values = [function(prediction, references) for prediction, references in pairs]
    return values, time.perf_counter() - started


def compare(theirs: Rouge, pairs: Sequence[Pair], counts: Counter[str]) -> tuple[float, float]:
    """Count pairs, equal values and values that are neither 0 nor 1; return (our seconds, theirs)."""
    mine, seconds = timed(rouge_l, pairs)
    wanted, their_seconds = timed(theirs, pairs)
    for pair, value, other in zip(pairs, mine, wanted):
        counts["found"] += 1
        counts["equal"] += value == other
        counts["between_0_and_1"] += 0 < other < 1
        if value != other and counts["found"] - counts["equal"] <= 10:
            sys.stderr.write(f"{value!r} != {other!r}: {pair!r:.600}\n")
    return seconds, their_seconds


def main() -> int:
    """Compare, print the figures; fail where a value differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tk-instruct", type=Path, help="clone of yizhongw/Tk-Instruct")
    parser.add_argument("--quick", action="store_true", help="300 pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    clone, most = arguments.tk_instruct, 300 if arguments.quick else 10_000
    theirs = evaluator_rouge(clone) if clone else package_rouge()
    counts: Counter[str] = Counter()
    seconds, their_seconds = compare(theirs, random_pairs(most, arguments.seed), counts)
    if clone:
        published = published_pairs(clone)
        counts["published"] = len(published)
        compare(theirs, published[:: max(1, len(published) // most)], counts)
    result = {
        "ratios": {
            "equal": counts["equal"] / counts["found"],
            "rouge_l_speed_over_evaluator": round(their_seconds / seconds, 2),
        },
        "figures": {**counts, "seconds": round(seconds, 2), "their_seconds": round(their_seconds, 2)},
        "versions": {"python": platform.python_version(), "rouge_score": metadata.version("rouge_score")},
    }
    text = json.dumps(result, indent=1) + "\n"
    sys.stdout.write(text)
    if arguments.json:
        arguments.json.write_text(text, encoding="utf-8")
    return int(counts["equal"] < counts["found"])


if __name__ == "__main__":
    raise SystemExit(main())
