"""Conversations as Jinja renders them, for the engine's prompts to be compared with.

    python Models/reference/check_chat_templates.py cases.jsonl [TEMPLATE ...]
    SIGMA_CHAT_CASES=cases.jsonl swift test --filter ChatRenderingTests

Each TEMPLATE is a `tokenizer_config.json`, a `.jinja` file or a GGUF file; without one, and always before them, come the templates below, which do what
those of known families do, in our words. `--frozen` writes the few that the tests keep (Tests/Fixtures/chat/cases.jsonl).
"""

import argparse
import json
import random
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

FROZEN = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "chat" / "cases.jsonl"

CHATML = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
HEADER = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
# Answers before the last question lose their thinking; one behind it keeps an own block.
THOUGHTFUL = """
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
  {%- if m.role == 'assistant' %}
    {%- set text = m.content.split('</think>')[-1].lstrip('\n') if '</think>' in m.content else m.content %}
    {%- set thought = m.reasoning_content if m.reasoning_content is defined else '' %}
    {%- if loop.index0 > ns.last %}{%- set text = '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + text %}{%- endif %}
  {%- else %}{%- set text = m.content %}{%- endif %}
  {{- '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}
{%- endfor %}"""

TEMPLATES = {
    "hybrid": THOUGHTFUL
    + HEADER.replace("{%- endif %}", "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"),
    "instruct": CHATML + HEADER,
    "thinking": THOUGHTFUL + HEADER.replace("assistant\n", "assistant\n<think>\n"),
    "default system": "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\nYou are a model of the tests.<|im_end|>\n' }}{%- endif %}" + CHATML + HEADER,
    "distilled": "{%- set ns = namespace(system='') %}{%- for m in messages %}{%- if m.role == 'system' %}{%- set ns.system = m.content %}{%- endif %}"
    "{%- endfor %}{{- bos_token + ns.system }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}"
    "{%- elif m.role == 'assistant' %}{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\n' }}{%- endif %}",
    "headers": "{{- bos_token }}{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}",
    "dated headers": "{{- bos_token }}{%- set system = '' %}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{%- endif %}{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: 1 Jan 2025\n\n' + system + '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}",
}

BOS = "<BOS>"
TEXTS = [
    "Hi", "What is 2 + 2?", "  spaces before", "spaces behind  ", "two\nlines", "\nline end first", "line end last\n", "a\tb", "Ünïcödé 日本語 👩‍👩‍👧", "<b>markup</b> & {{ braces }}",
    "'quotes' and \"quotes\"", "\\n is no line end", "| pipes |", "a", "x" * 200,
]  # fmt: skip


def template_of(path: Path) -> str:
    if path.suffix == ".gguf":
        from gguf import GGUFReader

        return GGUFReader(path).fields["tokenizer.chat_template"].contents()
    text = path.read_text()
    if path.suffix != ".json":
        return text
    template = json.loads(text)["chat_template"]
    if isinstance(template, str):
        return template
    return next((t["template"] for t in template if t["name"] == "default"), template[0]["template"])


def conversation(rng: random.Random, thinks: bool) -> list[dict]:
    messages = [{"role": "system", "content": rng.choice(TEXTS)}] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(4)):
        messages.append({"role": "user", "content": rng.choice(TEXTS)})
        answer = {"role": "assistant", "content": rng.choice(TEXTS).lstrip("\n")}
        if thinks and rng.random() < 0.7:
            answer["reasoning_content"] = rng.choice(TEXTS)
        messages.append(answer)
    return [*messages, {"role": "user", "content": rng.choice(TEXTS)}]


def cases(name: str, template: str, count: int, rng: random.Random):
    # As transformers renders.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    compiled = environment.from_string(template)
    thinks = "<think>" in template or "</think>" in template
    for _ in range(count):
        messages, enabled = conversation(rng, thinks), rng.random() < 0.5 or "enable_thinking" not in template
        text = compiled.render(messages=messages, add_generation_prompt=True, bos_token=BOS, eos_token="", enable_thinking=enabled)
        yield {"name": name, "template": template, "bos": BOS, "messages": messages, "thinks": enabled, "text": text}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("templates", type=Path, nargs="*")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--count", type=int, default=50, help="conversations for each template")
    arguments = parser.parse_args()
    templates = {**TEMPLATES, **{path.name: template_of(path) for path in arguments.templates}}
    output, count = (FROZEN, 4) if arguments.frozen else (arguments.output, arguments.count)
    if output is None:
        parser.error("name a file for the cases, or --frozen")
    rng = random.Random(7)
    lines = [json.dumps(case) for name, template in templates.items() for case in cases(name, template, count, rng)]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} conversations of {len(templates)} templates")


if __name__ == "__main__":
    main()
