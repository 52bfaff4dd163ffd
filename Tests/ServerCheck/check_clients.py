"""Clients, unchanged, against sigma-serve with the demo model: everything that `make test-clients` runs.

    python3 -m venv .venv-clients && .venv-clients/bin/pip install -r Tests/ServerCheck/requirements.txt
    .venv-clients/bin/python Tests/ServerCheck/check_clients.py [CLIENT ...] [--binary PATH]

Every check prints a line and raises where something is wrong.
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from check_page import check_page
from check_streams import check_streams
from check_tools import check_agents, check_anthropic_tools, check_openai_tools
from serving import ROOT, serving

QUESTION = [{"role": "user", "content": "What is 347 + 586?"}]
ANSWER = "347 + 586 = 933."
# The small model adds wrongly where it does not think.
HASTY = "347 + 586 = 1134."


def version(package):
    return f"{package} {importlib.metadata.version(package)}"


def expect(error, call):
    """Calls what must fail in this way."""
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError(f"no {error.__name__}")


def check_openai(server):
    import openai

    url = server.url
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
        refusal = expect(error, lambda: client.chat.completions.create(**{"model": model, "messages": QUESTION, **body}))
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
    return f"{version('openai')}: chats and completions, whole and streamed, sync and async"


def check_openai_responses(server):
    import openai

    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none")
    ask = {"model": "default", "temperature": 0}
    whole = client.responses.create(input=QUESTION[0]["content"], instructions="Answer briefly.", metadata={"a": "b"}, **ask)
    assert whole.status == "completed" and [item.type for item in whole.output] == ["reasoning", "message"], whole
    assert whole.usage.output_tokens_details.reasoning_tokens > 0 and whole.metadata == {"a": "b"}
    plain = client.responses.create(input=QUESTION, reasoning={"effort": "none", "summary": "auto"}, store=False, **ask)
    assert plain.output_text == HASTY and [item.type for item in plain.output] == ["message"], plain
    # An answer goes back as it came, reasoning and all.
    history = [*QUESTION, *[item.model_dump() for item in whole.output], {"role": "user", "content": "What is 2 + 3?"}]
    assert "5" in client.responses.create(input=history, **ask).output_text
    scored = client.responses.create(input=QUESTION, reasoning={"effort": "none"}, include=["message.output_text.logprobs"], top_logprobs=2, **ask)
    scores = scored.output[0].content[0].logprobs
    assert "".join(score.token for score in scores) == HASTY and all(len(score.top_logprobs) == 2 for score in scores)
    with client.responses.stream(input=QUESTION, **ask) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == ANSWER and final.usage.total_tokens > 0
    cut = client.responses.create(input=QUESTION, max_output_tokens=2, **ask)
    assert cut.status == "incomplete" and cut.incomplete_details.reason == "max_output_tokens"
    refusal = expect(openai.BadRequestError, lambda: client.responses.create(input="a", previous_response_id="resp_1", **ask))
    assert refusal.param == "previous_response_id"
    image = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]
    assert expect(openai.BadRequestError, lambda: client.responses.create(input=image, **ask)).param == "input[0].content[0]"

    async def asynchronous():
        client = openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none")
        text = ""
        async for event in await client.responses.create(input=QUESTION, stream=True, **ask):
            if event.type == "response.output_text.delta":
                text += event.delta
        assert text == ANSWER

    asyncio.run(asynchronous())
    return f"{version('openai')}: responses, whole and streamed, sync and async"


def check_anthropic(server):
    import anthropic

    client = anthropic.Anthropic(base_url=server.url, api_key="none")
    # The package knows no temperature any more.
    ask = {"model": "default", "max_tokens": 100, "extra_body": {"temperature": 0}}
    whole = client.messages.create(messages=QUESTION, **ask)
    assert [block.type for block in whole.content] == ["text"] and whole.content[0].text == HASTY, whole
    assert whole.stop_reason == "end_turn" and whole.usage.output_tokens > 0
    header = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=11111;"}
    system = {"type": "text", "text": "Answer briefly, and say nothing that nobody asked for.", "cache_control": {"type": "ephemeral"}}
    client.messages.create(messages=QUESTION, system=[header, system], **ask)
    header = {**header, "text": "x-anthropic-billing-header: cc_version=2.1; cch=22222;"}
    again = client.messages.create(messages=QUESTION, system=[header, system], **ask)
    assert again.usage.cache_read_input_tokens > again.usage.input_tokens, again.usage
    thinking = {"type": "enabled", "budget_tokens": 2000}
    with client.messages.stream(messages=QUESTION, thinking=thinking, **ask) as stream:
        events = list(stream)
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"] and final.content[1].text == ANSWER, final
    assert final.content[0].signature and "".join(event.thinking for event in events if event.type == "thinking") == final.content[0].thinking
    # Thinking goes back with its signature.
    history = [*QUESTION, {"role": "assistant", "content": [block.model_dump() for block in final.content]}, {"role": "user", "content": "What is 2 + 3?"}]
    assert "5" in client.messages.create(messages=history, thinking=thinking, **ask).content[-1].text
    stopped = client.messages.create(messages=QUESTION, stop_sequences=["zzz", " ="], **ask)
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", " =", "347 + 586"), stopped
    assert client.messages.create(messages=QUESTION, **{**ask, "max_tokens": 2}).stop_reason == "max_tokens"
    count = client.messages.count_tokens(model="default", messages=QUESTION)
    assert count.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    image = [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]}]
    for change, error in [({"model": "claude-9"}, anthropic.NotFoundError), ({"messages": image}, anthropic.BadRequestError),
                          ({"tools": [{"name": "f g", "input_schema": {"type": "object"}}]}, anthropic.BadRequestError)]:
        refusal = expect(error, lambda: client.messages.create(**{"messages": QUESTION, **ask, **change}))
        assert refusal.body["type"] == "error" and refusal.body["error"]["message"], refusal.body

    async def asynchronous():
        client = anthropic.AsyncAnthropic(base_url=server.url, api_key="none")
        async with client.messages.stream(messages=QUESTION, **ask) as stream:
            assert "".join([text async for text in stream.text_stream]) == HASTY

    asyncio.run(asynchronous())
    return f"{version('anthropic')}: messages, thinking and counts, whole and streamed, sync and async"


def check_tools(server):
    def post(path, body):
        request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    check_openai_tools(server.url)
    check_anthropic_tools(server.url)
    check_agents(post)
    return f"functions: {version('openai')} and {version('anthropic')} with their helpers, whole and streamed; turns of agents"


def check_litellm(server):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.telemetry = False
    for model, base, answer in [("openai/default", server.url + "/v1", ANSWER), ("anthropic/default", server.url, HASTY)]:
        ask = {"model": model, "api_base": base, "api_key": "none", "messages": QUESTION, "temperature": 0, "max_tokens": 100}
        whole = litellm.completion(**ask)
        assert whole.choices[0].message.content == answer, whole
        chunks = list(litellm.completion(**ask, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
    response = litellm.responses(model="openai/default", api_base=server.url + "/v1", api_key="none", input=QUESTION, temperature=0)
    assert response.output[-1].content[0].text == ANSWER, response
    return f"{version('litellm')}: as OpenAI's and Anthropic's, whole and streamed, and responses"


def check_langchain(server):
    from langchain_openai import ChatOpenAI

    for more in [{}, {"use_responses_api": True}]:
        model = ChatOpenAI(base_url=server.url + "/v1", api_key="none", model="default", temperature=0, **more)
        text = lambda message: message.text if isinstance(message.text, str) else message.text()
        whole = model.invoke(QUESTION[0]["content"])
        assert text(whole) == ANSWER and whole.usage_metadata["output_tokens"] > 0, whole
        assert "".join(text(chunk) for chunk in model.stream(QUESTION[0]["content"])) == ANSWER
        assert [text(answer) for answer in model.batch([QUESTION[0]["content"]] * 3)] == [ANSWER] * 3
    return f"{version('langchain-openai')}: chats and responses, whole, streamed and in batches"


def check_llm(server):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "extra-openai-models.yaml").write_text(
            f"- model_id: sigma\n  model_name: default\n  api_base: {server.url}/v1\n")
        for options in [[], ["--no-stream"]]:
            answer = subprocess.run(
                [sys.executable, "-m", "llm", "-m", "sigma", "-o", "temperature", "0", "--key", "none", *options, QUESTION[0]["content"]],
                check=True, capture_output=True, text=True, env={**os.environ, "LLM_USER_PATH": folder}).stdout
            assert answer.strip() == ANSWER, answer
    return f"{version('llm')}: whole and streamed"


def check_schemathesis(server):
    """Requests that /openapi.json allows and forbids. What it cannot say, that two fields contradict each other, is left out: an allowed request
    may be refused."""
    checks = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
              "negative_data_rejection,ignored_auth")
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [str(Path(sys.executable).parent / "schemathesis"), "run", server.url + "/openapi.json", "--checks", checks, "--max-examples", "20",
             "--phases", "examples,coverage,fuzzing", "--workers", "1", "--generation-deterministic", "--request-timeout", "300",
             "--suppress-health-check", "too_slow"],
            capture_output=True, text=True, cwd=folder, env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
                                                            "PYTHONPATH": str(Path(__file__).parent)})
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    summary = next(line.strip() for line in run.stdout.splitlines() if "generated, " in line)
    return f"{version('schemathesis')}: {summary}"


def check_prometheus(server):
    from prometheus_client.parser import text_string_to_metric_families

    text = urllib.request.urlopen(server.url + "/metrics").read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries",
                 "vllm:prefix_cache_hits", "vllm:time_to_first_token_seconds", "vllm:time_per_output_token_seconds"):
        assert name in families and families[name].documentation, (name, sorted(families))
    histogram = families["vllm:time_to_first_token_seconds"]
    buckets = [sample.value for sample in histogram.samples if sample.name.endswith("_bucket")]
    assert histogram.type == "histogram" and buckets == sorted(buckets) and buckets[-1] > 0
    return f"{version('prometheus-client')}: {len(families)} families of metrics"


def check_all_streams(server):
    return check_streams(server.port, 500)


def check_the_page(server):
    with tempfile.TemporaryDirectory() as folder:
        return check_page(server, os.environ.get("SCREENSHOTS", folder))


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


def check_lm_eval(server):
    url = server.url
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
        assert all(results.values()), results
        return f"{version('lm-eval')}: {results}"


CLIENTS = {
    "openai": check_openai, "openai-responses": check_openai_responses, "anthropic": check_anthropic, "tools": check_tools, "litellm": check_litellm,
    "langchain": check_langchain, "llm": check_llm, "lm-eval": check_lm_eval, "schemathesis": check_schemathesis,
    "streams": check_all_streams, "page": check_the_page, "prometheus": check_prometheus,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", choices=[[], *CLIENTS], metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument("--binary", help="sigma-serve (default: that of the release build)")
    arguments = parser.parse_args()
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        os.environ.pop(variable, None)
    with serving(ROOT / "Models/demo.gguf", binary=arguments.binary) as server:
        for client in arguments.clients or CLIENTS:
            print(CLIENTS[client](server), flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stdout[-3000:]}\n{error.stderr[-6000:]}")
