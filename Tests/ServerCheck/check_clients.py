"""The openai package and lm-evaluation-harness, unchanged, against sigma-serve with the demo model.

    python3 -m venv .venv-clients && .venv-clients/bin/pip install -r Tests/ServerCheck/requirements.txt
    .venv-clients/bin/python Tests/ServerCheck/check_clients.py

Every check prints a line and raises where something is wrong.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import openai

from serving import ROOT, serving

QUESTION = [{"role": "user", "content": "What is 347 + 586?"}]
ANSWER = "347 + 586 = 933."


def check_openai(url):
    client = openai.OpenAI(base_url=url + "/v1", api_key="none")
    model = client.models.list().data[0].id
    whole = client.chat.completions.create(model=model, messages=QUESTION, temperature=0)
    assert whole.choices[0].message.content == ANSWER and whole.choices[0].finish_reason == "stop", whole
    assert whole.choices[0].message.reasoning_content, "the thinking"
    text, usage = "", None
    for chunk in client.chat.completions.create(
            model=model, messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == ANSWER and usage.completion_tokens == whole.usage.completion_tokens
    scored = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3, extra_body={"enable_thinking": False})
    content = scored.choices[0].logprobs.content
    assert "".join(token.token for token in content) == scored.choices[0].message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in content)
    two = client.chat.completions.create(model=model, messages=QUESTION, n=2, seed=1, temperature=0.8)
    assert [choice.index for choice in two.choices] == [0, 1]
    raw = client.completions.create(model=model, prompt=["What is", "How many"], max_tokens=5, logprobs=2, echo=True, seed=1)
    assert raw.choices[0].text.startswith("What is") and raw.choices[1].text.startswith("How many")
    pieces = [chunk.choices[0].text for chunk in client.completions.create(
        model=model, prompt="What is", max_tokens=5, seed=1, stream=True) if chunk.choices]
    assert "What is" + "".join(pieces) == raw.choices[0].text
    for body, error in [({"model": "gpt-9"}, openai.NotFoundError), ({"temperature": -1}, openai.BadRequestError)]:
        try:
            client.chat.completions.create(**{"model": model, "messages": QUESTION, **body})
            raise AssertionError(body)
        except error as refusal:
            assert refusal.body["message"] and refusal.param, refusal.body

    async def asynchronous():
        client = openai.AsyncOpenAI(base_url=url + "/v1", api_key="none")
        answers = await asyncio.gather(*(
            client.chat.completions.create(model=model, messages=QUESTION, temperature=0) for _ in range(5)))
        assert {answer.choices[0].message.content for answer in answers} == {ANSWER}
        text = ""
        async for chunk in await client.chat.completions.create(model=model, messages=QUESTION, temperature=0, stream=True):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
        assert text == ANSWER
        # A stream that is left.
        stream = await client.chat.completions.create(model=model, messages=QUESTION, temperature=0, stream=True)
        await anext(aiter(stream))
        await stream.close()

    asyncio.run(asynchronous())
    return f"openai {openai.__version__}: chats and completions, whole and streamed, sync and async"


TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}} "
doc_to_target: "{target}"
{rest}
"""


def check_lm_eval(url):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows = [{"question": f"What is {a} + {b}?", "choices": [f"{a} + {b} = {a + b}.", f"{a} + {b} = {a + b + 9}."], "answer": 0}
                for a, b in [(12, 35), (40, 17), (81, 9), (23, 54)]]
        (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        choice = TASK.format(data=folder / "sums.jsonl", kind="multiple_choice", target="{{answer}}",
                             rest='doc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc}]')
        generation = TASK.format(
            data=folder / "sums.jsonl", kind="generate_until", target="{{choices[0]}}",
            rest='generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64, temperature: 0}\nmetric_list: [{metric: exact_match}]')
        (folder / "sums_choice.yaml").write_text(choice.replace("task: sums", "task: sums_choice"))
        (folder / "sums_generate.yaml").write_text(generation.replace("task: sums", "task: sums_generate"))
        results = {}
        for kind, task, path, more in [
                ("local-completions", "sums_choice", "/v1/completions", []),
                ("local-completions", "sums_generate", "/v1/completions", []),
                ("local-chat-completions", "sums_generate", "/v1/chat/completions", ["--apply_chat_template"])]:
            output = folder / f"{kind}-{task}"
            subprocess.run(
                [sys.executable, "-m", "lm_eval", "run", "--model", kind, "--tasks", task, "--include_path", str(folder),
                 "--model_args", f"model=default,base_url={url}{path},tokenizer_backend=remote,num_concurrent=4,max_retries=1",
                 "--output_path", str(output), *more],
                check=True, capture_output=True, text=True,
                env={**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")})
            report = json.loads(next(output.rglob("results_*.json")).read_text())
            results[f"{kind} {task}"] = {key: value for key, value in report["results"][task].items() if "stderr" not in key and "," in key}
        return f"lm-eval: {results}"


def main():
    with serving(ROOT / "Models/demo.gguf") as server:
        for check in (check_openai, check_lm_eval):
            print(check(f"http://127.0.0.1:{server.port}"), flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stdout[-3000:]}\n{error.stderr[-6000:]}")
