"""MetaICL: how many demonstrations are drawn, the separator, and what carries loss."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.recipe import MetaICL
from taskmill.records import SEGMENT_KINDS
from taskmill.templates.composing.metaicl import cumulative, num_demonstrations
from taskmill.templates.composing.schemas import Rendered, Wording, compose
from taskmill.templates.composing.segments import END, Segment
from taskmill.training.encoding.fitting import FitCounts, fit
from taskmill.training.encoding.rows import Encoded

NUM_DRAWS = 100_000
SEPARATOR = MetaICL().separator


@pytest.mark.parametrize(("exponent", "zero_shot"), [(4.0, 0.925), (2.0, 0.671)])
def test_zero_shot_shares_are_the_paper_s(exponent: float, zero_shot: float) -> None:
    exact = [z**-exponent / sum(y**-exponent for y in range(1, 7)) for z in range(1, 7)]
    assert round(exact[0], 3) == zero_shot
    assert np.diff([0.0, *cumulative(exponent, 5)]) == pytest.approx(exact)
    settings = MetaICL(exponent=exponent)
    drawn = Counter(num_demonstrations(11, f"prompt {i}", settings) for i in range(NUM_DRAWS))
    assert set(drawn) == set(range(6))
    for k, share in enumerate(exact):
        spread = (share * (1 - share) / NUM_DRAWS) ** 0.5
        assert abs(drawn[k] / NUM_DRAWS - share) < 4 * spread, k


def test_a_draw_depends_on_seed_and_prompt_alone() -> None:
    settings = MetaICL(exponent=2.0)
    draws = [[num_demonstrations(seed, str(i), settings) for i in range(200)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert {num_demonstrations(0, str(i), MetaICL(max_demonstrations=0)) for i in range(50)} == {0}


ASKED = Rendered("Do it.", "in", "out", ("out",))
SHOWN = [Rendered("Do it.", f"in{i}", f"out{i}", (f"out{i}",)) for i in range(3)]


def test_three_newlines_stand_between_demonstrations() -> None:
    segments = compose("task", ASKED, SHOWN[:2], Wording("\nA:"), separator=SEPARATOR)
    assert "".join(s.text for s in segments[:-1]) == (
        "Do it.\n\nin0\nA: out0\n\n\nin1\nA: out1\n\n\nin\nA: out"
    )
    assert [s.trained for s in segments] == [False, False, False, False, True, True]


@pytest.mark.parametrize("style", ["task", "instance"])
def test_suffix_loss_begins_at_the_first_demonstration_s_output(style: str) -> None:
    plain = compose(style, ASKED, SHOWN, Wording("\nA:"), separator=SEPARATOR)
    segments = compose(style, ASKED, SHOWN, Wording("\nA:"), separator=SEPARATOR, suffix_loss=True)
    assert "".join(s.text for s in segments) == "".join(s.text for s in plain)
    before = "".join(s.text for s in segments if not s.trained)
    assert before == ("Do it.\n\nin0\nA:" if style == "task" else "Do it.\nin0\nA:")
    first = next(i for i, s in enumerate(segments) if s.trained)
    assert segments[first].text == " out0\n\n\n" and all(s.trained for s in segments[first:])
    assert sum(s.kind == "demonstration" for s in segments) == 2 * len(SHOWN)


def test_without_demonstrations_the_loss_is_the_answer_s() -> None:
    plain = compose("task", ASKED, [], Wording("\nA:"))
    assert compose("task", ASKED, [], Wording("\nA:"), suffix_loss=True) == plain


# --------------------------------------------------------------------------------------------- short contexts


def encoded(segments: list[Segment]) -> Encoded:
    """Return a token for each character."""
    number = np.concatenate([np.full(len(s.text), i) for i, s in enumerate(segments)]).astype(np.int32)
    trained = np.array([s.trained for s in segments])[number]
    return Encoded(np.arange(len(number), dtype=np.int32), trained, number)


@given(st.sampled_from(["task", "instance", "keywords"]), st.integers(1, 3), st.data())
def test_a_fitted_prompt_is_that_of_fewer_demonstrations(
    style: str, num_shown: int, data: st.DataObject
) -> None:
    layouts = [
        compose(
            style, ASKED, SHOWN[dropped:num_shown], Wording("\nA:"), separator=SEPARATOR, suffix_loss=True
        )
        for dropped in range(num_shown + 1)
    ]
    whole = encoded(layouts[0])
    text = "".join(s.text for s in layouts[0])
    lengths = [sum(len(s.text) for s in layout) for layout in layouts]
    max_length = data.draw(st.integers(lengths[-1], lengths[0]))
    dropped = next(i for i, length in enumerate(lengths) if length <= max_length)
    [piece] = fit(whole, [SEGMENT_KINDS.index(s.kind) for s in layouts[0]], max_length, FitCounts())
    want = encoded(layouts[dropped])
    assert "".join(text[i] for i in piece.ids) == "".join(s.text for s in layouts[dropped])
    assert piece.trained.tolist() == want.trained.tolist()


def test_what_is_too_long_without_demonstrations_loses_its_left() -> None:
    segments = compose("task", ASKED, SHOWN, Wording("\nA:"), separator=SEPARATOR, suffix_loss=True)
    counts = FitCounts()
    size = len("\nA: out{eos}")
    [piece] = fit(encoded(segments), [SEGMENT_KINDS.index(s.kind) for s in segments], size, counts)
    text = "".join(s.text for s in segments)
    assert "".join(text[i] for i in piece.ids) == "\nA: out{eos}"
    assert "".join(text[i] for i in piece.ids[piece.trained]) == " out" + END.text
    assert counts == FitCounts(demonstrations_dropped=1, input_truncated=1)
