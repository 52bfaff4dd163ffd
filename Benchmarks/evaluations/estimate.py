"""What a run costs on this machine, before it begins: measured speeds times counted tokens.

Prompt tokens are those that must be computed: what neighbouring prompts begin with counts once. Tokens of a sample of the prompts are counted, and the rest
by their characters. Tokens of answers are not known before; the recipes have an expectation, and the limits give an upper end.
"""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os.path import commonprefix

SAMPLE = 48


@dataclass
class Speeds:
    """Tokens per second."""

    #: of a prompt
    prompt: float
    #: of a prompt with the log-probability of each of its tokens
    scored: float
    #: of `parallel` answers together
    answer: float


@dataclass
class Cost:
    questions: int
    prompt_tokens: float
    answer_tokens: float
    most_answer_tokens: float
    seconds: float
    most_seconds: float


def measure(server, parallel, tokens=256, answer=32):
    """Speeds of this server with prompts that it cannot know."""
    information = server.post("/tokenize", {"prompt": "measure", "add_special_tokens": False})
    source = random.Random(time.time_ns())
    vocabulary = sorted({id for text in ("The quick brown fox jumps over the lazy dog. ", "1 2 3 4 5 6 7 8 9 0 + - = ", "def f(x): return x")
                         for id in server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]} | set(information["tokens"]))
    tokens = min(tokens, server.context // 2)

    def prompt(count):
        return [source.choice(vocabulary) for _ in range(count)]

    def seconds(bodies):
        begin = time.monotonic()
        with ThreadPoolExecutor(len(bodies)) as pool:
            results = list(pool.map(lambda body: server.post("/v1/completions", {"model": server.model, "temperature": 1, **body}), bodies))
        return time.monotonic() - begin, sum(result["usage"]["completion_tokens"] for result in results)

    plain, _ = seconds([{"prompt": prompt(tokens), "max_tokens": 1}])
    scored, _ = seconds([{"prompt": prompt(tokens), "max_tokens": 1, "echo": True, "logprobs": 1}])
    short = [{"prompt": prompt(8), "max_tokens": answer, "seed": index} for index in range(parallel)]
    taken, made = seconds(short)
    return Speeds(tokens / plain, tokens / scored, max(1, made) / taken)


def cost(requests, recipe, model, speeds):
    """What the harness's requests of a recipe cost."""
    is_scored = requests[0].request_type == "loglikelihood"
    texts = sorted("".join(request.args) if is_scored else request.args[0] for request in requests)
    unique = sum(len(text) - len(commonprefix([before, text])) for before, text in zip([""] + texts, texts))
    sample = random.Random(1).sample(texts, min(SAMPLE, len(texts)))
    per_character = sum(len(model.tok_encode(text)) for text in sample) / max(1, sum(map(len, sample)))
    prompt_tokens = unique * per_character
    questions = len({(request.task_name, request.doc_id) for request in requests})
    if is_scored:
        seconds = prompt_tokens / speeds.scored
        return Cost(questions, prompt_tokens, 0, 0, seconds, seconds)
    count = sum(request.repeats for request in requests)
    bodies = [model.body(request.args[0] if not model.chat else json.dumps([]), dict(request.args[1]), 0) for request in requests[:1]]
    # Without thinking, the answer's own limit holds for all of it.
    limit = bodies[0]["max_tokens"] + bodies[0].get("thinking_budget", 0)
    expected = min(recipe.tokens, limit)
    return Cost(questions, prompt_tokens, count * expected, count * limit, prompt_tokens / speeds.prompt + count * expected / speeds.answer,
                prompt_tokens / speeds.prompt + count * limit / speeds.answer)


def left_error(recipe, questions):
    """The standard error, in percent, that a score from so many questions would have: at the report's score, or at a half where there is none.

    That of a single answer to each question: repeats lower it."""
    share = (recipe.reported or 50) / 100
    return 100 * (share * (1 - share) / questions) ** 0.5
