"""Sets of programs and texts that a cast describes: CodeSearchNet, CodeContests, APPS and whatever else has one.

A set lies in `<folder>/<cast>`, or where the option `casts` says. A task is named like its cast. CodeSearchNet is read as code
to text; `casts: {code_search_net_generation: code_search_net}` reads it the other way round.
"""

from __future__ import annotations

from taskmill.curation.sources import _casted

BENCHMARK = "code"
STYLE, KIND = "keywords", "benchmark"
OPTIONS = _casted.OPTIONS
discover = _casted.discover
read = _casted.read
