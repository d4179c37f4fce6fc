"""Hand-written files of chat and instruction sets, in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from native_files import folder, read_all, write

from taskmill.curation.reader import TaskData

ALPACA = [
    {"instruction": "Name a river.", "input": "", "output": "The Weser.", "text": "Name a river. The Weser."},
    {"instruction": "Count the letters.", "input": "plum", "output": "4", "topic": "words"},
    {"instruction": "Say nothing.", "input": None, "output": ""},
    {"instruction": "Greet.", "output": "Hello <b>you</b>"},
]
SHAREGPT = [
    {
        "id": "Q7plumX_0",
        "model": "GPT-4",
        "conversations": [
            {"from": "human", "value": "Who mends <p>kettles</p>?"},
            {"from": "gpt", "value": "A tinker."},
            {"from": "human", "value": "And clocks?"},
            {"from": "chatgpt", "value": "A clockmaker."},
        ],
    },
    {
        "id": "Q7plumX_4",
        "model": "GPT-3.5",
        "items": [{"from": "user", "value": "Go on"}, {"from": "bard", "value": "Done"}],
    },
    {
        "id": 17,
        "model": "other",
        "system": "Be brief.",
        "tools": [{"name": "weigh"}],
        "messages": [
            {"role": "user", "content": "Weigh it."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"name": "weigh", "arguments": {"of": "it"}}],
            },
            {"role": "tool", "content": "3 kg"},
            {"role": "assistant", "content": "It weighs 3 kg."},
        ],
    },
    {
        "conversations": [
            {"from": "human", "value": "Look it up"},
            {"from": "function_call", "value": '{"name": "look"}'},
            {"from": "observation", "value": "found"},
            {"from": "gpt", "value": "Here."},
        ],
        "tools": "[]x",
    },
]


def message(name: str, text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A message of an OASST tree; names of assistants' messages begin with a."""
    role = "assistant" if name.startswith("a") else "prompter"
    fixed = {
        "message_id": name,
        "text": text,
        "role": role,
        "lang": "en",
        "deleted": False,
        "review_result": True,
    }
    return {**fixed, **more, "replies": list(replies)}


TREE = {
    "message_tree_id": "p1",
    "tree_state": "ready_for_export",
    "prompt": message(
        "p1",
        "Which bird sings?",
        message("a1", "The wren.", message("p2", "Sure?"), rank=1, model="x"),
        message(
            "a2",
            "The thrush.",
            message("p3", "Why?", message("a4", "To be heard.", lang="de", rank=0)),
            rank=0,
        ),
        message("a3", "None.", deleted=True),
        message("a5", "All.", review_result=False),
        message("a6", "Some.", rank=2),
    ),
}
"""Paths to leaves: p1-a1-p2, p1-a2-p3-a4, p1-a3, p1-a5, p1-a6."""
DOLLY = [
    {
        "instruction": "Who wrote it?",
        "context": "It was written by Ann.",
        "response": "Ann",
        "category": "closed_qa",
    },
    {"instruction": "List two trees.", "context": "", "response": "Oak, elm", "category": "brainstorming"},
]
BAIZE = [
    {
        "topic": "tea",
        "input": "Two talk.\n[|Human|] How hot? \n[|AI|] Very.\n[|Human|] Sure?\n"
        "[|Human|]Then?[|AI|]Wait.[|AI|]Drink.\n[|Human|]",
    },
    {"topic": "none", "input": "Nobody answers.\n[|Human|] Hello?\n[|Human|]"},
]
SEED = {
    "id": "seed_task_x",
    "name": "sizes",
    "instruction": "Compare the sizes.",
    "instances": [{"input": "ant, cow", "output": "cow"}, {"input": "", "output": "equal"}],
    "is_classification": True,
    "motivation_app": "Scales",
}
UNNATURAL = {
    "instruction": "Find the odd one.",
    "instances": [
        {
            "instruction_with_input": "-",
            "input": "a, a, b",
            "constraints": "Answer with a letter.",
            "output": "b",
        },
        {"instruction_with_input": "-", "input": "1, 1, 2", "constraints": "None.", "output": "2"},
    ],
    "reformulations": [
        {"instruction": "Which is odd?", "instruction_with_input": "-", "input": "a, a, b", "output": "b"},
        {
            "instruction": "In {INPUT}, which?",
            "instruction_with_input": "In a, b, which?",
            "input": "a, b",
            "output": "b",
        },
    ],
}
SEEDS: dict[str, list[Any]] = {
    "alpaca": ALPACA,
    "sharegpt": SHAREGPT,
    "oasst": [TREE, TREE["prompt"], "Only asked"],
    "dolly": DOLLY,
    "baize": BAIZE,
    "self_instruct": [
        SEED,
        ALPACA[1],
        {"prompt": "Task:", "completion": " Done<|endoftext|>"},
        {"target": "", "response": ""},
    ],
    "unnatural_instructions": [UNNATURAL, {**UNNATURAL, "reformulations": None}],
}


def read_one(
    reader: str, root: Path, content: str | bytes, name: str = "set.jsonl", **options: Any
) -> TaskData:
    write(root, {f"up/{name}": content})
    (data,) = read_all(reader, folder(root, f"up/{name}", **options)).values()
    return data


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{role: text} for role, text in pairs]


def flat(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The messages of a tree as the Hub has them."""
    waiting = [(tree["prompt"], None)]
    while waiting:
        found, parent = waiting.pop(0)
        yield {
            **{key: value for key, value in found.items() if key != "replies"},
            "parent_id": parent,
            "message_tree_id": tree["message_tree_id"],
            "tree_state": tree["tree_state"],
        }
        waiting += [(reply, found["message_id"]) for reply in found["replies"]]
