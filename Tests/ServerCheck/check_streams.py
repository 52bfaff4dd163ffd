"""A stream's events, put together as clients do it, are the answer that is not streamed: random requests to all four protocols.

    python3 Tests/ServerCheck/check_streams.py [--requests 500] [--model Models/demo.gguf] [--binary PATH]
"""

import argparse
import asyncio
import json
import random
import sys
import time

from serving import ROOT, request_bytes, send, serving, split

PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def question(source):
    a, b = source.randrange(1, 999), source.randrange(1, 999)
    return source.choice([f"What is {a} + {b}?", f"Is {a} more than {b}? 🙂", f"{a} é \u2028 {b}", f"How many are {a} and {b}?\n\"Why\"?"])


SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}, "note": {"type": "string", "maxLength": 4}},
          "required": ["sum"], "additionalProperties": False}


def random_tools(protocol, source):
    """Functions, and which of them may or must be called."""
    choice = source.choice(["auto", "required", "none", "named"])
    functions = [{"name": "add", "description": "Adds.", "parameters": SCHEMA}, {"name": "now", "parameters": {"type": "object", "maxProperties": 0}}]
    match protocol:
        case "chat":
            named = {"type": "function", "function": {"name": "add"}}
            tools = [{"type": "function", "function": function} for function in functions]
        case "responses":
            named = {"type": "function", "name": "add"}
            tools = [{"type": "web_search"}, *({"type": "function", "strict": True, **function} for function in functions)]
        case "messages":
            words = {"auto": {"type": "auto"}, "required": {"type": "any", "disable_parallel_tool_use": True}, "none": {"type": "none"}}
            return {"tools": [{"input_schema": function.pop("parameters"), **function} for function in functions],
                    "tool_choice": words.get(choice, {"type": "tool", "name": "add"})}
    return {"tools": tools, "tool_choice": named if choice == "named" else choice, "parallel_tool_calls": source.random() < 0.3}


def random_request(protocol, source):
    """A body with a seed, so that the same answer comes twice."""
    body = {"seed": source.randrange(1 << 31), "temperature": source.choice([0, 0.6, 1.2]), "top_p": source.choice([0.5, 0.95, 1])}
    thinks, limit = source.random() < 0.6, source.choice([1, 5, 20, 60])
    budget = source.choice([0, 3, 30, 100])
    stops = source.choice([None, None, ["="], ["3", " +"], ["\n"]])
    history = [(source.choice(["user", "assistant"]), question(source)) for _ in range(source.choice([0, 0, 2]))] + [("user", question(source))]
    messages = [{"role": role, "content": text} for role, text in history]
    system = source.choice([None, "Answer briefly."])
    match protocol:
        case "chat":
            body |= {"messages": ([{"role": "system", "content": system}] if system else []) + messages, "max_tokens": limit,
                     "enable_thinking": thinks, "thinking_budget": budget, "n": source.choice([1, 1, 3])}
            if source.random() < 0.3: body |= {"logprobs": True, "top_logprobs": 2}
            if stops: body["stop"] = stops
        case "completion":
            body |= {"prompt": [question(source) for _ in range(source.choice([1, 2]))], "max_tokens": limit, "n": source.choice([1, 2]),
                     "echo": source.random() < 0.3}
            if source.random() < 0.3: body["logprobs"] = 2
            if stops: body["stop"] = stops
        case "responses":
            body |= {"input": source.choice([messages, history[-1][1]]), "max_output_tokens": limit, "metadata": {"é": "🙂"}}
            body |= {"thinking_budget": budget} if thinks else {"reasoning": {"effort": "none"}}
            if system: body["instructions"] = system
            if source.random() < 0.3: body |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
        case "messages":
            body |= {"messages": messages, "max_tokens": limit}
            if thinks: body["thinking"] = {"type": "enabled", "budget_tokens": budget}
            if system: body["system"] = [{"type": "text", "text": system}]
            if stops: body["stop_sequences"] = stops
    if protocol != "completion" and source.random() < 0.4: body |= random_tools(protocol, source)
    return body


async def stream(port, path, body):
    """Names and data of a stream's events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        writer.write(request_bytes("POST", path, {**body, "stream": True}))
        await writer.drain()
        status, _, text = split(await reader.read())
    finally:
        writer.close()
    assert status == 200, text
    events = []
    for part in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields:
            events.append((fields.get("event"), fields["data"]))
    return events


def add(total, more):
    """Adds what a delta has to what there is: texts and lists grow, objects member by member."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(total.get(key), dict):
            add(total[key], value)
        elif isinstance(value, (str, list)) and total.get(key) is not None and key not in ("finish_reason", "role"):
            total[key] = total[key] + value
        elif value is not None or key not in total:
            total[key] = value


def joined_chunks(events, whole):
    """OpenAI's chunks as one object of the whole's form."""
    assert events[-1] == (None, "[DONE]")
    choices, usage = {}, None
    for _, data in events[:-1]:
        chunk = json.loads(data)
        assert chunk["object"] in ("chat.completion.chunk", "text_completion") and "error" not in chunk
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            total = choices.setdefault(choice["index"], {})
            if "delta" in choice:
                choice["message"] = choice.pop("delta")
            add(total, choice | {"index": choice["index"]})
    for index, choice in choices.items():
        choice["index"] = index
        calls = {}
        for piece in choice.get("message", {}).pop("tool_calls", []):
            if "id" in piece: calls[piece["index"]] = {"type": piece["type"], "function": piece["function"]}
            else: calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
        kept = len(whole["choices"][index].get("message", {}).get("tool_calls", []))
        # A call within which the answer ends is in the stream only.
        assert list(calls) == list(range(len(calls))) and len(calls) <= kept + (choice["finish_reason"] != "tool_calls"), calls
        if kept: choice["message"]["tool_calls"] = [calls[place] for place in range(kept)]
    return {**whole, "choices": [choices[index] for index in sorted(choices)], "usage": usage}


def joined_response(events):
    """From the deltas alone, checked against what the events of ends say."""
    output, number, ended = {}, 0, set()
    for name, data in events:
        event = json.loads(data)
        assert event["type"] == name and event["sequence_number"] == number, (name, event)
        number += 1
        match name:
            case "response.output_item.added": output[event["output_index"]] = event["item"]
            case "response.content_part.added": output[event["output_index"]]["content"].append(event["part"])
            case "response.output_text.delta" | "response.reasoning_text.delta":
                part = output[event["output_index"]]["content"][event["content_index"]]
                part["text"] += event["delta"]
                if "logprobs" in event: part["logprobs"] = part["logprobs"] + event["logprobs"]
            case "response.output_text.done" | "response.reasoning_text.done":
                assert event["text"] == output[event["output_index"]]["content"][event["content_index"]]["text"]
            case "response.function_call_arguments.delta": output[event["output_index"]]["arguments"] += event["delta"]
            case "response.function_call_arguments.done": assert event["arguments"] == output[event["output_index"]]["arguments"]
            case "response.output_item.done":
                ended.add(event["output_index"])
                output[event["output_index"]]["status"] = event["item"]["status"]
                assert output[event["output_index"]] == event["item"], (output, event)
    assert name in ("response.completed", "response.incomplete"), name
    response = event["response"]
    assert response["output"] == [output[index] for index in sorted(ended)] and len(output) <= len(ended) + (response["status"] == "incomplete")
    return response


def joined_message(events, whole):
    message, json_text = None, ""
    for name, data in events:
        event = json.loads(data)
        assert event["type"] == name
        match name:
            case "message_start": message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                _, (key, text) = event["delta"].items()
                if key == "partial_json": json_text += text
                else: message["content"][event["index"]][key] += text
            case "content_block_stop" if json_text:
                # A call within which the answer ends is in the stream only.
                if event["index"] < len(whole["content"]): message["content"][event["index"]]["input"] = json.loads(json_text)
                json_text = ""
            case "message_delta": message |= event["delta"] | {"usage": event["usage"]}
    assert name == "message_stop", (name, data)
    assert len(message["content"]) <= len(whole["content"]) + (message["stop_reason"] != "tool_use")
    message["content"] = message["content"][:len(whole["content"])]
    return message


def without_chance(answer):
    """Without what differs between two requests of the same: ids, times, and how much of the prompt was found."""
    answer = {key: value for key, value in answer.items() if key not in ("id", "created", "created_at")}
    usage = json.loads(json.dumps(answer["usage"]))
    for details in ("prompt_tokens_details", "input_tokens_details"):
        usage.pop(details, None)
    if "cache_read_input_tokens" in usage:
        usage["input_tokens"] += usage.pop("cache_read_input_tokens")
    answer["usage"] = usage
    # Where there is no token a whole answer has empty lists, and a stream no chunk.
    answer["choices"] = [{**choice, "logprobs": choice["logprobs"] if any((choice["logprobs"] or {}).values()) else None}
                         for choice in answer.get("choices", [])]
    for choice in answer["choices"]:
        for call in choice.get("message", {}).get("tool_calls", []): call.pop("id", None)
    for parts in ("output", "content"):
        answer[parts] = [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in answer.get(parts, [])]
    return answer


async def compare(port, protocol, body):
    path = PATHS[protocol]
    status, _, text = await send(port, "POST", path, body)
    assert status == 200, (body, text)
    whole = json.loads(text)
    streamed = {**body, "stream_options": {"include_usage": True}} if protocol in ("chat", "completion") else body
    events = await stream(port, path, streamed)
    match protocol:
        case "responses": joined = joined_response(events)
        case "messages": joined = joined_message(events, whole)
        case _: joined = joined_chunks(events, whole)
    assert without_chance(joined) == without_chance(whole), (body, whole, joined)


def check_streams(port, count, seed=23):
    source = random.Random(seed)
    bodies = [(protocol, random_request(protocol, source)) for protocol, _ in zip(list(PATHS) * count, range(count))]

    async def run():
        places = asyncio.Semaphore(4)

        async def one(protocol, body):
            async with places:
                await compare(port, protocol, body)

        await asyncio.gather(*(one(*pair) for pair in bodies))

    begin = time.monotonic()
    asyncio.run(run())
    return f"streams: {count} random requests to {len(PATHS)} protocols add up ({time.monotonic() - begin:.0f} s)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--model", default=str(ROOT / "Models/demo.gguf"))
    parser.add_argument("--binary")
    arguments = parser.parse_args()
    with serving(arguments.model, binary=arguments.binary) as server:
        print(check_streams(server.port, arguments.requests))


if __name__ == "__main__":
    sys.exit(main())
