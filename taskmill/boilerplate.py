"""Boilerplate: the words that a task, or a template, puts around each of its examples, and that say nothing of any.

>>> limits(np.array([19, 100, 100]), np.array([0, 0, 5])).tolist()
[inf, 50.0, 10.0]
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

SHARE = 0.5
"""Of a template's examples; what stands in more of them is boilerplate."""
MIN_EXAMPLES = 20
"""A template of fewer examples has no boilerplate."""


def limits(num_examples: I64, num_rendered_templates: I64) -> npt.NDArray[np.float64]:
    """Return of each task the number of its examples above which a text in them is boilerplate: float64[num_tasks].

    That is half of the 20 or more examples of a template, taken as equally many for each: the words of a template
    stand in all of its examples. A task whose rows are not rendered counts as one template.

    Args:
        num_examples: int64[num_tasks].
        num_rendered_templates: int64[num_tasks], as in the task table.
    """
    of_template = num_examples / np.maximum(num_rendered_templates, 1)
    return np.where(of_template >= MIN_EXAMPLES, of_template * SHARE, np.inf)
