"""Conversations as transformers renders and tokenizes them, for the engine's prompts to be compared with: text and token ids.

    python Models/reference/check_prompts.py --output FOLDER --tokenizer SmolLM2-135M-Instruct.Q4_1.gguf TEMPLATE ...
    SIGMA_PROMPT_CASES=FOLDER/cases.jsonl swift test --traits Server --filter ConversationTokensTests

For each TEMPLATE (a `tokenizer_config.json`, a `.jinja` file or a GGUF file) a checkpoint is made: the vocabulary of a real model with the tokens that
the template's markup has, its family's way to split text, the template, and random weights. `sigma-convert` makes a model of it, and says what it makes
of the template. Conversations have system prompts, several turns, thinking, white space of all kinds; and, where the template knows functions and
`sigma-convert` does not say that it writes them otherwise, as many more have functions, calls and results. A template that writes arguments itself gets
them as values, as servers give them; the engine always gets their text. A template that names a date is told one in half of its conversations; in the
others it takes today's, so compare on the same day.

Without TEMPLATE: those of check_chat_templates.py.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from check_chat_templates import TEMPLATES, TEXTS, abilities, conversation, template_of, tool_conversation, value, with_values

COMMON_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# By the markup: special tokens with the first at the beginning of texts, tokens that are text, and the split pattern; None is SmolLM's own.
MARKUP = {
    "<|start_header_id|>": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"], [],
        COMMON_SPLIT % r"\p{N}{1,3}",
    ),
    "<｜User｜>": (
        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"], ["<think>", "</think>"], COMMON_SPLIT % r"\p{N}",
    ),
    "<tool_call>": (
        [], ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"], COMMON_SPLIT % r"\p{N}",
    ),
    "<|im_start|>": ([], [], None),
}  # fmt: skip


def tokenizer_for(source: GGUFReader, template: str) -> PreTrainedTokenizerFast:
    field = lambda name: source.fields["tokenizer.ggml." + name].contents()
    tokens, kinds = field("tokens"), field("token_type")
    specials, texts, pattern = next(parts for markup, parts in MARKUP.items() if markup in template)
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(merge.split(" ")) for merge in field("merges")]))
    if pattern is None:
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )
    else:
        made.normalizer = normalizers.NFC() if "<tool_call>" in texts else None
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds) if kind == 3])
    made.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    made.add_tokens([AddedToken(token, normalized=False) for token in texts])
    bos, eos = (specials[0], specials[1]) if specials else (None, "<|im_end|>")
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, eos_token=eos, chat_template=template)


def model_of(folder: Path, tokenizer: PreTrainedTokenizerFast, convert: Path) -> tuple[Path, list[str]]:
    """A native model, and the warnings about the template."""
    checkpoint, native = folder / "checkpoint", folder / "native.gguf"
    config = Qwen3Config(
        vocab_size=(len(tokenizer) + 31) // 32 * 32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1 << 17, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(1)
    Qwen3ForCausalLM(config).save_pretrained(checkpoint)
    (checkpoint / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save_pretrained(checkpoint)
    made = subprocess.run([convert, checkpoint, native, "--type", "q8_0"], capture_output=True, text=True)
    if made.returncode != 0:
        sys.exit(f"{folder.name}: {made.stderr}")
    return native, [line for line in made.stderr.splitlines() if line.startswith("warning: ") and "no CUDA kernels" not in line]


def tool(rng: random.Random, name: str) -> dict:
    """A function with all that schemas have."""
    function = {"name": name}
    if rng.random() < 0.8:
        function["description"] = rng.choice(TEXTS)
    if rng.random() < 0.8:
        members = {}
        for place in range(rng.randrange(4)):
            member = {"type": rng.choice(["string", "integer", "boolean", "array", "object", ["string", "null"]]), "description": rng.choice(TEXTS)}
            if rng.random() < 0.3:
                del member[rng.choice(list(member))]
            extra = {"enum": ["a", 1, None], "default": value(rng), "items": {"type": "string"}, "nullable": True, "minimum": -2.5, "title": rng.choice(TEXTS)}
            members[rng.choice(["p", "name", "type", "ü "]) + str(place)] = member | {key: extra[key] for key in extra if rng.random() < 0.3}
        function["parameters"] = {"type": "object", "properties": members}
        if rng.random() < 0.7:
            function["parameters"] |= {"required": list(members)[:1], "additionalProperties": False, "$defs": {"x": {"const": value(rng)}}}
    return {"type": "function", "function": function}


def cases(name: str, tokenizer: PreTrainedTokenizerFast, native: Path, count: int, with_tools: bool, rng: random.Random):
    template = tokenizer.chat_template
    thinks = "<think>" in template or "</think>" in template

    def render(messages, tokenize=False, tools=None, **options):
        return tokenizer.apply_chat_template(messages, tools=tools, tokenize=tokenize, return_dict=tokenize, add_generation_prompt=True, **options)

    takes_text, most = abilities(lambda messages: render(messages, tools=[tool(rng, "f")]))
    for number in range(2 * count if with_tools else count):
        options = {"enable_thinking": rng.random() < 0.5 or "enable_thinking" not in template}
        if "date_string" in template and number % 2 == 0:
            options["date_string"] = rng.choice(["1 Apr 2025", "yesterday, 100 %"])
        if number < count:
            messages = conversation(rng, thinks)
        else:
            messages, options["tools"] = tool_conversation(rng, most), [tool(rng, letter) for letter in "fgh"[: rng.randrange(1, 4)]]
        given = messages if takes_text else with_values(messages)
        try:
            text, ids = render(given, **options), render(given, tokenize=True, **options)["input_ids"]
        except Exception as error:
            sys.exit(f"{name}: {error}: {messages}")
        case = {"name": name, "model": str(native.resolve()), "messages": messages, "thinks": options["enable_thinking"], "text": text, "ids": ids}
        yield case | ({"tools": options["tools"]} if "tools" in options else {}) | ({"date": options["date_string"]} if "date_string" in options else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("templates", type=Path, nargs="*")
    parser.add_argument("--output", type=Path, required=True, help="a folder for models and cases.jsonl")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a GGUF file with SmolLM2's vocabulary")
    parser.add_argument("--commands", type=Path, default=Path(".build/release"))
    parser.add_argument("--count", type=int, default=40, help="conversations for each template, and as many with functions")
    arguments = parser.parse_args()
    templates = {path.stem: template_of(path) for path in arguments.templates} or TEMPLATES
    source, rng, lines = GGUFReader(arguments.tokenizer), random.Random(11), []
    for name, template in templates.items():
        folder = arguments.output / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = tokenizer_for(source, template)
        native, warnings = model_of(folder, tokenizer, arguments.commands / "sigma-convert")
        knows_tools = "tools" in template and not any("chat.tools" in warning for warning in warnings)
        found = list(cases(name, tokenizer, native, arguments.count, knows_tools, rng))
        lines += map(json.dumps, found)
        print(f"{name}: {arguments.count} conversations, {len(found) - arguments.count} with functions", *warnings, sep="\n    ", flush=True)
    (arguments.output / "cases.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} conversations of {len(templates)} templates")


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    main()
