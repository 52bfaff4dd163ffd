"""A model behind sigma-serve, for the harness: as its own local-completions, with what a run of hours needs.

- Every answer is stored when it comes (answer_store.py).
- Repeats of a question have seeds of their own. The harness sends all repeats with one seed, and a server that gives the same answer to the same
  request, as this one does, would make avg@16 of one answer.
- Choices of one context follow each other, so that the server computes the context once.
- Thinking budgets and chats are sent in the server's words.
"""

import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby

from lm_eval.api.model import TemplateLM

from answer_store import digest
from server import ContextExceeded


class ServedModel(TemplateLM):
    def __init__(self, server, store, progress, parallel=8, chat=False, thinks=True, seed=1, budgets=None, answer_tokens=1024):
        super().__init__()
        self.server, self.store, self.progress, self.parallel = server, store, progress, parallel
        self.chat, self.thinks, self.seed, self.budgets, self.answer_tokens = chat, thinks, seed, budgets or {}, answer_tokens
        self.encoded = {}
        self.information = server.get("/tokenizer_info")
        #: contexts that were cut, and prompts that had no room
        self.cut = 0

    # ---- tokens

    @property
    def eot_token_id(self):
        return self.information.get("eos_token_id")

    @property
    def prefix_token_id(self):
        bos = self.information.get("bos_token_id")
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string, add_special_tokens=None, **_):
        if string not in self.encoded:
            if len(self.encoded) > 1 << 16:
                self.encoded.clear()
            self.encoded[string] = self.server.post("/tokenize", {"prompt": string, "add_special_tokens": False})["tokens"]
        return self.encoded[string]

    # ---- log-likelihoods

    def loglikelihood(self, requests, disable_tqdm=True):
        """Progress is shown here, and not by the harness."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **_):
        """Log-likelihood of each continuation, and whether it is what greedy generation would give."""
        pairs = [self.fitting(context, continuation) for _, context, continuation in requests]
        order = sorted(range(len(pairs)), key=lambda index: pairs[index])
        groups = [list(group) for _, group in groupby(order, key=lambda index: pairs[index][0])]
        self.progress.begin(sum(len(context) + len(more) for context, more in pairs), "tokens")
        results = [None] * len(pairs)

        def score(group):
            # The first computes the context; with the others in one request the server has them side by side.
            for part in [group[:1], group[1:]]:
                missing = [index for index in part if self.stored(pairs[index]) is None]
                if missing:
                    answer = self.server.post("/v1/completions", self.scoring([pairs[index] for index in missing]))
                    for choice in sorted(answer["choices"], key=lambda choice: choice["index"]):
                        index = missing[choice["index"]]
                        self.store.put(digest(self.scoring([pairs[index]])), {"value": self.sum(choice["logprobs"], len(pairs[index][0]))})
                for index in part:
                    results[index] = tuple(self.stored(pairs[index])["value"])
                    self.progress.add(sum(map(len, pairs[index])), is_new=index in missing)

        self.in_parallel(score, groups)
        return results

    def fitting(self, context, continuation):
        """The pair, with the context's beginning cut where the model's context has no room for it."""
        room = self.server.context - 1 - len(continuation)
        if len(context) > room:
            self.cut += 1
            context = context[-max(1, room):]
        return context, continuation

    def scoring(self, pairs):
        return {"model": self.server.model, "prompt": [context + more for context, more in pairs], "max_tokens": 1, "temperature": 0,
                "logprobs": 1, "echo": True}

    def stored(self, pair):
        return self.store.get(digest(self.scoring([pair])))

    @staticmethod
    def sum(scores, context_count):
        """The answer's own token is last."""
        values, tops = (scores[name][context_count:-1] for name in ("token_logprobs", "top_logprobs"))
        return sum(values), all(value == max(top.values()) for value, top in zip(values, tops))

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError("no recipe scores whole texts")

    # ---- texts

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        """The server has the template: what goes there are the messages."""
        return json.dumps(chat_history, ensure_ascii=False)

    @property
    def tokenizer_name(self):
        return self.server.model

    def chat_template(self, chat_template=False):
        return None

    def generate_until(self, requests, disable_tqdm=False):
        counts = {}
        bodies = []
        for request in requests:
            context, settings = request.args
            repeat = counts[id(request)] = counts.get(id(request), -1) + 1
            bodies.append(self.body(context, dict(settings), repeat))
        # Neighbours share the most of their prompts.
        order = sorted(range(len(bodies)), key=lambda index: json.dumps(bodies[index].get("prompt") or bodies[index]["messages"]))
        self.progress.begin(len(bodies), "answers")
        entries = [None] * len(bodies)

        def answer(index):
            key = digest(bodies[index])
            entry = self.store.get(key)
            is_new = entry is None
            entries[index] = self.store.put(key, self.answer(bodies[index])) if is_new else entry
            self.progress.add(1, is_new, entries[index].get("answer_tokens", 0))

        self.in_parallel(answer, order)
        self.cut += sum(entry.get("cut", 0) for entry in entries)
        return [entry["value"] for entry in entries]

    def body(self, context, settings, repeat):
        until = settings.pop("until", [])
        stop = list(dict.fromkeys(text for text in ([until] if isinstance(until, str) else until) if text))[:16]
        is_sampled = settings.pop("do_sample", False)
        settings = {**settings, **{name: value for name, value in self.budgets.items() if name in settings or name == "max_gen_toks"}}
        body = {"model": self.server.model, "max_tokens": settings.pop("max_gen_toks", self.answer_tokens),
                "temperature": settings.pop("temperature", 0.6 if is_sampled else 0), **settings}
        if stop:
            body["stop"] = stop
        if self.chat:
            body["messages"] = json.loads(context)
            if not self.thinks:
                body["chat_template_kwargs"] = {"enable_thinking": False}
                body.pop("thinking_budget", None)
        else:
            body["prompt"] = context
        # A number of its own for each prompt and repeat, and the same one in another run.
        body["seed"] = int(digest([body, self.seed, repeat])[:12], 16)
        return body

    def answer(self, body):
        try:
            result = self.server.post("/v1/chat/completions" if self.chat else "/v1/completions", body)
        except ContextExceeded:
            return {"value": "", "cut": 1}
        choice, usage = result["choices"][0], result["usage"]
        return {"value": choice["message"]["content"] if self.chat else choice["text"], "finish": choice["finish_reason"],
                "prompt_tokens": usage["prompt_tokens"], "answer_tokens": usage["completion_tokens"]}

    def in_parallel(self, function, items):
        """Every item, several at a time. The first failure ends it, when the requests that run are done."""
        with ThreadPoolExecutor(self.parallel) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self.progress.end()
