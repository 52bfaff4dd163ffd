"""Measures llama.cpp on one model, through its C API, as a process of its own: a setting may crash.

    python llama_speed.py MODEL repacked '[{"prompt": 512, "repetitions": 2, "threads": 2, "kv": "f16", "flash": true, "ubatch": 512, "seed": 1},
                                           {"depths": [0, 1024], "generate": 64, ...}]'

Weights are "plain" (ggml's rows), "repacked" (whatever llama.cpp makes of them for this processor), or "repacked, no AMX". Writes a JSON
list of tokens per second, for each piece of work: a number for a prompt, or one for each depth. Tokens are uniform over the vocabulary and never
the same twice.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np

KV = {"f32": 0, "f16": 1, "q8_0": 8}
silence = llama_cpp.llama_log_callback(lambda *_: None)


class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def refuse_amx():
    """Has Linux refuse this process AMX, so that llama.cpp goes on to its other layouts: it must not be granted where a registered
    stack for signals is too small for AMX registers. Returns the stack, which must live on."""
    memory = ctypes.create_string_buffer(8192)
    stack = Stack(ctypes.addressof(memory), 0, len(memory))
    if ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) != 0:
        raise RuntimeError("no stack for signals")
    return memory


class Model:
    def __init__(self, path, weights):
        self.stack = refuse_amx() if weights == "repacked, no AMX" else None
        llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.use_extra_bufts = weights != "plain"
        self.pointer = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.pointer:
            sys.exit(f"llama.cpp does not load {path}")


class Session:
    def __init__(self, model, setting, positions):
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = (positions + 255) // 256 * 256
        parameters.n_batch = max(setting["ubatch"], 2048)
        parameters.n_ubatch = setting["ubatch"]
        parameters.n_threads = parameters.n_threads_batch = setting["threads"]
        parameters.type_k = parameters.type_v = KV[setting["kv"]]
        parameters.flash_attn_type = int(setting["flash"])
        parameters.no_perf = True
        self.context = llama_cpp.llama_init_from_model(model.pointer, parameters)
        if not self.context:
            sys.exit("llama.cpp makes no context of this setting")
        self.step = parameters.n_batch
        self.batch = llama_cpp.llama_batch_init(self.step, 0, 1)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model.pointer))
        self.random = np.random.default_rng(setting["seed"])
        self.length = 0

    def close(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)

    def feed(self, count):
        """Random tokens behind those that are there, with the last one's logits."""
        tokens = self.random.integers(0, self.vocabulary, count).tolist()
        for start in range(0, count, self.step):
            piece = tokens[start : start + self.step]
            self.batch.n_tokens = len(piece)
            for i, token in enumerate(piece):
                self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, self.length + i, 1
                self.batch.seq_id[i][0] = 0
                self.batch.logits[i] = start + i == count - 1
            if llama_cpp.llama_decode(self.context, self.batch) != 0:
                sys.exit("llama.cpp cannot evaluate the tokens")
            self.length += len(piece)
        llama_cpp.llama_synchronize(self.context)

    def truncate(self, length):
        memory = llama_cpp.llama_get_memory(self.context)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, length, -1):
            sys.exit("llama.cpp cannot remove tokens")
        self.length = length


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(model, setting):
    repetitions = setting["repetitions"]
    if "prompt" in setting:
        count = setting["prompt"]
        session, speeds = Session(model, setting, count), []
        for _ in range(repetitions + 1):
            session.truncate(0)
            speeds.append(count / timed(lambda: session.feed(count)))
        session.close()
        return float(np.mean(speeds[1:]))  # as sigma-bench: the first is not counted, and rounds are means
    generate, result = setting["generate"], {}
    session = Session(model, setting, max(setting["depths"]) + generate)
    for depth in sorted(setting["depths"]):
        if depth > session.length:
            session.feed(depth - session.length)
        speeds = []
        for _ in range(repetitions + 1):
            session.truncate(depth)
            speeds.append(generate / timed(lambda: [session.feed(1) for _ in range(generate)]))
        session.truncate(depth)
        result[str(depth)] = float(np.mean(speeds[1:]))
    session.close()
    return result


if __name__ == "__main__":
    model = Model(sys.argv[1], sys.argv[2])
    print(json.dumps([measure(model, setting) for setting in json.loads(sys.argv[3])]))
