"""All compiled kernels: those that find (`find_kernels.py`), hash all words, and group windows (`group_kernels.py`).

Importing this module imports numba and compiles, or loads what an earlier run compiled: `compiling.py` says when that
pays. Importing it in a process of its own fills the cache of machine code.
"""

from __future__ import annotations

import numpy as np
from numba import uint64 as u64

from taskmill.find_kernels import INVERSES as INVERSES
from taskmill.find_kernels import POWERS as POWERS
from taskmill.find_kernels import SPACE, cut, mixed, most_words
from taskmill.find_kernels import TOO_SMALL as TOO_SMALL
from taskmill.find_kernels import UNKNOWN as UNKNOWN
from taskmill.find_kernels import confirm as confirm
from taskmill.find_kernels import rewrite as rewrite
from taskmill.find_kernels import scan as scan
from taskmill.group_kernels import group as group
from taskmill.group_kernels import partition as partition
from taskmill.group_kernels import settle as settle
from taskmill.jit import INT, ONE, R8, R64, RI64, W8, W64, WI64, compiled
from taskmill.text import GRAM_BASE, I64, U8, U64

_GRAM = np.uint64(GRAM_BASE)


@compiled(R8, RI64, R8, R64, R64, INT, W64, WI64, W8, WI64)
def collect(
    raw: U8,
    offsets: I64,
    fold: U8,
    inverses: U64,
    powers: U64,
    n: int,
    values: U64,
    num_words: I64,
    joined: U8,
    begins: I64,
) -> int:
    """Write the hashes of all words, or with n > 0 of all windows of n words; return their number.

    `num_words[t]` gets the words of text t. With n > 0, `joined` gets all words, a space after each, and
    `begins[w + 1]` where in it the word after word w begins.
    """
    size = most_words(offsets)
    ends, sums, hashes = np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.uint64)
    top = ONE
    for _ in range(n):
        top *= _GRAM
    num, word, place = u64(0), u64(0), u64(0)
    begins[0] = 0
    for text in range(len(offsets) - 1):
        begin, end = u64(offsets[text]), u64(offsets[text + 1])
        found = cut(raw, begin, end, fold, inverses, powers, ends, sums, hashes)
        num_words[text] = found
        if n == 0:
            for k in range(found):
                values[num + k] = hashes[k]
            num += found
            continue
        before = u64(0)
        for k in range(begin, end):
            byte = u64(fold[raw[k]])
            inside = u64(byte != u64(0))
            joined[place] = byte | ((inside ^ ONE) << u64(5))
            begins[word + ONE] = place + ONE
            word += before & (inside ^ ONE)
            place += before | inside
            before = inside
        if before != u64(0):
            joined[place] = SPACE
            place += ONE
            word += ONE
            begins[word] = place
        gram = u64(0)
        for k in range(found):
            gram = gram * _GRAM + hashes[k]
            if k >= u64(n):
                gram -= hashes[k - u64(n)] * top
            if k + ONE >= u64(n):
                values[num] = mixed(gram)
                num += ONE
    return int(num)
