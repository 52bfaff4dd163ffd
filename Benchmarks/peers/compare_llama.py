"""The same qwen3moe GGUF in llama.cpp and here.

1. A random model with wide margins between experts: normalised mean squared error (NMSE) of the logits, for every type, between the two
   engines, and of each against the same values computed in fp32 ("exact").
2. An ordinary random model, where rounding flips choices: every layer alone, on llama.cpp's own input to it, with a router that
   makes llama.cpp's choices; and the share of choices that our own router makes otherwise.

Logits are compared up to a constant per position (as log-probabilities are): each position's mean is taken away on both sides.

    python compare_llama.py [--sigma-bin FOLDER] [--tokens N] [--types q4_k,iq4_xs] [--json FILE] [--whole]

Exits with 1 where an NMSE between the engines is 1e-3 or more, at wide margins.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

import llama_probe
import qwen3moe_gguf
from widen import widen

ROOT = Path(__file__).resolve().parents[2]
FLOAT_TYPES = ["f32", "f16", "bf16"]
F = {name.removeprefix("LLAMA_FTYPE_MOSTLY_"): getattr(llama_cpp, name) for name in dir(llama_cpp) if name.startswith("LLAMA_FTYPE_MOSTLY_")}
# Files whose matrices are all of one type.
PURE_TYPES = {
    "q8_0": F["Q8_0"], "q6_k": F["Q6_K"], "q5_k": F["Q5_K_S"], "q5_1": F["Q5_1"], "q5_0": F["Q5_0"], "q4_k": F["Q4_K_S"], "q4_1": F["Q4_1"],
    "q4_0": F["Q4_0"], "iq4_nl": F["IQ4_NL"], "iq4_xs": F["IQ4_XS"], "mxfp4": F["MXFP4_MOE"], "q3_k": F["Q3_K_S"], "q2_k": F["Q2_K"],
}  # fmt: skip
# And as llama.cpp's quantizer mixes them.
MIXES = {"Q5_K_M": F["Q5_K_M"], "Q4_K_M": F["Q4_K_M"], "IQ4_XS": F["IQ4_XS"], "MXFP4_MOE": F["MXFP4_MOE"], "Q3_K_M": F["Q3_K_M"], "Q2_K": F["Q2_K"]}
KINDS = [*FLOAT_TYPES, *PURE_TYPES, *MIXES]
LIMIT = 1e-3


def make(folder, shape, kind, seed):
    path = folder / f"{kind}.gguf"
    if kind in FLOAT_TYPES:
        qwen3moe_gguf.write(path, shape, qwen3moe_gguf.kinds(kind), seed)
    else:
        qwen3moe_gguf.write(folder / "float.gguf", shape, qwen3moe_gguf.kinds("f32"), seed)
        llama_probe.quantize(folder / "float.gguf", path, (PURE_TYPES | MIXES)[kind], pure=kind in PURE_TYPES)
    return path


def types_of(path):
    """Of a file's matrices, most first."""
    found = Counter(t.tensor_type.name for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1 and not t.name.endswith("ffn_gate_inp.weight"))
    return [name for name, _ in found.most_common()]


def ours(folder, binaries, path, tokens, vocabulary):
    """Log-probabilities [tokens, vocabulary] by sigma-run, after an import of the GGUF."""
    native = folder / "native.gguf"
    imported = subprocess.run([binaries / "sigma-convert", path, native], capture_output=True, text=True)
    if imported.returncode != 0:
        sys.exit(imported.stderr)
    command = [
        binaries / "sigma-run", "--model", native, "--tokens", ",".join(map(str, tokens)), "--max-tokens", "0",
        "--logprobs", str(vocabulary), "--json", "--kv-type", "f32", "--threads", "1",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    positions = next(e for e in events if e["event"] == "prompt-logprobs")["positions"]
    table = np.full((len(positions), vocabulary), np.nan)
    for row, position in zip(table, positions):
        for entry in position["top"]:
            row[entry["id"]] = entry["logprob"]
    assert not np.isnan(table).any()
    return table


def centred(logits):
    logits = logits.astype(np.float64)
    return logits - logits.mean(1, keepdims=True)


def nmse(found, expected):
    found, expected = centred(found), centred(expected)
    return ((found - expected) ** 2).sum() / (expected**2).sum()


def check_export(folder, binaries, logits, tokens):
    """What we export, llama.cpp must load, and compute to the last bit as the file that was imported (`native.gguf`)."""
    plain = folder / "export.gguf"
    subprocess.run([binaries / "sigma-convert", folder / "native.gguf", plain, "--plain-gguf"], check=True, capture_output=True)
    again, _ = llama_probe.run(plain, tokens)
    assert np.array_equal(again, logits), "llama.cpp computes something else from the exported file"
    texts = ["the inn", "Then, <think>in the end</think> 12 + 34!<|im_end|>", "naïve Ünïcode 😀"]
    assert llama_probe.tokenize(plain, texts) == ours_tokenized(folder, binaries, texts), "other tokens"


def ours_tokenized(folder, binaries, texts):
    result = []
    for text in texts:
        (folder / "text.txt").write_text(text)
        command = [binaries / "sigma-eval", "tokenize", "--model", folder / "native.gguf", folder / "text.txt", "--special"]
        result.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return result


def whole_models(folder, binaries, tokens, kinds):
    shape = qwen3moe_gguf.Shape(wide_margins=True)
    watched = {f"ffn_moe_logits-{layer}" for layer in range(shape.layers)}
    print(f"wide margins: {shape.layers} layers, hidden {shape.hidden}, {shape.experts} experts, top-{shape.used}, "
          f"{len(tokens)} tokens")
    print(f"{'':32}{'NMSE of one against another':>36}")
    print(f"{'file':10}{'least margin':>14}{'median':>8}{'ours, llama':>12}{'ours, exact':>12}{'llama, exact':>13}"
          f"{'same top token':>16}")
    rows = []
    for kind in kinds:
        path = make(folder, shape, kind, seed=3)
        types = types_of(path)
        assert kind not in PURE_TYPES or types == [kind.upper()], f"{kind}: the file has {types}"
        logits, found = llama_probe.run(path, tokens, watched)
        assert found.keys() == watched, "llama.cpp names its tensors otherwise"
        ordered = np.sort(np.stack(list(found.values())), axis=-1)
        margins = ordered[..., -1] - ordered[..., -2]
        mine = ours(folder, binaries, path, tokens, shape.vocabulary)
        same = (mine.argmax(1) == logits.argmax(1)).mean()
        check_export(folder, binaries, logits, tokens)
        widen(path, folder / "exact.gguf")
        exact, _ = llama_probe.run(folder / "exact.gguf", tokens)
        row = {"kind": kind, "types": types, "smallest_margin": float(margins.min()), "median_margin": float(np.median(margins)),
               "ours_llama": nmse(mine, logits), "ours_exact": nmse(mine, exact), "llama_exact": nmse(logits, exact), "same_top": float(same)}
        rows.append(row)
        print(f"{kind:10}{row['smallest_margin']:14.2f}{row['median_margin']:8.2f}{row['ours_llama']:12.2e}{row['ours_exact']:12.2e}"
              f"{row['llama_exact']:13.2e}{same:16.1%}  {' '.join(types)}", flush=True)
    return rows


def one_layer(source, target, layer, states, router):
    """Layer `layer` of `source` alone: token i's embedding is states[i], and the logits are the normalised residual itself."""
    reader = gguf.GGUFReader(source)
    number = {key: reader.fields["qwen3moe." + key].contents() for key in [
        "context_length", "embedding_length", "feed_forward_length", "expert_feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "attention.value_length", "expert_count", "expert_used_count"]}
    hidden = number["embedding_length"]
    writer = gguf.GGUFWriter(target, "qwen3moe")
    writer.add_block_count(1)
    for key, value in number.items():
        writer.add_uint32("qwen3moe." + key, value)
    for key in ["rope.freq_base", "attention.layer_norm_rms_epsilon"]:
        writer.add_float32("qwen3moe." + key, float(reader.fields["qwen3moe." + key].contents()))
    writer.add_tokenizer_model("no_vocab")
    rows = np.zeros((hidden, hidden), np.float32)
    rows[: len(states)] = states
    writer.add_tensor("token_embd.weight", rows)
    prefix = f"blk.{layer}."
    for tensor in reader.tensors:
        if tensor.name.startswith(prefix):
            name = "blk.0." + tensor.name[len(prefix):]
            data = router if router is not None and name.endswith("ffn_gate_inp.weight") else tensor.data
            writer.add_tensor(name, data, raw_dtype=tensor.tensor_type)
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    writer.add_tensor("output.weight", np.eye(hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def router_for(inputs, choices, experts):
    """A router [experts, hidden] that gives the chosen expert 8 and the others 0: there are fewer tokens than dimensions."""
    wanted = 8 * np.eye(experts)[choices]
    solution, *_ = np.linalg.lstsq(inputs.astype(np.float64), wanted, rcond=None)
    router = solution.T.astype(np.float32)
    scores = inputs @ router.T
    ordered = np.sort(scores, axis=1)
    assert (scores.argmax(1) == choices).all() and (ordered[:, -1] - ordered[:, -2]).min() > 4
    return router


def layers_alone(folder, binaries, tokens, kinds):
    shape = qwen3moe_gguf.Shape()
    names = ["ffn_moe_logits", "ffn_norm", "l_out"]
    watched = {f"{name}-{layer}" for name in names for layer in range(shape.layers)}
    print(f"\nordinary routers: the same shape; each layer on llama.cpp's input to it, routing held equal")
    header = "".join(f"{f'layer {layer}':>10}" for layer in range(shape.layers))
    print(f"{'file':10}{'median margin':>14}{header}{'flipped choices':>17}")
    rows = []
    for kind in kinds:
        path = make(folder, shape, kind, seed=5)
        embedding = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
        _, found = llama_probe.run(path, tokens, watched)
        states = gguf.quants.dequantize(embedding.data, embedding.tensor_type)[tokens]
        errors, flips, margins = [], 0, []
        for layer in range(shape.layers):
            scores = found[f"ffn_moe_logits-{layer}"]
            choices = scores.argmax(1)
            ordered = np.sort(scores, axis=1)
            margins.append(ordered[:, -1] - ordered[:, -2])
            router = router_for(found[f"ffn_norm-{layer}"], choices, shape.experts)
            output = found[f"l_out-{layer}"].astype(np.float64)
            expected = output / np.sqrt((output**2).mean(1, keepdims=True) + 1e-6)
            results = []
            for own in [router, None]:
                target = folder / "layer.gguf"
                one_layer(path, target, layer, states, own)
                results.append(ours(folder, binaries, target, range(len(tokens)), shape.hidden))
            errors.append(nmse(results[0], expected))
            # With the same choice the results differ in last bits at most: the chosen expert's weight is 1.
            flips += (np.abs(results[0] - results[1]).max(1) > 1e-3).sum()
            states = found[f"l_out-{layer}"]
        choices = len(tokens) * shape.layers
        rows.append({"kind": kind, "median_margin": float(np.median(margins)), "layers": errors, "flipped": int(flips), "choices": choices})
        print(f"{kind:10}{np.median(margins):14.3f}" + "".join(f"{e:10.1e}" for e in errors)
              + f"{flips / choices:10.2%} ({flips} of {choices})", flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigma-bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--tokens", type=int, default=128, help="fewer than the hidden size, 256")
    parser.add_argument("--types", type=lambda text: text.split(","), default=KINDS, help=f"of {', '.join(KINDS)} (all)")
    parser.add_argument("--whole", action="store_true", help="only the first table")
    parser.add_argument("--json", type=Path, help="writes all numbers there")
    arguments = parser.parse_args()
    rng = np.random.default_rng(11)
    tokens = rng.integers(0, 256, arguments.tokens).tolist()
    print(f"llama-cpp-python {llama_cpp.__version__}")
    report = {"llama_cpp": llama_cpp.__version__, "tokens": len(tokens)}
    with tempfile.TemporaryDirectory() as name:
        report["whole"] = whole_models(Path(name), arguments.sigma_bin, tokens, arguments.types)
        if not arguments.whole:
            report["layers"] = layers_alone(Path(name), arguments.sigma_bin, tokens, arguments.types)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    worst = max(row["ours_llama"] for row in report["whole"])
    print(f"largest NMSE between the engines: {worst:.2e} (limit {LIMIT:.0e})")
    sys.exit(1 if worst >= LIMIT else 0)
