"""Runs a GGUF in llama.cpp (`llama-cpp-python`) and reads logits and chosen intermediate tensors."""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

F32 = 0
# Kept alive: llama.cpp calls it as long as the process lives.
_silence = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


class _Tensor:
    """ggml's functions on tensors; the structure itself is not looked into."""

    def __init__(self):
        folder = Path(llama_cpp.__file__).parent / "lib"
        library = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
        self.name, self.bytes, self.get = library.ggml_get_name, library.ggml_nbytes, library.ggml_backend_tensor_get
        self.name.restype, self.name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
        self.bytes.restype, self.bytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
        self.get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]

    def read(self, tensor):
        """The numbers of a contiguous fp32 tensor."""
        data = np.empty(self.bytes(tensor), np.uint8)
        self.get(tensor, data.ctypes.data, 0, data.size)
        return data.view(np.float32).copy()


def quantize(source, target, file_type, pure=True):
    """llama.cpp's own quantizer. `file_type`: LLAMA_FTYPE_MOSTLY_Q4_K_S and so on."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.pure, parameters.nthread = file_type, pure, 1
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)) != 0:
        raise RuntimeError(f"llama.cpp cannot quantize {source}")


def run(path, tokens, watched=()):
    """Evaluates all tokens as one batch, with keys and values in fp32.

    Returns logits [tokens, vocabulary], and a dictionary of the `watched` tensors by name, each [tokens, ...].
    """
    ggml, found, kept = _Tensor(), {}, []

    def callback(tensor, ask, _):
        name = ggml.name(tensor).decode()
        if ask:
            return name in watched
        found[name] = ggml.read(tensor).reshape(len(tokens), -1)
        return True

    model_parameters = llama_cpp.llama_model_default_params()
    # ggml's plain rows and kernels: with repacked weights AMX may be used, which some builds crash in (docs/gguf.md).
    model_parameters.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_parameters)
    if not model:
        raise RuntimeError(f"llama.cpp does not load {path}")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = max(256, len(tokens))
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.type_k = parameters.type_v = F32
    if watched:
        kept.append(llama_cpp.ggml_backend_sched_eval_callback(callback))
        parameters.cb_eval = kept[0]
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError("llama.cpp makes no context")
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    if llama_cpp.llama_decode(context, batch) != 0:
        raise RuntimeError("llama.cpp cannot evaluate the tokens")
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(tokens), vocabulary)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits, found


def tokenize(path, texts):
    """Token ids of each text, special tokens recognised, without bos."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise RuntimeError(f"llama.cpp does not load the vocabulary of {path}")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    result = []
    for text in texts:
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(vocabulary, data, len(data), ids, len(ids), False, True)
        if count < 0:
            raise RuntimeError("llama.cpp cannot tokenize")
        result.append(list(ids[:count]))
    llama_cpp.llama_model_free(model)
    return result
