"""The page on chat formats: its commands run, its files load, its tables and messages are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from running import ROOT, taskmill

from taskmill import recipe_files
from taskmill.errors import RecipeError
from taskmill.recipe import Condition
from taskmill.templates.chat.formats import ChatFormat, format_names, load_format
from taskmill.templates.chat.layout import lay_out, turns_of
from taskmill.templates.composing.rendered import Drop

PAGE = (ROOT / "docs" / "chat-formats.md").read_text(encoding="utf-8")
FILES: dict[str, str] = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
SHORT = {"E": "<|end_of_turn|>", "S": "<|im_start|>", "T": "<|im_end|>"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def marked(chat: ChatFormat, talk: list[dict[str, str]], condition: str | None = None) -> str:
    turns = turns_of({"turns": talk})
    assert not isinstance(turns, Drop)
    segments = lay_out(chat, turns, condition)
    assert not isinstance(segments, Drop)
    text = ""
    for segment in segments:
        own = f"‹{segment.text}›" if segment.kind == "control" else segment.text
        text += f"«{own}»" if segment.trained else own
    return text.replace("»«", "")


def test_the_commands_run(tmp_path: Path) -> None:
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    shown = ""
    for command in commands.splitlines():
        done = taskmill(*shlex.split(command)[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        shown = done.stdout
    assert "<|user|>" in shown and "{bos}" in shown


def test_the_table_of_formats() -> None:
    rows = re.findall(r"^\| `([\w.-]+)` \| `(.*)` \| (jointly|by segments) \|$", PAGE, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == format_names()
    talk = [{"user": "Hi"}, {"assistant": "Yo"}, {"user": "So?"}, {"assistant": "So"}]
    for name, text, how in rows:
        chat = load_format(name, Path())
        written = marked(chat, talk, "GPT4").replace(chat.default_system or "\0", "SYSTEM")
        for short, token in SHORT.items():
            written = written.replace(f"‹{token}›", f"‹{short}›")
        assert written.replace("\n", "⏎") == text.replace("\\|", "|")
        assert chat.joint == (how == "jointly")


def test_the_conditions_of_a_recipe(folder: Path) -> None:
    demo = yaml.safe_load((ROOT / "taskmill/recipes/demo.yaml").read_text(encoding="utf-8"))
    demo["render"] = yaml.safe_load(FILES["conditions.yaml"])["render"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(demo))
    render = recipe_files.load(folder / "recipe.yaml", base=ROOT).recipe.render
    assert render.conditions == {"people": Condition("Expert", 1.0), "model": Condition("Model", 0.1)}


def test_the_format_of_one_s_own(folder: Path) -> None:
    written = marked(load_format("letters.yaml", folder), [{"user": " Why? "}, {"assistant": "So."}])
    assert written == "‹{bos}›Answer letters.\n\nDear model, Why?\nDear user,« So.‹<|stop|>›»\n"


def test_the_message_about_a_wrong_format(folder: Path) -> None:
    ((wrong, message),) = re.findall(r"<!-- wrong: (.*?) -->\n```text\n(.*?)\n```", PAGE, re.DOTALL)
    text = re.sub(rf"^{wrong.split(':')[0]}: \w+", wrong, FILES["letters.yaml"], flags=re.MULTILINE)
    (folder / "letters.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_format("letters.yaml", folder)
    assert str(caught.value) == f"{folder}/{message}"


def test_the_tokenizer_s_template(folder: Path) -> None:
    chat = load_format("tokenizer", folder)
    assert marked(chat, [{"user": " a<|head|> "}, {"assistant": "b"}]) == (
        "‹{bos}›‹<|head|>›user‹<|tail|>›a<|head|>‹{eos}›‹<|head|>›assistant‹<|tail|>›«b‹{eos}›»"
    )


def test_the_keys_of_a_format_are_all_named() -> None:
    from taskmill.templates.chat import checking

    table = PAGE.split("| key | |")[1].split("Every problem")[0]
    for key in (*checking._KEYS, *checking._ROLE_KEYS, *checking._RULE_KEYS):
        assert f"`{key}`" in table, key
