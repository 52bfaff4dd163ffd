"""Conversations as Jinja renders them, for the engine's prompts to be compared with.

    python Models/reference/check_chat_templates.py cases.jsonl [TEMPLATE ...]
    SIGMA_CHAT_CASES=cases.jsonl swift test --traits Server --filter ChatRenderingTests
    python Models/reference/check_chat_templates.py --tools tools.jsonl [TEMPLATE ...]
    SIGMA_TOOL_CASES=tools.jsonl swift test --traits Server --filter ToolRenderingTests

Each TEMPLATE is a `tokenizer_config.json`, a `.jinja` file or a GGUF file; without one, and always before them, come the templates below, which do what
those of known families do, in our words. `--frozen` writes the few that the tests keep (Tests/Fixtures/chat). With `--tools` the
conversations have functions, calls and results.
"""

import argparse
import copy
import datetime
import json
import random
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

# When the conversations here are held, in templates that look at the clock.
DAY = datetime.datetime(2025, 3, 9)
FROZEN = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "chat"

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
    "closed": "{{- bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}{%- elif m.role == 'assistant' %}"
    "{{- '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{%- else %}{{- m.content }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\n' }}{%- if not enable_thinking %}{{- '</think>' }}{%- endif %}{%- endif %}",
    "today": "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\nIt is ' + strftime_now('%A, %B %-d, %Y') + '.<|im_end|>\n' }}{%- endif %}"
    + CHATML + HEADER,
    "dated headers": "{{- bos_token }}{%- set system = '' %}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{%- endif %}{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: 1 Jan 2025\n\n' + system + '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}",
}

# Qwen's way with functions: their JSON in the system turn, calls behind the text, results in a user's turn, thinking behind the last question.
DESCRIPTION = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML "
    "tags:\n<tools>{%- for t in tools %}{{- '\n' }}{{- t | tojson }}{%- endfor %}{{- '\n' }}</tools>\n\nFor each function call, return a json object with function name and "
    'arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
HERMES = (
    "{%- set system = messages[0].content if messages[0].role == 'system' else '' %}{%- if tools %}{{- '<|im_start|>system\n' }}{%- if messages[0].role == 'system' %}"
    "{{- system + '\n\n' }}{%- endif %}"
    + DESCRIPTION
    + "{{- '<|im_end|>\n' }}{%- elif system %}{{- '<|im_start|>system\n' + system + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(last=messages | length) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{{- '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}{%- elif m.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' }}{%- if loop.index0 > ns.last and m.reasoning_content %}{{- '<think>\n' + m.reasoning_content.strip('\n') + '\n</think>\n\n' }}"
    "{{- m.content.lstrip('\n') }}{%- else %}{{- m.content }}{%- endif %}{%- for c in m.tool_calls or [] %}{%- if m.content or not loop.first %}{{- '\n' }}{%- endif %}"
    "{{- '<tool_call>\n{\"name\": \"' + c.function.name + '\", \"arguments\": ' }}{{- c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}"
    "{{- '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}{%- elif m.role == 'tool' %}{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- endif %}{%- endfor %}"
)
SWITCH = "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
# Qwen2.5's: arguments are always written anew.
VALUES = HERMES.replace("c.function.arguments if c.function.arguments is string else ", "")
# Qwen3-Coder's way: functions as elements, calls in tagged XML, a system prompt of its own where there are functions.
ELEMENTS = (
    "{% macro rest(object, known) %}{%- if object is mapping %}{%- for key in object if key not in known %}"
    "{{- '\n<' ~ key ~ '>' ~ (object[key] | tojson if object[key] is mapping or (object[key] is sequence and object[key] is not string) else object[key] | string) ~ '</' ~ key ~ '>' }}"
    "{%- endfor %}{%- endif %}{% endmacro %}"
)
CODER = (
    ELEMENTS + "{%- set system = messages[0].content if messages[0].role == 'system' else 'You are a coder of the tests.' if tools else '' %}"
    "{%- if system %}{{- '<|im_start|>system\n' + system }}{%- endif %}{%- if tools %}{{- '\n\n# Tools\n\nThese are the tools:\n\n<tools>' }}"
    "{%- for t in tools %}{%- set f = t.function %}{{- '\n<function>\n<name>' ~ f.name ~ '</name>' }}"
    "{%- if f.description is defined %}{{- '\n<description>' ~ (f.description | trim) ~ '</description>' }}{%- endif %}{{- '\n<parameters>' }}"
    "{%- if f.parameters is defined and f.parameters.properties is mapping %}{%- for name, p in f.parameters.properties | items %}{{- '\n<parameter>\n<name>' ~ name ~ '</name>' }}"
    "{%- if p.type is defined %}{{- '\n<type>' ~ (p.type | string) ~ '</type>' }}{%- endif %}"
    "{%- if p.description is defined %}{{- '\n<description>' ~ (p.description | trim) ~ '</description>' }}{%- endif %}"
    "{{- rest(p, ['name', 'type', 'description']) }}{{- '\n</parameter>' }}{%- endfor %}{%- endif %}"
    "{{- rest(f.parameters, ['type', 'properties']) }}{{- '\n</parameters>' }}{{- rest(f, ['type', 'name', 'description', 'parameters']) }}{{- '\n</function>' }}{%- endfor %}"
    "{{- '\n</tools>\n\nCall them so:\n\n<tool_call>\n<function=name>\n<parameter=a>\nvalue\n</parameter>\n</function>\n</tool_call>' }}{%- endif %}"
    "{%- if system %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages[1:] if messages[0].role == 'system' else messages %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role == 'assistant' and m.tool_calls %}{{- '<|im_start|>assistant' }}"
    "{%- if m.content | trim %}{{- '\n' + m.content | trim + '\n' }}{%- endif %}{%- for c in m.tool_calls %}{{- '\n<tool_call>\n<function=' + c.function.name + '>\n' }}"
    "{%- for name, v in c.function.arguments | items %}{{- '<parameter=' + name + '>\n' }}"
    "{{- v | tojson if v is mapping or (v is sequence and v is not string) else v | string }}{{- '\n</parameter>\n' }}{%- endfor %}{{- '</function>\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}{%- elif m.role == 'tool' %}{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user\n' }}{%- endif %}"
    "{{- '<tool_response>\n' + m.content + '\n</tool_response>\n' }}{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- elif not (loop.first and m.role == 'system') %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
)
CODER = CODER.replace("{%- for m in messages[1:] if messages[0].role == 'system' else messages %}{%- endfor %}", "")
# Llama's way: a date, calls that are the whole answer, one at a time, and results in turns of their own; functions before the first question, or before
# the system prompt.
FUNCTIONS = "{%- for t in tools %}{{- t | tojson(indent=4) + '\n\n' }}{%- endfor %}"
HEADERS = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = DATE %}{%- endif %}"
    "{%- set system = messages[0].content | trim if messages[0].role == 'system' else '' %}{%- set rest = messages[1:] if messages[0].role == 'system' else messages %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' + ('Environment: ipython\n' if tools else '') + 'Date: ' + date_string + '\n\n' }}SYSTEM"
    "{{- system + '<|eot_id|>' }}USER"
    "{%- for m in rest %}{%- if 'tool_calls' in m %}{%- if m.tool_calls | length != 1 %}{{- raise_exception('one call only') }}{%- endif %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n{\"name\": \"' + m.tool_calls[0].function.name + '\", \"parameters\": ' }}"
    "{{- m.tool_calls[0].function.arguments | tojson }}{{- '}<|eot_id|>' }}"
    "{%- elif m.role == 'tool' %}{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}{{- m.content | tojson }}{{- '<|eot_id|>' }}"
    "{%- else %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
IN_USER = (
    "{%- if tools %}{{- '<|start_header_id|>user<|end_header_id|>\n\nThese are the functions:\n\n' }}" + FUNCTIONS + "{{- rest[0].content | trim + '<|eot_id|>' }}"
    "{%- set rest = rest[1:] %}{%- endif %}"
)
IN_SYSTEM = "{%- if tools %}{{- 'You have these functions:\n\n' }}" + FUNCTIONS + "{%- endif %}"
TOOL_TEMPLATES = {
    "hermes": HERMES + HEADER.replace("{%- endif %}", SWITCH + "{%- endif %}"),
    "values": VALUES + HEADER,
    "coder": CODER + HEADER,
    "headers": HEADERS.replace("DATE", "'1 Jan 2025'").replace("SYSTEM", "").replace("USER", IN_USER),
    "headers, today": HEADERS.replace("DATE", "strftime_now('%d %b %Y')").replace("SYSTEM", "").replace("USER", IN_USER),
    "headers, system": HEADERS.replace("DATE", "'1 Jan 2025'").replace("SYSTEM", IN_SYSTEM).replace("USER", ""),
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


def environment() -> ImmutableSandboxedEnvironment:
    """As transformers renders."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    made.globals["strftime_now"] = DAY.strftime

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    made.globals["raise_exception"] = raise_exception
    return made


def value(rng: random.Random, depth: int = 0):
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind > 6:
        return {rng.choice(TEXTS)[:20] + str(place): value(rng, depth + 1) for place in range(rng.randrange(4))}
    return [None, True, rng.choice([0, -7, 2**70, 10**15]), rng.choice([1.0, -0.5, 1e16, 1.5e-7, 123456.789, 1e22]), rng.choice(TEXTS), "\u0001\u007f\u2028/\\"][kind]


def tool(rng: random.Random, name: str) -> dict:
    function = {"name": name}
    if rng.random() < 0.8:
        function["description"] = rng.choice(TEXTS)
    if rng.random() < 0.8:
        members = {f"p{place}": {"description": rng.choice(TEXTS), "type": rng.choice(["string", "integer"])} for place in range(rng.randrange(4))}
        function["parameters"] = {"type": "object", "properties": members, "required": list(members)[:1], "title": rng.choice(TEXTS), "examples": [value(rng)]}
    return {"type": "function", "function": function}


def with_values(messages: list[dict]) -> list[dict]:
    """The messages with calls' arguments as the values that their text says: what templates expect that write them themselves."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return messages


def abilities(render) -> tuple[bool, int]:
    """Whether a template takes arguments as text, and how many calls a message may have. `render` makes a text of messages."""

    def rendered(calls: int, arguments) -> str:
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        try:
            return render([{"role": "user", "content": "U"}, {"role": "assistant", "content": "", "tool_calls": [call] * calls}])
        except Exception:
            return ""

    return '{"a":1}' in rendered(1, '{"a":1}'), 2 if rendered(2, {"a": 1}) or rendered(2, '{"a":1}') else 1


def tool_conversation(rng: random.Random, most: int = 2) -> list[dict]:
    """`most` is how many calls a message may have."""
    messages = conversation(rng, True)
    for _ in range(rng.randrange(4)):
        calls = [
            {"name": rng.choice("fg"), "arguments": json.dumps({"a": value(rng)}, ensure_ascii=rng.random() < 0.5)} for _ in range(rng.randrange(1, most + 1))
        ]
        answer = {"role": "assistant", "content": rng.choice(["", *TEXTS]).lstrip("\n"), "tool_calls": [{"type": "function", "function": call} for call in calls]}
        if rng.random() < 0.6:
            answer["reasoning_content"] = rng.choice(TEXTS)
        messages += [answer, *({"role": "tool", "content": rng.choice(TEXTS)} for _ in calls)]
        if rng.random() < 0.3:
            messages += [{"role": "assistant", "content": "Done."}, {"role": "user", "content": rng.choice(TEXTS)}]
    return messages


def tool_cases(name: str, template: str, count: int, rng: random.Random):
    compiled = environment().from_string(template)

    def render(messages, tools=({"type": "function", "function": {"name": "f"}},), **options):
        return compiled.render(messages=messages, tools=list(tools), add_generation_prompt=True, bos_token="", eos_token="", **options)

    takes_text, most = abilities(render)
    for number in range(count):
        messages, enabled = tool_conversation(rng, most), rng.random() < 0.5 or "enable_thinking" not in template
        tools = [tool(rng, name) for name in "fgh"[: rng.randrange(1, 4)]]
        text = render(messages if takes_text else with_values(messages), tools, enable_thinking=enabled)
        # The template stands beside its first conversation.
        first = {"template": template, "date": f"{DAY:%Y-%m-%d}"} if number == 0 else {}
        yield {"name": name, **first, "messages": messages, "tools": tools, "thinks": enabled, "text": text}


def cases(name: str, template: str, count: int, rng: random.Random):
    compiled = environment().from_string(template)
    thinks = "<think>" in template or "</think>" in template
    for _ in range(count):
        messages, enabled = conversation(rng, thinks), rng.random() < 0.5 or "enable_thinking" not in template
        text = compiled.render(messages=messages, add_generation_prompt=True, bos_token=BOS, eos_token="", enable_thinking=enabled)
        yield {"name": name, "template": template, "bos": BOS, "date": f"{DAY:%Y-%m-%d}", "messages": messages, "thinks": enabled, "text": text}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("templates", type=Path, nargs="*")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--tools", action="store_true", help="conversations with functions")
    parser.add_argument("--count", type=int, default=50, help="conversations for each template")
    arguments = parser.parse_args()
    known, make, name = (TOOL_TEMPLATES, tool_cases, "tools.jsonl") if arguments.tools else (TEMPLATES, cases, "cases.jsonl")
    templates = {**known, **{path.name: template_of(path) for path in arguments.templates}}
    output, count = (FROZEN / name, 12 if arguments.tools else 4) if arguments.frozen else (arguments.output, arguments.count)
    if output is None:
        parser.error("name a file for the cases, or --frozen")
    rng = random.Random(7)
    lines = [json.dumps(case) for name, template in templates.items() for case in make(name, template, count, rng)]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} conversations of {len(templates)} templates")


if __name__ == "__main__":
    main()
