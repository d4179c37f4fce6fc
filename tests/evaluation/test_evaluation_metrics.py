"""Metrics of answers: which one, and what it gives."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import DataError
from taskmill.evaluation.metrics import matching, registry, rouge, translation
from taskmill.evaluation.metrics.registry import Item, Measure, values
from taskmill.records import METRICS


def item(samples: Sequence[str], references: Sequence[str], options: Sequence[str] | None = None) -> Item:
    return Item(samples, references, options, None, "b/t#0", "b/t", "the prompt")


def value(measure: Measure, prediction: str, *references: str, options: Sequence[str] | None = None) -> float:
    return values(measure, [item([prediction], references, options)], 1)[0].value


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (" Paris. ", "paris", 1.0),
        ("New\n  York", "new york.", 1.0),
        ("STRASSE", "straße", 1.0),
        ("the cat", "cat", 0.0),
        ("yes", "no", 0.0),
        ("1.5", "15", 0.0),
        ("", "", 1.0),
    ],
)
def test_exact_match_plain(prediction: str, reference: str, expected: float) -> None:
    assert value(Measure("exact_match"), prediction, "something else", reference) == expected
    assert value(Measure("exact_match", "plain"), prediction, "something else", reference) == expected


@pytest.mark.parametrize(
    ("normaliser", "left", "right", "same"),
    [
        ("exact", " a", "a\n", True),
        ("exact", "a.", "a", False),
        ("exact", "A", "a", False),
        ("squad", "The cat's  hat!", "cats hat", True),
        ("squad", "an apple a day", "apple day", True),
        ("squad", "theatre", "atre", False),
        ("number", "1,000", "1000.0", True),
        ("number", "$1,000", "1000", True),
        ("number", "1e3", "1000", True),
        ("number", "1/2", "0.50", True),
        ("number", "50%", "50", True),
        ("number", "50%", "0.5", False),
        ("number", "\u2212$3.", "-3", True),
        ("number", "$-3", "3", False),
        ("number", "12,34", "1234", False),
        ("number", "1,0000", "10000", False),
        ("number", "-0", "0", True),
        ("number", "1/0", "1/0", True),
        ("number", "12 cats", "12", False),
        ("number", "Twelve", "twelve.", True),
        ("number", "0.1", "1/10", True),
        ("number", "12345678901234567890.1", "12345678901234567890.2", False),
        ("number", "1e999999999", "1", False),
        ("number", "9" * 5000, "1", False),
    ],
)
def test_normalisers(normaliser: str, left: str, right: str, same: bool) -> None:
    for measure in (Measure("exact_match", normaliser), Measure("accuracy", normaliser)):
        options = (right, "another") if measure.metric == "accuracy" else None
        assert value(measure, left, right, options=options) == float(same)


@given(st.sampled_from(sorted(matching.NORMALISERS)), st.text())
def test_a_normaliser_never_fails(name: str, text: str) -> None:
    matching.NORMALISERS[name](text)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1e12, max_value=1e12))
def test_numbers_written_in_other_ways_are_equal(size: object) -> None:
    assert matching.number(f"{size:,}") == matching.number(f"{size}") == matching.number(f"${size:,}")
    assert matching.number(f"{size}1") != matching.number(f"{size}")


@pytest.mark.parametrize(
    ("normaliser", "prediction", "references", "expected"),
    [
        (None, "a small cat", ["the cat"], 2 / 3),  # P 1/2, R 1/1
        (None, "cat cat dog", ["cat dog dog"], 2 / 3),  # two in common of three and three
        (None, "dog", ["cat", "a dog!"], 1.0),
        (None, "the", ["a"], 1.0),  # neither has words
        (None, "the", ["cat"], 0.0),
        (None, "cat", ["dog"], 0.0),
        ("plain", "a small cat", ["the cat"], 2 / 5),  # P 1/3, R 1/2
        (None, "cat", [], 0.0),
    ],
)
def test_token_f1_by_hand(
    normaliser: str | None, prediction: str, references: list[str], expected: float
) -> None:
    assert value(Measure("token_f1", normaliser), prediction, *references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "options", "references", "extract", "expected"),
    [
        ("yes", ["yes", "no"], ["yes"], "whole", 1.0),
        ("Yes.", ["yes", "no"], ["yes"], "whole", 1.0),
        ("No", ["yes", "no"], ["yes"], "whole", 0.0),
        ("maybe", ["yes", "no"], ["yes"], "whole", 0.0),
        ("yes.", ["yes", "yes."], ["yes"], "whole", 0.0),  # an option as it stands is that option
        ("The answer is (B).", ["cat", "dog"], ["dog"], "letter", 1.0),
        ("The answer is (A).", ["cat", "dog"], ["dog"], "letter", 0.0),
        ("C", ["cat", "dog"], ["dog"], "letter", 0.0),
        ("dog", ["cat", "dog"], ["dog"], "letter", 1.0),
        ("B", ["cat", "dog"], ["dog"], "whole", 0.0),
        ("(B)", ["B", "A"], ["B"], "letter", 1.0),  # the options are letters themselves
        ("first\nsecond", ["first\nsecond", "first"], ["first\nsecond"], "first_line", 1.0),
    ],
)
def test_accuracy(
    prediction: str, options: list[str], references: list[str], extract: str, expected: float
) -> None:
    assert value(Measure("accuracy", extract=extract), prediction, *references, options=options) == expected


def random_text(chance: random.Random) -> str:
    words = (
        "running",
        "flies",
        "studies",
        "happily",
        "the",
        "Cats",
        "3rd",
        "naïve",
        "ſtate",
        "İstanbul",
        "2024",
    )
    letters = "abcdefghij XYZ0123456789 .,;'éßİıſKΩ中文日本ก\n\t\u00a0-_"
    kind = chance.random()
    if kind < 0.04:
        return ""
    if kind < 0.1:
        return "".join(chance.choices(".,;!?- ", k=chance.randint(1, 9)))
    if kind < 0.4:
        return "".join(chance.choices(letters, k=chance.randint(1, 60)))
    return " ".join(chance.choices(words, k=chance.choice((3, 8, 20, 90))))


def test_rouge_equals_the_package_on_random_texts() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    chance, scorer = random.Random(7), RougeScorer(["rougeL"], use_stemmer=True)
    for _ in range(600):
        prediction = random_text(chance)
        references = [random_text(chance) for _ in range(chance.randint(1, 3))]
        expected = max(
            scorer.score(target=text, prediction=prediction)["rougeL"].fmeasure for text in references
        )
        assert rouge.rouge_l(prediction, references) == expected, (prediction, references)


@given(st.text(), st.lists(st.text(), min_size=1, max_size=2))
def test_rouge_equals_the_package_on_any_text(prediction: str, references: list[str]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    expected = max(scorer.score(target=text, prediction=prediction)["rougeL"].fmeasure for text in references)
    assert rouge.rouge_l(prediction, references) == expected


@given(st.text("abc"), st.text("abc"))
def test_longest_common_subsequence(left: str, right: str) -> None:
    rows = [[0] * (len(right) + 1)]
    for a in left:
        row = [0]
        for j, b in enumerate(right):
            row.append(rows[-1][j] + 1 if a == b else max(rows[-1][j + 1], row[-1]))
        rows.append(row)
    assert rouge.longest_common_subsequence(list(left), list(right)) == rows[-1][-1]


def test_rouge_by_hand() -> None:
    assert value(Measure("rouge_l"), "the cats are running", "a dog", "the cat are run") == 1.0
    # LCS 2 of 3 predicted and 2 of 4 reference words: P = 2/3, R = 1/2, F1 = 4/7
    assert value(Measure("rouge_l"), "one two six", "zzz", "one two three four") == pytest.approx(4 / 7)
    assert rouge.rouge_l("one", []) == 0.0
    assert value(Measure("rouge_l"), "你好", "你好") == 0.0


def corpora(num: int) -> list[list[Item]]:
    chance = random.Random(3)
    made = []
    for _ in range(num):
        texts = [[random_text(chance) for _ in range(4)] for _ in range(chance.randint(1, 12))]
        # half of the answers have something of a reference, so that long n-grams match
        texts = [[f"{a} {b}" if chance.random() < 0.5 else a, b, c, d] for a, b, c, d in texts]
        made.append([item(row[:1], row[1 : 2 + chance.randint(0, 2)]) for row in texts])
    return made


def test_bleu_equals_sacrebleu_on_random_corpora() -> None:
    import sacrebleu

    some = 0
    for items in corpora(120):
        valued = values(Measure("bleu"), items, 1)
        sums = np.array([v.statistics for v in valued]).sum(axis=0, keepdims=True)
        most = max(len(i.references) for i in items)
        streams = [[[*i.references, *[None] * most][place] for i in items] for place in range(most)]
        expected = sacrebleu.corpus_bleu([i.samples[0].strip() for i in items], streams).score / 100
        assert registry.combine("bleu", sums)[0] == pytest.approx(expected, abs=1e-12)
        some += 0 < expected < 1
        for found, asked in zip(valued, items):
            alone = sacrebleu.sentence_bleu(asked.samples[0].strip(), list(asked.references)).score / 100
            assert found.value == pytest.approx(alone, abs=1e-12)
    assert some > 40


def test_bleu_by_hand() -> None:
    # 3 of 4 words, 2 of 3, 1 of 2, 0 of 1 which counts as a half; as long as the reference
    found = values(Measure("bleu"), [item(["a b c x"], ["a b c d"])], 1)[0]
    assert found.statistics == [3, 2, 1, 0, 4, 3, 2, 1, 4, 4]
    expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    assert found.value == pytest.approx(expected)
    rows = np.array(
        [found.statistics, [4, 3, 2, 1, 4, 3, 2, 1, 4, 8], [0.0] * 10, [3, 0, 0, 0, 3, 2, 1, 0, 3, 3]]
    )
    assert registry.combine("bleu", rows) == pytest.approx([expected, np.exp(1 - 8 / 4), 0.0, 0.0])


def test_statistics_of_several_samples_are_summed_and_their_values_averaged() -> None:
    both = values(Measure("bleu"), [item(["a b c d", "x"], ["a b c d"])], 1)[0]
    each = values(Measure("bleu"), [item(["a b c d"], ["a b c d"]), item(["x"], ["a b c d"])], 1)
    assert both.value == pytest.approx((each[0].value + each[1].value) / 2)
    assert both.statistics == [a + b for a, b in zip(each[0].statistics or [], each[1].statistics or [])]
    assert both.answer == "a b c d"
    assert values(Measure("exact_match"), [item(["a", "b", "A."], ["a"])], 1)[0].value == pytest.approx(2 / 3)


def test_chrf_is_sacrebleus() -> None:
    import sacrebleu

    for items in corpora(20):
        for found, asked in zip(values(Measure("chrf"), items, 1), items):
            expected = sacrebleu.sentence_chrf(asked.samples[0].strip(), list(asked.references)).score / 100
            assert found.value == pytest.approx(expected, abs=1e-12) and 0 <= found.value <= 1
    assert value(Measure("chrf"), "猫が好き", "猫が好き") == pytest.approx(1.0)


def test_workers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_CHUNK", 40)
    items = [i for items in corpora(15) for i in items]
    assert values(Measure("bleu"), items, 2) == values(Measure("bleu"), items, 1)


@given(st.sampled_from([m for m in METRICS if m != "pass_at_k"]), st.text(), st.lists(st.text(), max_size=2))
def test_every_value_is_between_0_and_1(metric: str, prediction: str, references: list[str]) -> None:
    assert 0 <= value(Measure(metric), prediction, *references) <= 1


@given(
    st.sampled_from(["exact_match", "token_f1", "rouge_l", "bleu", "chrf"]), st.text("abcd ef", min_size=1)
)
def test_an_answer_that_is_the_reference_has_1(metric: str, text: str) -> None:
    words = f"whole {text} sentence"
    assert value(Measure(metric, "plain"), words, "x", words) == pytest.approx(1.0)


def test_metric_of_a_prompt() -> None:
    assert registry.metric_of("rouge_l", ["a", "b "], ["b"]) == "accuracy"
    assert registry.metric_of("rouge_l", ["a", "b"], ["c"]) == "rouge_l"
    assert registry.metric_of("accuracy", None, ["c"]) == "exact_match"
    assert registry.answer_index(["x", " y", "y"], ["y"]) == 1


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (Measure("rouge_1"), "no metric is called 'rouge_1' - did you mean 'rouge_l'"),
        (Measure("exact_match", "squat"), "no normaliser is called 'squat' - did you mean 'squad'"),
        (Measure("exact_match", extract="last_numbr"), "no extract is called .* did you mean 'last_number'"),
        (Measure("mine.py:f"), "no metric is called 'mine.py:f'"),
    ],
)
def test_what_nobody_knows_is_named_with_the_nearest(measure: Measure, message: str) -> None:
    for ask in (lambda: registry.require([measure]), lambda: values(measure, [], 1)):
        with pytest.raises(DataError, match=message):
            ask()


def test_only_bleu_is_combined() -> None:
    with pytest.raises(DataError, match="'rouge_l' is a metric of single answers"):
        registry.combine("rouge_l", np.zeros((1, translation.STATISTICS)))


@pytest.mark.parametrize(
    ("package", "metric"), [("rouge_score", "rouge_l"), ("sacrebleu", "bleu"), ("sacrebleu", "chrf")]
)
def test_a_missing_package_is_reported_with_the_extra(package: str, metric: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from taskmill.errors import MissingPackageError\n"
        "from taskmill.evaluation.metrics.registry import Measure, require\n"
        "require([Measure('exact_match'), Measure('accuracy'), Measure('token_f1')])\n"
        f"try: require([Measure({metric!r})])\n"
        f"except MissingPackageError as error: assert 'taskmill[eval]' in str(error) and {package!r} in str(error), error\n"
        "else: raise SystemExit('not reported')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
