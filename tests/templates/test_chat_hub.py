"""A tokenizer's own chat template, beside transformers' rendering and tokenising of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import chat_templates
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.errors import UsageError
from taskmill.evaluation.asking.fitting import split_prompt
from taskmill.templates.chat.formats import ChatFormat, load_format
from taskmill.templates.chat.layout import lay_out, turns_of
from taskmill.templates.composing.rendered import Drop
from taskmill.templates.composing.segments import Segment, encode
from taskmill.training.encoding.encoder import encode as tokenize
from taskmill.training.encoding.rows import Prompt
from taskmill.training.encoding.tokenizer import open_tokenizer

TEMPLATES = {
    "chatml": chat_templates.CHATML,
    "brackets": chat_templates.BRACKETS,
    "headers": chat_templates.HEADERS,
    "marked": chat_templates.MARKED,
}
TALKS = [
    [{"user": "Who?"}, {"assistant": "Me."}],
    [{"user": "1 + 1?"}, {"assistant": "2"}, {"user": " and <|im_end|> 2 + 2? "}, {"assistant": "4\n"}],
    [{"system": "Be brief."}, {"user": "数学?"}, {"assistant": "Größe"}, {"user": "b"}, {"assistant": "c"}],
]


def read(tmp_path: Path, template: str, where: str = "tokenizer_config.json") -> ChatFormat:
    chat_templates.write(tmp_path / "tok", template, where)
    return load_format("tok", tmp_path)


def laid(chat: ChatFormat, turns: list[dict[str, str]], system: str | None = None) -> list[Segment]:
    found = turns_of({"turns": turns})
    assert not isinstance(found, Drop)
    segments = lay_out(chat, found, None, system)
    assert not isinstance(segments, Drop), segments
    return segments


def marked(segments: list[Segment]) -> str:
    """Write control segments in ‹› and trained ones in «»."""
    text = ""
    for segment in segments:
        own = f"‹{segment.text}›" if segment.kind == "control" else segment.text
        text += f"«{own}»" if segment.trained else own
    return text.replace("»«", "")


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Transformers' tokenizer over the files that `chat_templates.write` writes."""
    transformers = pytest.importorskip("transformers")
    folder = chat_templates.write(tmp_path_factory.mktemp("fast"), chat_templates.CHATML)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("talk", TALKS, ids=["one", "two", "system"])
def test_text_and_ids_are_those_of_transformers(
    name: str, talk: list[dict[str, str]], tmp_path: Path, fast: Any
) -> None:
    segments = laid(read(tmp_path, TEMPLATES[name]), talk)
    messages = [{"role": role, "content": text} for turn in talk for role, text in turn.items()]
    text = fast.apply_chat_template(messages, chat_template=TEMPLATES[name], tokenize=False)
    assert "".join(s.text for s in segments).replace("{bos}", "<s>").replace("{eos}", "</s>") == text
    if "<|im_end|>" in talk[-2].get(
        "user", ""
    ):  # transformers reads a user's text for special tokens, we do not
        return
    row = encode(segments)
    prompt = Prompt(row["text"], row["ends"], row["kinds"], row["trained"])
    found = tokenize(open_tokenizer(tmp_path / "tok"), [prompt])[0]
    theirs = fast.apply_chat_template(
        messages,
        chat_template=TEMPLATES[name],
        return_dict=True,
        return_assistant_tokens_mask=name == "marked",
    )
    assert found.ids.tolist() == theirs["input_ids"]
    if name == "marked":
        assert found.trained.astype(int).tolist() == theirs["assistant_masks"]


def test_what_is_trained(tmp_path: Path) -> None:
    talk = [{"user": " a "}, {"assistant": "b "}, {"user": "c"}, {"assistant": "d"}]
    written = {name: marked(laid(read(tmp_path / name, body), talk)) for name, body in TEMPLATES.items()}
    assert written == {
        "chatml": "‹<|im_start|>›system\nYou help.‹<|im_end|>›\n‹<|im_start|>›user\n a ‹<|im_end|>›\n"
        "‹<|im_start|>›assistant\n«b ‹<|im_end|>›»\n‹<|im_start|>›user\nc‹<|im_end|>›\n"
        "‹<|im_start|>›assistant\n«d‹<|im_end|>›»\n",
        "brackets": "‹{bos}›[INST] a [/INST]« b ‹{eos}›»‹{bos}›[INST] c [/INST]« d ‹{eos}›»",
        "headers": "‹{bos}›‹<|head|>›user‹<|tail|>›\n\na‹<|eot|>›‹<|head|>›assistant‹<|tail|>›\n\n«b‹<|eot|>›»"
        "‹<|head|>›user‹<|tail|>›\n\nc‹<|eot|>›‹<|head|>›assistant‹<|tail|>›\n\n«d‹<|eot|>›»",
        "marked": "‹<|im_start|>›user\n a ‹<|im_end|>›\n‹<|im_start|>›assistant\n«b ‹<|im_end|>›»\n"
        "‹<|im_start|>›user\nc‹<|im_end|>›\n‹<|im_start|>›assistant\n«d‹<|im_end|>›»\n",
    }


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.json", "chat_template.jinja"])
def test_where_a_template_may_stand(where: str, tmp_path: Path) -> None:
    chat_templates.write(tmp_path / "tok", chat_templates.HEADERS, where)
    found = {load_format(name, tmp_path).digest for name in ("tok", f"tok/{where}")}
    assert len(found) == 1
    (tmp_path / "tok/tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
    if where != "tokenizer_config.json":
        assert load_format("tok", tmp_path).digest not in found


def test_one_of_several_templates(tmp_path: Path) -> None:
    chat_templates.write(tmp_path / "tok", "", "chat_template.json")
    several = [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": chat_templates.HEADERS},
    ]
    (tmp_path / "tok/chat_template.json").write_text(json.dumps({"chat_template": several}))
    chat = load_format("tok/chat_template.json", tmp_path)
    assert chat.template is not None and chat.template.source == chat_templates.HEADERS


def test_a_template_alone_has_symbols_and_what_looks_special(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(chat_templates.HEADERS)
    written = marked(laid(load_format("own.jinja", tmp_path), [{"user": "a"}, {"assistant": "b"}]))
    assert written == (
        "‹{bos}›‹<|head|>›user‹<|tail|>›\n\na‹<|eot|>›‹<|head|>›assistant‹<|tail|>›\n\n«b‹<|eot|>›»"
    )


@pytest.mark.parametrize("token", ["<start_of_turn>", "[INST]", "</s>"])
def test_a_template_alone_is_not_guessed_at(token: str, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(chat_templates.HEADERS.replace("<|head|>", token))
    with pytest.raises(UsageError, match=rf"{re.escape(token)}', which may be a special token"):
        load_format("own.jinja", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"additional_special_tokens": ["<|eot|>"]}')
    segments = laid(load_format("own.jinja", tmp_path), [{"user": "a"}, {"assistant": "b"}])
    assert marked(segments).endswith(f"{token}assistant<|tail|>\n\n«b‹<|eot|>›»")


def test_system_text_and_pieces(tmp_path: Path) -> None:
    chat = read(tmp_path, chat_templates.HEADERS)
    talk = [{"user": "a"}, {"assistant": "b"}, {"user": "never answered"}]
    segments = laid(chat, talk, "Be kind.")
    assert marked(segments).startswith("‹{bos}›‹<|head|>›system‹<|tail|>›\n\nBe kind.‹<|eot|>›")
    assert "never" not in marked(segments)
    assert {s.kind for s in segments} == {"control", "system", "user", "assistant"}


@pytest.mark.parametrize(
    "turns, reason",
    [
        ([{"user": "a"}], "no_assistant_turn"),
        ([{"user": "a"}, {"call": "{}"}, {"tool": "1"}, {"assistant": "b"}], "role_not_in_format"),
        ([{"user": "a"}, {"tool": "1"}, {"assistant": "b"}], "refused_by_template"),
    ],
)
def test_conversations_that_are_dropped(turns: list[dict[str, str]], reason: str, tmp_path: Path) -> None:
    found = turns_of({"turns": turns})
    assert not isinstance(found, Drop)
    drop = lay_out(read(tmp_path, chat_templates.HEADERS), found)
    assert isinstance(drop, Drop) and drop.reason == reason and drop.detail


def test_an_answer_begins_with_the_white_space_before_it(tmp_path: Path) -> None:
    chat = read(tmp_path, chat_templates.BRACKETS)
    segments = laid(chat, [{"user": "a"}, {"assistant": "b"}])
    assert [s.text for s in segments] == ["{bos}", "[INST] ", "a", " [/INST]", " b", " ", "{eos}"]
    row = encode(segments)
    question = split_prompt(row["text"], row["ends"], row["kinds"], row["trained"])
    assert (question.prefix[-1].text, question.answer, question.lead) == (" [/INST]", " b", " ")
    empty = laid(chat, [{"user": "a"}, {"assistant": ""}])
    assert marked(empty) == "‹{bos}›[INST] a [/INST]«  ‹{eos}›»"


VARIANTS = {
    "a thought that the model writes": (
        chat_templates.HEADERS.replace(
            "'<|head|>' + message.role + '<|tail|>\\n\\n'",
            "'<|head|>' + message.role + '<|tail|>\\n\\n' + "
            "('<thought></thought>' if loop.last and message.role == 'assistant' else '')",
        ),
        "«b‹<|eot|>›»‹<|head|>›user‹<|tail|>›\n\nc‹<|eot|>›‹<|head|>›assistant‹<|tail|>›\n\n"
        "«<thought></thought>d‹<|eot|>›»",
    ),
    "a mark that begins a newline early": (
        chat_templates.MARKED.replace(
            "assistant\\n' }}{% generation %}{{ m", "assistant' }}{% generation %}{{ '\\n' + m"
        ),
        "\n«d‹<|im_end|>›»\n",
    ),
    "a mark around the end of all": (
        chat_templates.MARKED
        + "{% if not add_generation_prompt %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}",
        "\n«d‹<|im_end|>›»\n«‹{eos}›»",
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_ways_of_templates_on_the_hub(name: str, tmp_path: Path) -> None:
    body, end = VARIANTS[name]
    written = marked(
        laid(read(tmp_path, body), [{"user": "a"}, {"assistant": "b"}, {"user": "c"}, {"assistant": "d"}])
    )
    assert written.endswith(end), written


def test_contents_that_a_template_rewrites_are_dropped(tmp_path: Path) -> None:
    hides = chat_templates.HEADERS.replace("message.content | trim", "message.content.split('</think>')[-1]")
    chat = read(tmp_path, hides)
    assert "b" in marked(laid(chat, [{"user": "a"}, {"assistant": "b"}]))
    found = turns_of({"turns": [{"user": "a"}, {"assistant": "hm</think>b"}]})
    assert not isinstance(found, Drop)
    drop = lay_out(chat, found)
    assert isinstance(drop, Drop) and drop.reason == "template_changes_contents"


BAD = {
    "left out": ("{{ messages[0].content }}", "leaves out the content of turn 1"),
    "twice": (
        "{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}",
        "writes contents twice",
    ),
    "reversed": ("{% for m in messages | reverse %}{{ m.content }} {% endfor %}", "in another order"),
    "upper": ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "leaves out the content"),
    "no prompt": (
        "{% for m in messages %}{{ '<|head|>' + m.role + '\n' + m.content + '<|eot|>' }}{% endfor %}",
        "with add_generation_prompt it ends in",
    ),
    "thinks": (
        chat_templates.HEADERS.replace("assistant<|tail|>\\n\\n'", "assistant<|tail|>\\n\\n<think>'"),
        "with add_generation_prompt it ends in",
    ),
    "late mark": (
        chat_templates.MARKED.replace("{% generation %}", "Sure: {% generation %}"),
        "{% generation %} begins after",
    ),
    "date": (chat_templates.HEADERS + "{{ strftime_now('%d %B') }}", "may not read the date"),
    "syntax": ("{% for m in messages %}", "Unexpected end of template"),
    "walk": ("{{ messages.__class__.__mro__ }}", "UnsafeTemplateError"),
    "import": ("{% include '/etc/passwd' %}", "UnsafeTemplateError"),
    "range": ("{% for i in range(10 ** 9) %}x{% endfor %}", "OverBudgetError|OverflowError"),
    "bomb": ("{{ 'a' * 300000000 }}", "OverBudgetError"),
    "nested loops": (
        "{% for a in range(999) %}{% for b in range(999) %}{{ a }}{% endfor %}{% endfor %}",
        "OverBudgetError",
    ),
    "changes the list": ("{{ messages.append({}) }}", "SecurityError|UnsafeTemplateError"),
}


@pytest.mark.parametrize("name", BAD)
def test_templates_that_are_refused(name: str, tmp_path: Path) -> None:
    body, expected = BAD[name]
    (tmp_path / "own.jinja").write_text(body)
    with pytest.raises(UsageError, match=rf"own\.jinja: .*({expected})"):
        load_format("own.jinja", tmp_path)


def test_files_that_are_no_template(tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_bytes(b"\xff\xfe")
    (tmp_path / "b.json").write_text("[1]")
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    expected = {"a.jinja": "not UTF-8", "b.json": "expected an object", "c.json": "not JSON"}
    expected |= {"d.json": "holds no chat template", "empty": "holds no chat template"}
    for name, message in expected.items():
        with pytest.raises(UsageError, match=message):
            load_format(name, tmp_path)


contents = st.text(st.sampled_from("aZ ß\n\t<|>{}/é数"), max_size=10) | st.sampled_from(
    ["<|im_end|>", "</s>", "{eos}", "<|eot|>\n", "{% generation %}", "{{ bos_token }}", "\ue0f0", "[/INST]"]
)


@pytest.mark.parametrize("name", TEMPLATES)
@given(st.lists(contents, min_size=2, max_size=4))
def test_whatever_is_said_stays_text(name: str, own: dict[str, ChatFormat], said: list[str]) -> None:
    turns = [{("user", "assistant")[number % 2]: text} for number, text in enumerate(said)]
    silent = [dict.fromkeys(turn, "x") for turn in turns]
    segments, same = laid(own[name], turns), laid(own[name], silent)
    controls = [s.text for s in segments if s.kind == "control"]
    assert controls == [s.text for s in same if s.kind == "control"]
    assert all(s.text and s.kind in ("assistant", "control") for s in segments if s.trained)
    trained = "".join(s.text for s in segments if s.trained and s.kind != "control")
    assert "".join(trained.split()) == "".join("".join(said[1::2]).split())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatFormat]:
    folder = tmp_path_factory.mktemp("own")
    return {name: read(folder / name, body) for name, body in TEMPLATES.items()}
