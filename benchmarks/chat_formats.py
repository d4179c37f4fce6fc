"""Chat formats, token by token: ours beside the code of TULU, Vicuna, FLACUNA and OpenChat.

    python benchmarks/chat_formats.py [--quick] [--fastchat PATH] [--flacuna PATH] [--open-instruct PATH] [--openchat PATH]
                                      [--data PATH] [--json OUT]

A PATH is a clone with its history; `chat_references.py` says which commits and functions are run. A format whose clone is
not given is compared with a second statement of its rules, written without segments. `--data` is the folder of real
upstream files; without it, and with `--quick`, the conversations are made up. Three tokenizers are trained on the spot on
the conversations: LLaMA's layout (a word mark before every text, bytes for what is unknown), SentencePiece words, and
byte-level BPE.

Equal means: the same ids, and loss on the same tokens; or that both refuse the conversation (the reference raises or
trains nothing, ours gives a reason). Every difference is named with its cause. `equal_share` is equal over compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import chat_references as references
from chat_references import IGNORED, MAX_LENGTH, Conversation, Encoding, Reference

from taskmill.templates.chat.formats import load_format
from taskmill.templates.chat.layout import lay_out, turns_of
from taskmill.templates.composing.rendered import Drop
from taskmill.templates.composing.segments import encode as columns
from taskmill.training.encoding.encoder import encode
from taskmill.training.encoding.rows import Prompt
from taskmill.training.encoding.tokenizer import TextTokenizer, open_tokenizer

FORMATS = ("tulu", "vicuna-v1.1", "flacuna", "openchat-v2", "openchat-v3.1", "openchat-v3.2")
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|end_of_turn|>")
TOKENIZERS = ("llama", "words", "bytes")
MADE_UP = "Grüße the cat 数学 sat upon\tthe mat, then 12.5 + 3 = ? def f(x):\n return x"
NUM_SHOWN = 5
"""Differences shown of each format and cause."""

# ------------------------------------------------------------------------------------- conversations


def real(data: Path) -> Iterator[Conversation]:
    """Yield the conversations of the real files; instruction sets also three to a dialogue."""
    chat = data / "chat"
    for number, item in enumerate(_read(chat / "sharegpt/dummy_conversation.json")):
        yield _conversation(f"sharegpt#{number}", _turns(item["conversations"]))
    for number, item in enumerate(_read(chat / "llama_factory/glaive_toolcall_en_demo.json")):
        turns = _turns(item["conversations"])
        yield _conversation(f"glaive#{number}", turns)
        yield _conversation(
            f"glaive-text#{number}", [t for t in turns if t[0] in ("user", "assistant")], True
        )
    trees = [tree["prompt"] for tree in _read(chat / "oasst/en_100_tree.jsonl")]
    for number, root in enumerate(trees + _roots(_read(chat / "oasst/realistic_seed_data.json"))):
        for leaf, path in enumerate(_paths(root, [])):
            yield _conversation(f"oasst#{number}.{leaf}", path)
            yield _conversation(f"oasst#{number}.{leaf}, without the last turn", path[:-1], True)
    single = list(_instructions(chat))
    for name, turns in single:
        yield _conversation(name, turns)
    for start in range(0, len(single) - 2, 3):
        joined = [turn for _, turns in single[start : start + 3] for turn in turns]
        yield _conversation(f"three from {single[start][0]}", joined, True)
        if start % 10 == 0:
            yield _conversation(f"leading answer, {single[start][0]}", joined[1:], True)


def _instructions(chat: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    files = (
        "alpaca/alpaca_data_cleaned_first_1000.json", "code_alpaca/code_alpaca_2k.json",
        "code_alpaca/new_codealpaca.json", "dolly/dolly.json", "llama_factory/alpaca_en_demo.json",
        "self_instruct/seed_tasks.jsonl", "self_instruct/user_oriented_instructions.jsonl",
    )  # fmt: skip
    for name in files:
        for number, item in enumerate(_read(chat / name)):
            given = {**item, **(item.get("instances") or [{}])[0]}
            texts = [given["instruction"], given.get("input") or given.get("context") or ""]
            answer = given.get("output") or given.get("response") or ""
            user = "\n\n".join(text for text in texts if text)
            yield f"{name}#{number}", [("user", user), ("assistant", answer)]


def _read(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    found: list[Any] = json.loads(text)
    return found


def _turns(items: list[dict[str, str]]) -> list[tuple[str, str]]:
    roles = {"human": "user", "gpt": "assistant", "function_call": "call", "observation": "tool"}
    return [(roles.get(item["from"], item["from"]), item["value"]) for item in items]


def _roots(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hang messages below the messages that they answer; return those that answer none."""
    nodes = {message["user_message_id"]: {**message, "replies": []} for message in messages}
    for node in nodes.values():
        if node["parent_message_id"] in nodes:
            nodes[node["parent_message_id"]]["replies"].append(node)
    return [node for node in nodes.values() if node["parent_message_id"] not in nodes]


def _paths(node: dict[str, Any], before: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    role = {"prompter": "user"}.get(node["role"], node["role"])
    path = [*before, (role, node["text"])]
    if not node["replies"]:
        yield path
    for reply in node["replies"]:
        yield from _paths(reply, path)


def made_up() -> Iterator[Conversation]:
    """Yield conversations of one to five turns in a few alphabets, with the white space that trips formats up."""
    words = [*MADE_UP.split(" "), "", "\n\n"]
    for number in range(120):
        turns = []
        for turn in range(1 + number % 5):
            texts = [words[(number * 7 + turn * 3 + i * i) % len(words)] for i in range(3 + number % 11)]
            text = " ".join(texts).strip() or "yes"
            text = f"{text}\n" if number % 4 == 1 else f" {text}" if number % 9 == 2 else text
            turns.append((("user", "assistant")[turn % 2], text))
        yield _conversation(
            f"made up {number}", turns if number % 6 else [("system", "Be brief."), *turns], True
        )


def _conversation(name: str, turns: list[tuple[str, str]], altered: bool = False) -> Conversation:
    return Conversation(name, tuple(turns), "GPT4" if len(name) % 2 else "GPT3", altered)


# ---------------------------------------------------------------------------------------- tokenizers


def train(kind: str, texts: list[str], folder: Path) -> Any:
    """Train a tokenizer of 6,000 tokens, write it to a folder; return it as transformers' own class."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token=None if kind == "bytes" else "<unk>"))
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        lines = pre_tokenizers.Split("\n", "isolated")  # as SentencePiece, whose tokens hold no newline
        made.pre_tokenizer = pre_tokenizers.Sequence([lines, pre_tokenizers.Metaspace()])
        alphabet = []
    tokens = [*SPECIAL, *([f"<0x{byte:02X}>" for byte in range(256)] if kind == "llama" else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=6000, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    if kind == "llama":
        made = _llama(made, tokens)
    elif kind == "words":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    bos = made.token_to_id("<s>")
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    made.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    fast = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=MAX_LENGTH, **names)
    fast.legacy = True
    del normalizers
    return fast


def _llama(made: Any, tokens: list[str]) -> Any:
    """Give a trained model LLaMA's layout: bytes for what it has no token for, a word mark before every text."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers

    body = json.loads(made.to_str())["model"]
    learned = [token for token in body["vocab"] if token not in SPECIAL and "\n" not in token]
    vocabulary = {token: number for number, token in enumerate([*tokens, *learned])}
    merges = [tuple(merge) for merge in body["merges"] if merge[0] + merge[1] in vocabulary]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    llama = Tokenizer(model)
    llama.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    llama.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return llama


# ---------------------------------------------------------------------------------------- comparison


def ours(name: str, tokenizer: TextTokenizer, given: Conversation) -> Encoding | Drop:
    """Lay out and encode a conversation as render and tokenize do."""
    turns = turns_of({"turns": [{role: text} for role, text in given.turns]})
    if isinstance(turns, Drop):
        return turns
    chat = load_format(name, Path())
    condition = chat.conditions[given.quality].text if chat.has_conditions else None
    segments = lay_out(chat, turns, condition)
    if isinstance(segments, Drop):
        return segments
    row = columns(segments)
    prompt = Prompt(row["text"], row["ends"], row["kinds"], row["trained"], chat.joint)
    found = encode(tokenizer, [prompt])[0]
    ids = found.ids.tolist()
    return Encoding(ids, [i if on else IGNORED for i, on in zip(ids, found.trained.tolist())])


def compare(
    name: str, reference: Reference, pair: tuple[Any, TextTokenizer], given: Conversation
) -> tuple[str, str]:
    """Return how a conversation compares (equal, both refuse, or a cause) and what is to be seen."""
    own = ours(name, pair[1], given)
    try:
        theirs = reference(pair[0], given)
    except (AssertionError, KeyError, NotImplementedError, ValueError, IndexError) as error:
        if isinstance(own, Drop):
            return "both refuse", own.reason
        return cause(name, given, f"theirs raises {type(error).__name__}"), str(error)
    if isinstance(own, Drop):
        if all(label == IGNORED for label in theirs.labels):
            return "both refuse", own.reason
        return cause(name, given, f"ours drops: {own.reason}"), own.detail
    if own == theirs:
        return "equal", ""
    if own.ids != theirs.ids:
        at = next(
            (i for i, (a, b) in enumerate(zip(own.ids, theirs.ids)) if a != b),
            min(map(len, (own.ids, theirs.ids))),
        )
        return cause(name, given, "other ids"), _shown(pair[0], own, theirs, at)
    at = next(i for i, (a, b) in enumerate(zip(own.labels, theirs.labels)) if a != b)
    if all(label == IGNORED for label in theirs.labels):
        return cause(name, given, "theirs trains nothing"), _shown(pair[0], own, theirs, at)
    return cause(name, given, "loss on other tokens"), _shown(pair[0], own, theirs, at)


def _shown(tokenizer: Any, own: Encoding, theirs: Encoding, at: int) -> str:
    def window(found: Encoding) -> str:
        part = slice(max(0, at - 4), at + 5)
        tokens = tokenizer.convert_ids_to_tokens(found.ids[part])
        return " ".join(f"[{t}]" if label != IGNORED else t for t, label in zip(tokens, found.labels[part]))

    return f"token {at}: ours {window(own)!r}, theirs {window(theirs)!r}"


def cause(name: str, given: Conversation, seen: str) -> str:
    """Return why a conversation differs, where the text shows it; else what was seen."""
    texts = [text for _, text in given.turns]
    if any(token in text for text in texts for token in SPECIAL):
        return "a special token's text in a turn: text to us, parsed by them"
    roles = [role for role, _ in given.turns if role != "system"]
    unasked = any(pair == ("assistant", "assistant") for pair in zip(["assistant", *roles], roles))
    if name == "tulu" and unasked:
        return "an answer that follows no user turn: theirs trains its header"
    if name in ("vicuna-v1.1", "flacuna"):
        if roles != [role for role, _ in given.turns]:
            return "a system turn: the system text to us, a role that theirs does not know"
        if not all(texts):
            return "an empty turn: ours drops the conversation, theirs runs it into the next turn"
        if any(" ASSISTANT: " in f" {text} " for text in texts):
            return "' ASSISTANT: ' in a turn: theirs trains nothing"
    return seen


def run(clones: dict[str, Path | None], conversations: list[Conversation]) -> dict[str, Any]:
    """Compare every format under every tokenizer; return counts by format, and examples of what differs."""
    counts: dict[str, Counter[str]] = {}
    unaltered: dict[str, Counter[str]] = {}
    shown: dict[str, list[str]] = {}
    against = {name: _reference(name, clones) for name in FORMATS}
    with tempfile.TemporaryDirectory() as work:
        for kind in TOKENIZERS:
            folder = Path(work) / kind
            folder.mkdir()
            fast = train(kind, [text for c in conversations for _, text in c.turns], folder)
            pair = (fast, open_tokenizer(folder))
            for name in FORMATS:
                for label, reference in against[name]:
                    key = f"{name} | {label} | {kind}"
                    counter = counts.setdefault(key, Counter())
                    for given in conversations:
                        verdict, detail = compare(name, reference, pair, given)
                        counter[verdict] += 1
                        if not given.altered:
                            unaltered.setdefault(key, Counter())[verdict] += 1
                        if verdict not in ("equal", "both refuse"):
                            found = shown.setdefault(f"{key} | {verdict}", [])
                            if len(found) < NUM_SHOWN:
                                found.append(f"{given.name}: {detail}")
    return {
        "counts": {key: dict(sorted(c.items())) for key, c in counts.items()},
        "counts_as_they_stand": {key: dict(sorted(c.items())) for key, c in unaltered.items()},
        "differences": shown,
    }


def _reference(name: str, clones: dict[str, Path | None]) -> list[tuple[str, Reference]]:
    """Return what a format is compared with: (label, reference) of its clone, else the second statement."""
    found: list[tuple[str, Reference]] = []
    fastchat, instruct, openchat = clones["fastchat"], clones["open_instruct"], clones["openchat"]
    if name == "tulu" and instruct:
        found.append(("open-instruct", references.tulu(instruct)))
    if name == "vicuna-v1.1" and fastchat:
        found.append(("FastChat", references.vicuna(fastchat, references.FASTCHAT)))
    if name == "flacuna" and clones["flacuna"]:
        found.append(("flacuna", references.vicuna(clones["flacuna"], references.FLACUNA)))
    if name.startswith("openchat") and openchat:
        commit = references.OPENCHAT_V2 if name == "openchat-v2" else references.OPENCHAT_V3
        key = name.replace("-", "_") + ("_llama2" if name == "openchat-v3.1" else "")
        if name != "openchat-v3.2":
            found.append(("OpenChat", references.openchat(openchat, commit, key)))
        else:
            found.append(("OpenChat", references.openchat_of_october(openchat)))
    return found or [("second statement", references.expected(name))]


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="made-up conversations only")
    for name in ("fastchat", "flacuna", "open-instruct", "openchat", "data"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    clones = {key: getattr(options, key) for key in ("fastchat", "flacuna", "open_instruct", "openchat")}
    conversations = list(made_up())
    if options.data and not options.quick:
        conversations += list(real(options.data))
    result = run(clones, conversations)
    compared = equal = 0
    for key, counts in result["counts"].items():
        alike = counts.get("equal", 0) + counts.get("both refuse", 0)
        compared, equal = compared + sum(counts.values()), equal + alike
        print(
            f"{key}: {alike:,} of {sum(counts.values()):,} equal ({counts.get('both refuse', 0):,} refused by both)"
        )
        for verdict, number in counts.items():
            for line in result["differences"].get(f"{key} | {verdict}", [""])[
                : 0 if verdict in ("equal",) else 2
            ]:
                if line:
                    print(f"    {verdict}: {number:,}; {line[:300]}")
    print(f"{equal:,} of {compared:,} comparisons equal")
    if options.json:
        body = {
            "ratios": {"equal_share": equal / compared},
            "figures": {
                "found": compared,
                "num_equal": equal,
                "num_conversations": len(conversations),
                **result,
            },
            "versions": {name: metadata.version(name) for name in ("tokenizers", "transformers")},
        }
        options.json.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
