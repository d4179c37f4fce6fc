"""Hostile templates are refused within the limits, each with a message; look-alikes that mean no harm are not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peak_memory import REPORT, peak_growth
from running import taskmill

from taskmill.curation.sources._yaml import load_yaml
from taskmill.templates.composing.schemas import Drop, Rendered
from taskmill.templates.rendering.library import load_library
from taskmill.templates.rendering.renderer import Renderer
from taskmill.templates.sandboxing.sandbox import promptsource_environment, strict_environment

ROW = {"text": "one two", "xs": [1, 2], "n": 1_000_000_000, "d": {"a": 1}, "lines": "a\nb\nc\n" * 50}

# (template, part of the message). Refused by inspection, whatever the row.
WALKS = [
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "line 1: the attribute"),
    ("{{ text.__class__ }}", "'__class__' is internal"),
    ("a\nb {{ ''['__class__'] }}", "line 2: the item '__class__'"),
    ("{{ xs.append.__self__ }}", "'__self__' is internal"),
    ("{{ ''|attr('__class__') }}", "the filter `attr` is not offered"),
    ("{{ ''|attr('__cla' ~ 'ss__') }}", "the filter `attr` is not offered"),
    ("{{ ['']|map(attribute='__class__')|list }}", "`map` with '__class__'"),
    ("{{ [d]|map(attribute='a.__class__')|list }}", "`map` with 'a.__class__'"),
    ("{{ ['']|map('attr', '__class__')|list }}", "`map` with 'attr'"),
    ("{{ ['']|groupby('__class__') }}", "`groupby` with '__class__'"),
    ("{{ ['']|selectattr('__class__')|list }}", "`selectattr` with"),
    ("{{ ['a']|sort(attribute='__doc__') }}", "`sort` with"),
    ("{{ xs|sum(attribute='__class__') }}", "`sum` with"),
    ("{{ xs|join(',', attribute='__class__') }}", "`join` with"),
    ("{{ '{0.__class__}'.format(1) }}", "a format that reads an internal attribute"),
    ("{{ '{0[__class__]}'.format(d) }}", "a format that reads an internal attribute"),
    ("{{ '{a.__class__}'.format_map(d) }}", "a format that reads an internal attribute"),
    ("{{ self }}", "`self` is the template itself"),
    ("{{ self._TemplateReference__context }}", "`self` is the template itself"),
    ("{{ super() }}", "`super` is another template"),
    ("{{ lipsum.__globals__ }}", "line 1:"),
    ("{{ lipsum(n=100000) }}", "`lipsum` is a maker of random text"),
    ("{{ cycler.__init__.__globals__ }}", "internal to Python"),
    ("{{ joiner.__init__.__globals__ }}", "internal to Python"),
    ("{{ namespace.__init__.__globals__['os'] }}", "internal"),
    ("{% macro m() %}{{ caller.__call__ }}{% endmacro %}{{ m() }}", "internal to Python"),
    ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "internal to Python"),
    ("{{ (1).__class__.mro() }}", "internal to Python"),
    ("{{ ''.join.func_globals }}", "internal to Python"),
    ("{% include 'x' %}", "{% include %}: a template stands alone"),
    ("{% import 'os' as os %}{{ os }}", "{% import %}: a template stands alone"),
    ("{% from 'os' import system %}", "{% fromimport %}: a template stands alone"),
    ("{% extends 'x' %}", "{% extends %}: a template stands alone"),
    ("{% block a %}{{ self.a() }}{% endblock %}", "a template stands alone"),
    ("{% autoescape true %}{{ text }}{% endautoescape %}", "{% autoescape %}"),
    ("{{ text.__\uff43lass__ }}", "internal to Python"),
    ("{% set \ufb01le = 1 %}{{ \ufb01le }}", "is not one that templates may use"),
    ("{{ __builtins__ }}", "'__builtins__' is not one"),
    ("{{ 'http://a.b'|urlize }}", "the filter `urlize` is not offered"),
    ("{{ d|pprint }}", "the filter `pprint` is not offered"),
]
BOMBS = [
    ("{{ 'a' * 300000000 }}", "300,000,000 characters or items by repetition (the limit is 100,000)"),
    ("{{ 300000000 * 'a' }}", "by repetition"),
    ("{{ ('a' * 1000) * 1000 * 1000 }}", "by repetition"),
    ("{{ ('a' ~ 'b') * 10 ** 8 }}", "by repetition"),
    ("{{ [0] * 10 ** 9 }}", "by repetition"),
    ("x\n\n{% set y = (1, 2) * 99999999 %}", "line 3:"),
    ("{% if 'a' * 999999999 %}{% endif %}", "by repetition"),
    ("{{ 9 ** (9 ** 9) }}", "an exponent"),
    ("{{ 10 ** 999999 }}", "999,999 as an exponent (the limit is 1,000)"),
    ("{{ n ** (n ** n) }}", "a power of a power"),
    ("{{ 99999 ** 999 }}", "over 300 digits"),
    ("{{ 1e200 * 1e200 * 9 }}", "a product of over 300 digits"),
    ("{{ " + "9" * 5000 + " }}", "digits"),
    ("{{ range(10 ** 9)|list }}", "1,000,000,000 items in a range (the limit is 100,000)"),
    ("{{ range(0, -10 ** 9, -1)|list }}", "items in a range"),
    ("{% for i in range(999999) %}{% endfor %}", "items in a range"),
    (
        "{% for i in range(900) %}{% for j in range(900) %}{% endfor %}{% endfor %}",
        "810,000 steps of loops over constants",
    ),
    (
        "{% for a in 'x' * 99 %}{% for b in 'x' * 99 %}{% for c in 'x' * 99 %}{% endfor %}{% endfor %}{% endfor %}",
        "steps",
    ),
    ("{% for i in xs %}" * 9 + "{% endfor %}" * 9, "9 loops within one another (the limit is 8)"),
    ("{{ 'x'|center(100000000) }}", "as a width of `center`"),
    ("{{ 'x'.ljust(100000000) }}", "as a width of `ljust`"),
    ("{{ 'x'.zfill(10 ** 8) }}", "as a width of `zfill`"),
    ("{{ '\t'.expandtabs(10 ** 8) }}", "as a width of `expandtabs`"),
    ("{{ 'x'|indent(10 ** 8, true) }}", "as a width of `indent`"),
    ("{{ xs|batch(10 ** 8, 0)|list }}", "as a width of `batch`"),
    ("{{ xs|slice(10 ** 8)|list }}", "as a width of `slice`"),
    ("{{ 'x'|wordwrap(10 ** 8) }}", "as a width of `wordwrap`"),
    ("{{ xs|tojson(indent=100000) }}", "as a width of `tojson` (the limit is 16)"),
    ("{{ '%0200000000d' % 1 }}", "a format whose width is computed, or of five digits"),
    ("{{ '%*d' % (n, 1) }}", "a format whose width is computed"),
    ("{{ '%0200000000d'|format(1) }}", "a format whose width"),
    ("{{ '{:>100000000}'.format(1) }}", "a format whose width"),
    ("{{ '{:>{}}'.format(1, n) }}", "a format whose width is computed"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "the macro `m` calls itself"),
    ("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", "calls itself"),
    ("{% for x in xs recursive %}{{ loop([1]) }}{% endfor %}", "a recursive loop"),
    ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "25 brackets within one another (the limit is 24)"),
    ("{{ " + "[" * 5000 + "]" * 5000 + " }}", "brackets within one another"),
    ("{{ " + "-" * 5000 + "1 }}", "9 signs in a row"),
    ("{{ " + "not " * 5000 + "1 }}", "9 signs in a row"),
    ("{{ " + "1 if n else " * 5000 + "1 }}", "`else` in one expression"),
    ("{% if n %}" * 2000 + "{% endif %}" * 2000, "blocks within one another"),
    ("{% set x %}" * 50 + "{% endset %}" * 50, "blocks within one another"),
    ("{{ " + "1 + " * 5000 + "1 }}", "levels of expressions and blocks"),
    ("{{ text" + "|upper" * 5000 + " }}", "levels of expressions and blocks"),
    ("{{ d" + ".a" * 5000 + " }}", "levels of expressions and blocks"),
    ("{{ d" + "['a']" * 5000 + " }}", "levels of expressions and blocks"),
    ("{% if n %}" + "{% elif n %}" * 5000 + "{% endif %}", "5,000 `elif` of one block (the limit is 200)"),
    ("x" * 200_000, "the template has 200006 characters (the limit is 100000)"),
]
# (template, reason, part of the message). What depends on the row is stopped while it renders, by counting.
COUNTED = [
    ("{{ ''['__cla' ~ 'ss__'] }}", "unsafe", "access to '__class__' of a str"),
    ("{{ ['']|map(attribute='__cla' ~ 'ss__')|list }}", "unsafe", "access to '__class__'"),
    ("{{ [text]|map('at' ~ 'tr', '__cl' ~ 'ass__')|list }}", "render_error", "No filter named 'attr'"),
    ("{% set f = '{0.__cl' ~ 'ass__}' %}{{ f.format(1) }}", "unsafe", "access to '__class__'"),
    ("{% set f = '{a.__class__}' %}{{ f.format_map(d) }}", "unsafe", "access to '__class__'"),
    ("{{ text.encode }}", "unsafe", "access to 'encode' of a str"),
    ("{{ (5).to_bytes(10 ** 9, 'big')|length }}", "unsafe", "access to 'to_bytes' of a int"),
    ("{{ text.encode('utf8').ljust(n) }}", "unsafe", "access to 'encode'"),
    ("{% for x in xs %}{{ loop.__init__ }}{% endfor %}", "unsafe", "internal"),
    ("{% for x in xs %}{{ loop['_iter' ~ 'able'] }}{% endfor %}", "unsafe", "access to"),
    ("{{ 'a' * n }}", "limit", "characters built"),
    ("{{ n * [1] }}", "limit", "characters built"),
    ("{{ 7 ** n }}", "limit", "a power with too many digits"),
    ("{% set x = n %}" + "{% set x = x * x %}" * 60, "limit", "a product with too many digits"),
    ("{{ 1|round(n, 'ceil') }}", "limit", "a precision beyond 300"),
    ("{{ 'x'|center(n) }}", "limit", "is wider than 10000"),
    ("{{ lines|indent('y' * 99999) }}{{ lines|indent('y' * 99999) }}", "limit", "characters built"),
    ("{{ 'x'.rjust(n) }}", "limit", "is wider than 10000"),
    ("{{ xs|batch(n, 0)|list }}", "limit", "is wider than 10000"),
    ("{{ xs|tojson(n) }}", "limit", "is wider than 16"),
    ("{{ ('x' * 9999)|replace(new='y' * 9999, old='x') }}", "limit", "characters built"),
    ("{{ ('x' * 9999)|replace('', 'y' * 9999) }}", "limit", "characters built"),
    ("{{ ('x' * 9999).replace('x', 'y' * 9999) }}", "limit", "characters built"),
    ("{{ ('x' * 9999).translate({120: 'y' * 9999}) }}", "limit", "characters built"),
    ("{{ range(99999)|join('y' * 9999) }}", "limit", "characters built"),
    ("{{ ('y' * 9999).join(lines * 99) }}", "limit", "characters built"),
    ("{{ ('a b ' * 9999)|wordwrap(1, wrapstring='y' * 9999) }}", "limit", "characters built"),
    ("{{ ([[0] * 999] * 999)|sum(start=[]) }}", "limit", "characters built"),
    ("{% set f = '%' ~ n ~ 'd' %}{{ f % 1 }}", "limit", "a format with a computed width"),
    ("{% set f = '%' ~ n ~ 'd' %}{{ f|format(1) }}", "limit", "a format with a computed width"),
    ("{% set f = '{:' ~ n ~ '}' %}{{ f.format(1) }}", "limit", "a format with a computed width"),
    ("{% set f = '{:9999}' * 9999 %}{{ f.format(*range(9999)) }}", "limit", "characters built"),
    (
        "{% set x = text %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
        "limit",
        "characters built",
    ),
    ("{% set x = text %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}", "limit", "characters built"),
    ("{% set x = text %}" + "{% set x = x + x %}" * 60 + "{{ x }}", "limit", "characters built"),
    ("{% set x = text %}" + "{% set x = [x, x]|join %}" * 60 + "{{ x }}", "limit", "characters built"),
    ("{% set x = '\"' * 99 %}" + "{% set x = x|tojson %}" * 60 + "{{ x }}", "limit", "characters built"),
    ("{% set x = [text] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}", "limit", "characters built"),
    ("{% set x = {'a': 1} %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x|tojson }}", "limit", "built"),
    (
        "{% set ns = namespace(t=text) %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
        "limit",
        "built",
    ),
    ("{% for i in range(60) %}{% set _ = xs.extend(xs) %}{% endfor %}", "limit", "characters built"),
    ("{% for i in xs %}{% set _ = xs.append(i) %}{% endfor %}", "limit", "steps"),
    ("{% for i in n|string * 9999 %}{% for j in lines * 99 %}{% endfor %}{% endfor %}", "limit", "steps"),
    (
        "{% set r = range(50000) %}{% for i in r %}{% set a = r|first %}{{ a|upper|lower }}{% endfor %}",
        "limit",
        "steps",
    ),
    (
        "".join(
            f"{{% macro m{i}() %}}{{{{ m{i + 1}() * 2 }}}}{{{{ m{i + 1}() }}}}{{% endmacro %}}"
            for i in range(19)
        )
        + "{% macro m19() %}text{% endmacro %}{{ m0() }}",
        "limit",
        "more than",
    ),
    (
        "{% set b = xs * 9999 %}{% for i in b %}{% for j in b if false %}{% endfor %}{% endfor %}",
        "limit",
        "steps",
    ),
    (
        "{% set b = xs * 9999 %}{% for i in b %}{% set _ = xs.append(b[:]) %}{% endfor %}",
        "limit",
        "characters built",
    ),
    (
        "{% set b = xs * 9999 %}{% for i in b %}{% set _ = xs.append(zip(b, b)|list) %}{% endfor %}",
        "limit",
        "built",
    ),
    (
        "{% set b = xs * 9999 %}{% for i in b %}{% set _ = xs.append(dict(zip(range(9999), b))) %}{% endfor %}",
        "limit",
        "built",
    ),
    (
        "{% for i in lines * 99 %}{% set _ = xs.append([" + "1, " * 9999 + "]) %}{% endfor %}",
        "limit",
        "built",
    ),
    ("{% for i in lines * 99 %}{% set _ = xs.append(lines.split()) %}{% endfor %}", "limit", "built"),
    ("{% for i in lines * 99 %}{% set _ = range(99999)|select('odd')|list %}{% endfor %}", "limit", "built"),
    ("{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}", "limit", "macros within one another"),
    (
        "{% macro m(f) %}{{ varargs[0](f, *varargs) }}{% endmacro %}{{ m(1, m) }}",
        "limit",
        "macros within one another",
    ),
    (
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        + "{% call m() %}" * 20
        + "x"
        + "{% endcall %}" * 20,
        "limit",
        "",
    ),
    (
        "{% set ns = namespace() %}{% macro m() %}{{ ns.f() }}{% endmacro %}{% set ns.f = m %}{{ m() }}",
        "limit",
        "macros",
    ),
    (
        "{% filter upper %}" * 8 + "{{ 'x' * 99999 }}" * 60 + "{% endfilter %}" * 8,
        "limit",
        "characters built",
    ),
    ("{% for i in range(50000) %}word {% endfor %}", "too_long", "more than 100000 characters"),
    ("{{ lines * 999 }}", "too_long", "more than 100000 characters"),
    ("{% do xs.append(1) %}", "render_error", "unknown tag 'do'"),
    ("{{ xs.append }}", "render_error", "prints a builtin_function_or_method"),
    ("{{ xs|map('string') }}", "render_error", "prints a generator"),
    ("{{ cycler }}{{ range }}", "render_error", "prints a type"),
    ("{{ missing.name }}", "render_error", "'missing' is undefined"),
    ("{{ 1 / 0 }}", "render_error", "division by zero"),
]


def rendered(body: str, choices: str | None = None) -> tuple[Rendered | Drop, str]:
    """Return what the stage makes of a template, and the message with which `check` refuses it beforehand."""
    renderer = Renderer(0, 100_000)
    problem = renderer.check(body, choices)
    template = {"template": "t", "body": body, "choices": choices}
    return renderer.promptsource(template, json.dumps(ROW), "e"), problem or ""


def quick(work: Callable[[], None]) -> None:
    """Do some work that may neither take long nor hold much memory."""
    start = time.monotonic()
    grown = peak_growth(work)
    assert time.monotonic() - start < 20  # a bound on a hang, not a measurement
    assert grown < 130  # the characters that a render may build, with the texts they come from


def number(cases: list[tuple[str, ...]]) -> list[str]:
    return [f"{i}:{case[0][:40]}" for i, case in enumerate(cases)]


@pytest.mark.parametrize(("body", "message"), WALKS, ids=number(WALKS))
def test_what_reaches_out_is_refused_before_it_renders(body: str, message: str) -> None:
    found, problem = rendered(body + " ||| x")
    assert message in problem and problem.startswith("UnsafeTemplateError: line ")
    assert isinstance(found, Drop) and found.reason == "unsafe"


@pytest.mark.parametrize(("body", "message"), BOMBS, ids=number(BOMBS))
def test_bombs_are_refused_before_they_render(body: str, message: str) -> None:
    def refuse() -> None:
        found, problem = rendered(body + " ||| x")
        assert message in problem
        assert isinstance(found, Drop) and found.reason in ("limit", "render_error")

    quick(refuse)


@pytest.mark.parametrize(("body", "reason", "message"), COUNTED, ids=number(COUNTED))
def test_what_only_the_row_shows_is_stopped_by_counting(body: str, reason: str, message: str) -> None:
    def refuse() -> None:
        found, _ = rendered(body + " ||| x")
        assert isinstance(found, Drop) and found.reason == reason and message in found.detail, found

    quick(refuse)


HARMLESS = [
    "{{ 9 ** 9 ** 2 }} ||| {{ 2 ** 10 }}",
    "{{ '-' * 20 }} {{ 'ab' * 3 }} ||| {{ [0] * 5 }}",
    "{{ n * 1000000 }} ||| {{ 1e6 * 1e6 }}",
    "{% for i in range(100) %}{% for j in range(100) %}.{% endfor %}{% endfor %} ||| {{ range(5 - 3)|list }}",
    "{{ 'x'|center(40) }}{{ 'x'.zfill(10) }} ||| {{ '%0.1f' % 2.5 }} {{ '%05d'|format(3) }} {{ '{:>8}'.format(1) }}",
    "* {{ text }} 100%% ** {{ '* %s' % text }} ||| {{ '{} and {}'.format(1, 2) }}",
    "{{ d['a'] }} {{ d.get('a') }} {{ d.items()|list }} {{ d.keys()|list }} ||| {{ '__label__' in text }}",
    "{% macro m(x) %}({{ x }}){% endmacro %}{{ m(m(text)) }} ||| x",
    "{% macro c() %}{{ caller() }}{% endmacro %}{% call c() %}x{% endcall %} ||| x",
    "{% set ns = namespace(t=[]) %}{% for x in xs %}{% set ns.t = ns.t + [x] %}{% endfor %}{{ ns.t }} ||| {{ loop }}x",
    "{% for x in xs %}{{ loop.cycle('a', 'b') }}{{ loop.index - 1 }}{{ loop.last }}{% endfor %} ||| {{ xs|sum }}",
    "{% set _ = xs.append(3) %}{{ xs|join(', ') }} ||| {% set s %}{{ text|title }}{% endset %}{{ s }}",
    "{{ xs|map('string')|map('upper')|join('-') }} {{ xs|sort(reverse=true) }} ||| {{ xs|batch(1)|list }}",
    "{{ [d]|map(attribute='a')|list }} {{ [d]|selectattr('a')|list|length }} ||| {{ [d]|groupby('a')|length }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }} ||| {% set j = joiner(', ') %}{{ j() }}a{{ j() }}b",
    "{{ text[0] if text else 'none' if n else 'n' }} ||| {% filter upper %}a{{ text }}{% endfilter %}",
    "{{ d|tojson(indent=2) }} {{ text|wordwrap(3) }} {{ text|truncate(3) }} ||| {{ lines|indent(2)|length }}",
    "{{ zip(xs, xs)|list }} {{ dict(a=1).a }} {{ - - 1 }} {{ not not n }} ||| {{ text.split(' ')[-1].strip()|trim }}",
    "{{ text|replace('o', '0')|lower|upper|capitalize }} ||| {{ xs|first }}{{ xs|last }}{{ 3.5|round|int }}",
]


@pytest.mark.parametrize("body", HARMLESS, ids=number([(body,) for body in HARMLESS]))
def test_what_only_looks_alike_is_rendered(body: str) -> None:
    found, problem = rendered(body)
    assert problem == "" and isinstance(found, Rendered), (problem, found)


def test_the_library_and_every_template_of_promptsource_pass(shared_data: Path) -> None:
    environment, number = promptsource_environment(), 0
    environment.add_filter("highlight", str.upper)
    for path in sorted((shared_data / "promptsource" / "templates").rglob("templates.yaml")):
        for template in load_yaml(path.read_text(encoding="utf-8"))["templates"].values():
            environment.prepare(template["jinja"])
            environment.prepare(template.get("answer_choices") or "")
            number += 1
    assert number == 2085


def test_the_library_passes() -> None:
    environment = strict_environment()
    assert all(environment.prepare(template.body) for template in load_library().values())
    with pytest.raises(Exception, match="access to 'append' of a list"):
        environment.prepare("{{ xs.append(1) }}").render(xs=[1])


def test_a_message_has_one_line_and_the_choices_are_inspected_too() -> None:
    found, problem = rendered("a ||| b", "yes ||| {{ 'a' * 10 ** 9 }}")
    assert "line 1: 1,000,000,000 characters or items by repetition" in problem and "\n" not in problem
    assert isinstance(found, Drop) and found.reason == "limit"


def test_there_are_enough_of_them() -> None:
    assert len(WALKS) >= 40 and len(BOMBS) >= 40 and len(COUNTED) >= 40


# -------------------------------------------------------------------------------- through the command line

RECIPE = """name: hostile
data_root: .
curate: {taxonomy: [taxonomy.csv], casts: [casts]}
sources:
  - {reader: promptsource, path: ps}
plan:
  supervised: [promptsource/pets/cats]
  num_demonstration_groups: 2
"""
CAST = """dataset: cats
datasets: [pets/cats]
format: jsonl
files: {train: [train.jsonl], test: [test.jsonl]}
fields: {text: text, label: label}
references: {path: label, labels: ["no", "yes"]}
output_fields: [label]
"""
GOOD = "{{ text }} Is it? ||| {{ answer_choices[label] }}"
STUCK = (
    "{% set a = [1] %}{% set b = [1] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 60
    + "{{ a == b }} ||| x"
)
"""One comparison in compiled code that would take longer than the sun has left, and that nothing counts."""


def write_source(folder: Path, templates: dict[str, str]) -> None:
    """Write a PromptSource collection of one data set, with its recipe."""
    for name in ("casts", "ps/templates/pets/cats", "ps/data/pets/cats"):
        (folder / name).mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "taxonomy.csv").write_text(
        "task,category,license\npromptsource/pets/cats,Sentiment Analysis,CC0-1.0\n"
    )
    (folder / "casts/pets-cats.yaml").write_text(CAST)
    for split, num_rows in (("train", 30), ("test", 4)):
        rows = [{"text": f"{split} cat {i} sat on mat {i * 7}", "label": i % 2} for i in range(num_rows)]
        (folder / f"ps/data/pets/cats/{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entries = {
        name: {
            "jinja": body,
            "answer_choices": "no ||| yes",
            "name": name,
            "metadata": {"original_task": True},
        }
        for name, body in templates.items()
    }
    (folder / "ps/templates/pets/cats/templates.yaml").write_text(json.dumps({"templates": entries}))


def peak(message: str) -> float:
    """Return the peak that a process reported at its end, in MB."""
    return int(message.split("PEAK")[1].split()[0]) / 1024


def test_the_stage_goes_on_without_refused_templates_and_stops_for_a_stuck_one(tmp_path: Path) -> None:
    hostile = {f"w{i}": body + " ||| x" for i, (body, _) in enumerate(WALKS)}
    hostile |= {f"b{i}": body + " ||| x" for i, (body, _) in enumerate(BOMBS)}
    hostile |= {f"c{i}": body + " ||| x" for i, (body, *_) in enumerate(COUNTED[:12])}
    peaks = {}
    for name, templates in (("hostile", hostile), ("stuck", {"stuck-one": STUCK})):
        folder = tmp_path / name
        write_source(folder, {"good": GOOD, **templates})
        done = taskmill("run", "recipe.yaml", "--to", "split", "--run", "run", "--quiet", cwd=folder)
        assert done.returncode == 0, done.stderr
        done = taskmill("render", "run", "--dry-run", cwd=folder, code=REPORT)
        peaks["nothing"] = peak(done.stderr)
        start = time.monotonic()
        done = taskmill(
            "render", "run", "--quiet", "--set", "render.time_limit_seconds=2", cwd=folder, code=REPORT
        )
        assert time.monotonic() - start < 60
        assert "Traceback" not in done.stderr
        peaks[name] = peak(done.stderr)
        assert (done.returncode == 0) == (name != "stuck"), done.stderr
    assert "template 'stuck-one' on the example 'promptsource/pets/cats#" in done.stderr
    assert "took longer than 2 seconds" in done.stderr and "raise render.time_limit_seconds" in done.stderr
    assert not (tmp_path / "stuck/run/prompts/manifest.json").exists()
    manifest = json.loads((tmp_path / "hostile/run/prompts/manifest.json").read_text())
    assert manifest["dropped"]["template_error"] >= len(WALKS) + len(BOMBS)
    assert max(peaks.values()) - peaks["nothing"] < 50, peaks
    limits = ("--set", "render.time_limit_seconds=9", "--set", "render.memory_limit_mb=999")
    assert "up to date" in taskmill("render", "run", *limits, cwd=tmp_path / "hostile").stdout
