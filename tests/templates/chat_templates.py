"""Chat templates in the manner of those on the Hub, in our own words, and the files of a tokenizer that go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHATML = """\
{%- if messages[0].role == 'system' -%}
    {%- set talk = messages[1:] -%}
    {{- '<|im_start|>system\\n' ~ messages[0].content ~ '<|im_end|>\\n' -}}
{%- else -%}
    {%- set talk = messages -%}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in talk -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message['content'] ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

BRACKETS = """\
{% set ns = namespace(system='') %}
{% for message in messages %}
{% if message['role'] == 'system' %}{% set ns.system = message['content'] | trim %}{% continue %}{% endif %}
{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' -}}
{% if loop.index0 == 1 and ns.system %}{{- '<<SYS>>\\n' + ns.system + '\\n<</SYS>>\\n\\n' -}}{% endif %}
{{- message['content'] | trim + ' [/INST]' -}}
{% elif message['role'] == 'assistant' %}{{- ' ' + message['content'] | trim + ' ' + eos_token -}}
{% else %}{{ raise_exception('no role ' + message['role']) }}{% endif %}
{% endfor %}
"""

HEADERS = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('a role that is not known: ' ~ message.role) }}
    {%- endif %}
    {{- '<|head|>' + message.role + '<|tail|>\\n\\n' + message.content | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|tail|>\\n\\n' }}
{%- endif %}
"""

MARKED = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|tail|>", "<|eot|>")
TEXTS = (
    "Who wrote it? Größe, naïve 数学.",
    "user assistant system\n\nYou help. [INST] [/INST]",
    "def f(x):\n  return x",
)


def write(folder: Path, template: str, where: str = "tokenizer_config.json") -> Path:
    """Write a byte-level tokenizer trained on the spot, its config and a chat template; return the folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}
    config["added_tokens_decoder"] = {
        str(number): {"content": token, "special": True} for number, token in enumerate(SPECIAL)
    }
    if where == "tokenizer_config.json":
        config["chat_template"] = template
    elif where.endswith(".json"):
        (folder / where).write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    else:
        (folder / where).write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
