"""Chat templates render as transformers renders them, and refuse in their own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from millrace.engine.chat import ChatTemplate, load_chat_template
from tests.unit.engine.texts import byte_level

MESSAGES = [{"role": "system", "content": "Be <brief> & kind."}, {"role": "user", "content": "Hi “you”"}]
TEMPLATES = {
    "loop": "{% for m in messages %}\n  {{ bos_token }}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}",
    "json": "{{ messages | tojson }}{{ tools | tojson(indent=2) }}",
    "controls": "{% for m in messages %}{% if loop.index0 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}!{% endfor %}",
    "prompt": "{{ messages[-1].content }}{% if add_generation_prompt %}<|assistant|>{% endif %}{{ mood }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}",
}


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_renders_as_in_transformers(source: str) -> None:
    values: dict[str, Any] = {"tools": [{"type": "function"}], "add_generation_prompt": True, "mood": "<3"}
    tokenizer: Any = PreTrainedTokenizerFast
    theirs = tokenizer(tokenizer_object=byte_level(), bos_token="<s>", chat_template=source)
    expected = theirs.apply_chat_template(MESSAGES, tokenize=False, **values)
    assert ChatTemplate(source, {"bos_token": "<s>"}).render(MESSAGES, values) == expected


def test_a_template_refuses_in_its_own_words() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(ValueError, match="roles must alternate"):
        template.render(MESSAGES, {})


@pytest.mark.parametrize(
    "source",
    ["{{ 1 // 0 }}", "{{ [].pop() }}", "{{ x.y.z }}", "{{ 'a' + 1 }}", "{{ range(10 ** 9) | list }}"],
)
def test_whatever_a_template_stumbles_over_is_a_refusal(source: str) -> None:
    with pytest.raises(ValueError, match="the model's chat template refuses these messages"):
        ChatTemplate(source, {}).render(MESSAGES, {})


@pytest.mark.parametrize("name", ["self", "special", "context"])
def test_a_value_may_have_any_name_that_means_nothing_to_the_engine(name: str) -> None:
    assert ChatTemplate("{{ messages | length }}", {}).render(MESSAGES, {name: 1}) == "2"


def test_a_template_cannot_reach_the_interpreter() -> None:
    with pytest.raises(ValueError, match="unsafe"):
        ChatTemplate("{{ messages.__class__.__mro__ }}", {}).render(MESSAGES, {})


def test_the_year_is_told_to_templates_that_ask() -> None:
    assert ChatTemplate("{{ strftime_now('%Y') }}", {}).render([], {}).startswith("20")


def write(folder: Path, **config: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def rendered(folder: Path) -> str:
    template = load_chat_template(folder)
    assert template
    return template.render([], {})


def test_special_tokens_may_be_texts_or_objects(tmp_path: Path) -> None:
    write(
        tmp_path,
        chat_template="{{ bos_token }}{{ eos_token }}",
        bos_token="<s>",
        eos_token={"content": "</s>"},
    )
    assert rendered(tmp_path) == "<s></s>"


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    write(tmp_path, chat_template=[{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}])
    assert rendered(tmp_path) == "d"


def test_a_template_in_a_file_of_its_own_comes_first(tmp_path: Path) -> None:
    write(tmp_path, chat_template="inside")
    (tmp_path / "chat_template.jinja").write_text("beside")
    assert rendered(tmp_path) == "beside"


def test_a_checkpoint_may_have_no_template(tmp_path: Path) -> None:
    assert load_chat_template(tmp_path) is None


def test_a_template_that_is_not_valid_is_refused_with_its_folder(tmp_path: Path) -> None:
    write(tmp_path, chat_template="{% if %}")
    with pytest.raises(ValueError, match=f"{tmp_path}: the chat template is not readable"):
        load_chat_template(tmp_path)
