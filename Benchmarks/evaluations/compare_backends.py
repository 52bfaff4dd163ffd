"""Holds lm-evaluation-harness through sigma-serve to its own Hugging Face back end, on a tiny checkpoint in f32.

    pip install -r requirements-compare.txt
    compare_backends.py [--bin .build/release] [--questions 40]

Writes a random Qwen3 model of two layers, dense or with experts, with the demo model's tokenizer; converts it with --type f32; and asks both back ends
for the log-likelihoods of the same questions. Per token they must agree to 1e-4, and so must the greedy flags where the likeliest token leads by more
than that. Exit code 1 where they don't.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOLERANCE = 1e-4


def write_checkpoint(folder, kind):
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(7)
    source = ROOT / "Models/demo/checkpoint"
    vocabulary = json.loads((source / "config.json").read_text())["vocab_size"]
    shape = dict(vocab_size=vocabulary, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                 max_position_embeddings=2048, tie_word_embeddings=False, initializer_range=0.15, bos_token_id=None, eos_token_id=503)
    if kind == "dense":
        model = Qwen3ForCausalLM(Qwen3Config(intermediate_size=256, **shape))
    else:
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(
            intermediate_size=256, moe_intermediate_size=64, num_experts=8, num_experts_per_tok=2, norm_topk_prob=True, **shape))
    model.to(torch.float32).eval().save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        (folder / name).write_bytes((source / name).read_bytes())
    # The harness loads it so, too.
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>").save_pretrained(folder)
    return model


def questions(count):
    """Contexts of 5 to 300 characters with four choices; some end in spaces, some are empty, some choices have several words."""
    source = random.Random(3)
    words = "the a of sums numbers is are twelve 12 47 + = what how many old young says that in of house tree river? ! é ß 日本 x1 y2".split(" ")

    def text(length):
        return " ".join(source.choice(words) for _ in range(length))

    rows = []
    for index in range(count):
        context = "" if index == 0 else text(source.randint(1, 60)) + source.choice(["", "", " ", "\n", "  "])
        rows.append((context, [source.choice([" ", ""]) + text(source.randint(1, 6)) for _ in range(4)]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--kinds", default="dense,experts")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds.split(","):
            failed |= compare(Path(folder, kind), kind, options)
    return 1 if failed else 0


def compare(folder, kind, options):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    sys.path.insert(0, str(HERE))
    from server import serving

    folder.mkdir()
    model = write_checkpoint(folder, kind)
    native = folder / "model.gguf"
    subprocess.run([options.bin / "sigma-convert", folder, native, "--type", "f32"], check=True, capture_output=True)
    own = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8, backend="causal")
    rows = [(context, [*choices, *greedy_choices(model, own, context)]) for context, choices in questions(options.questions)]
    requests = [Instance("loglikelihood", {}, (context, choice), index) for index, (context, choices) in enumerate(rows) for choice in choices]
    expected = own.loglikelihood(requests, disable_tqdm=True)
    pairs = [own._encode_pair(*request.args) if request.args[0] else ([own.prefix_token_id], own.tok_encode(request.args[1])) for request in requests]
    with serving(native, options.bin / "sigma-serve", ["--kv-type", "f32"]) as server:
        api = LocalCompletionsAPI(base_url=f"{server.url}/v1/completions", model="default", tokenizer_backend="remote", num_concurrent=4)
        found = api.loglikelihood(requests, disable_tqdm=True)
    worst = flags = tight = tokens = 0
    wrong = []
    for request, pair, a, b in zip(requests, pairs, expected, found):
        count = max(1, len(pair[1]))
        tokens += count
        difference = abs(a[0] - b[0]) / count
        worst = max(worst, difference)
        if difference > TOLERANCE:
            wrong.append(f"{request.args}: {a} and {b}")
        if a[1] != b[1]:
            if margin(model, *pair) > TOLERANCE:
                wrong.append(f"{request.args}: greedy {a[1]} and {b[1]}")
            else:
                tight += 1
        flags += a[1]
    print(f"{kind}: {len(requests)} log-likelihoods of {tokens} tokens: at most {worst:.2e} apart per token (allowed {TOLERANCE}); "
          f"{flags} greedy, {tight} flags differ within the margin; {len(wrong)} wrong")
    print(*wrong[:5], sep="\n", end="\n" if wrong else "")
    if flags == 0:
        print("no continuation was greedy: the flags are not tested")
    return bool(wrong) or flags == 0


def greedy_choices(model, own, context):
    """What the model would say next, where the text of that token is cut into that token again."""
    import torch

    tokens = own.tok_encode(context)
    if not tokens or context != context.rstrip():
        return []
    with torch.no_grad():
        best = model(torch.tensor([tokens])).logits[0, -1].argmax().item()
    text = own.tokenizer.decode([best])
    return [text] if text and own._encode_pair(context, text)[1] == [best] else []


def margin(model, context, continuation):
    """By how much the likeliest token leads, where it leads least."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([context + continuation])).logits[0]
    best = torch.log_softmax(logits, -1)[len(context) - 1:-1].topk(2).values
    return (best[:, 0] - best[:, 1]).min().item()


if __name__ == "__main__":
    sys.exit(main())
