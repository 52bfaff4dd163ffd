"""Functions with the helpers of OpenAI's and Anthropic's packages, and requests in the shape of agents, against sigma-serve with the demo model.

The model has never seen a function: calls are asked for, and the constraint makes them right.
"""

import json

QUESTION = [{"role": "user", "content": "What is 347 + 586?"}]
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 999}, "unit": {"enum": ["m", "km"]}},
          "required": ["sum", "unit"], "additionalProperties": False}


def is_call(arguments):
    assert set(arguments) == {"sum", "unit"} and 0 <= arguments["sum"] <= 999 and arguments["unit"] in ("m", "km"), arguments
    return True


def check_openai_tools(url):
    import openai
    from pydantic import BaseModel, ConfigDict, Field
    from typing import Literal

    class Add(BaseModel):
        """Adds lengths."""
        model_config = ConfigDict(extra="forbid")
        sum: int = Field(ge=0, le=999)
        unit: Literal["m", "km"]

    client = openai.OpenAI(base_url=url + "/v1", api_key="none")
    ask = {"model": "default", "messages": QUESTION, "temperature": 0, "extra_body": {"enable_thinking": False}}
    tool = openai.pydantic_function_tool(Add)
    parsed = client.chat.completions.parse(tools=[tool], tool_choice="required", parallel_tool_calls=False, **ask)
    choice = parsed.choices[0]
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1, choice
    assert isinstance(call.function.parsed_arguments, Add) and call.id.startswith("call_"), call
    with client.chat.completions.stream(tools=[tool], tool_choice="required", parallel_tool_calls=False, **ask) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments == call.function.parsed_arguments
    assert [event.name for event in events if event.type == "tool_calls.function.arguments.done"] == ["Add"]
    # The call goes back with its result, and may be answered in words or calls.
    history = [*QUESTION, choice.message.model_dump(exclude_none=True, exclude={"parsed": True, "tool_calls": {"__all__": {"function": {"parsed_arguments"}}}}),
               {"role": "tool", "tool_call_id": call.id, "content": "933 m"}]
    again = client.chat.completions.create(tools=[tool], max_tokens=30, **{**ask, "messages": history})
    assert again.usage.prompt_tokens > parsed.usage.prompt_tokens and "<tool_call>" not in again.choices[0].message.content
    named = client.chat.completions.create(
        tools=[tool, {"type": "function", "function": {"name": "now"}}], tool_choice={"type": "function", "function": {"name": "now"}}, **ask)
    assert [(call.function.name, json.loads(call.function.arguments)) for call in named.choices[0].message.tool_calls] == [("now", {})]
    hot = client.chat.completions.create(tools=[tool], tool_choice="required", n=4, seed=3, max_tokens=400, **{**ask, "temperature": 1.5})
    for choice in hot.choices:
        assert choice.finish_reason == "length" or all(is_call(json.loads(call.function.arguments)) for call in choice.message.tool_calls)
    bad = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "array", "uniqueItems": True}}}
    try:
        client.chat.completions.create(tools=[bad], **ask)
        raise AssertionError("a schema that cannot be done")
    except openai.BadRequestError as refusal:
        assert refusal.param == "tools[0].function.parameters", refusal

    flat = {"type": "function", "name": "add", "parameters": SCHEMA, "strict": True}
    ask = {"model": "default", "temperature": 0, "reasoning": {"effort": "none"}, "tools": [flat, {"type": "web_search"}]}
    whole = client.responses.create(input=QUESTION, tool_choice="required", parallel_tool_calls=False, **ask)
    item = whole.output[0]
    assert item.type == "function_call" and is_call(json.loads(item.arguments)) and whole.tools[0].name == "add", whole
    with client.responses.stream(input=QUESTION, tool_choice={"type": "function", "name": "add"}, **ask) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output[0].arguments == item.arguments and kinds.count("response.function_call_arguments.done") == 1, kinds
    history = [*QUESTION, *(item.model_dump() for item in whole.output), {"type": "function_call_output", "call_id": item.call_id, "output": "933 m"}]
    assert client.responses.create(input=history, max_output_tokens=30, **ask).status in ("completed", "incomplete")


def check_anthropic_tools(url):
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="none")
    tools = [{"name": "add", "description": "Adds lengths.", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}]
    ask = {"model": "default", "max_tokens": 200, "tools": tools, "extra_body": {"temperature": 0}}
    choice = {"type": "tool", "name": "add"}
    whole = client.messages.create(messages=QUESTION, tool_choice=choice, **ask)
    block = whole.content[0]
    assert whole.stop_reason == "tool_use" and block.type == "tool_use" and is_call(block.input), whole
    with client.messages.stream(messages=QUESTION, tool_choice=choice, **ask) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].input == block.input and final.stop_reason == "tool_use" and "input_json" in kinds, (final, kinds)
    history = [*QUESTION, {"role": "assistant", "content": [block.model_dump() for block in whole.content]},
               {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "933 m"}]}]}]
    again = client.messages.create(messages=history, **{**ask, "max_tokens": 30})
    assert again.usage.input_tokens + again.usage.cache_read_input_tokens > whole.usage.input_tokens
    assert client.messages.count_tokens(model="default", messages=history, tools=tools).input_tokens == (
        again.usage.input_tokens + again.usage.cache_read_input_tokens)

    # The package runs the function, and sends its result. Conversations are not kept, so there are no threads.
    sums = []

    @anthropic.beta_tool
    def now() -> str:
        """The time."""
        sums.append(1)
        return "noon"

    runner = client.beta.messages.tool_runner(
        model="default", max_tokens=60, tools=[now], messages=QUESTION, tool_choice={"type": "tool", "name": "now"}, max_iterations=2, thread=False,
        extra_body={"temperature": 0})
    messages = list(runner)
    assert len(messages) == 2 and len(sums) >= 1 and messages[0].content[0].name == "now", messages


# As many as the small model's context has room for.
NAMES = ["Bash", "Read", "Edit", "Grep", "TodoWrite", "mcp__git__log", "WebFetch", "Task"]


def agent_schema(place):
    """What agents' functions look like: drafts, descriptions, defaults, enums, formats, lists of objects, references."""
    members = {"path": {"type": "string", "description": "Absolute."}, "limit": {"type": "integer", "minimum": 1, "default": 9}}
    if place % 3 == 1: members["mode"] = {"type": "string", "enum": ["replace", "insert"]}
    if place % 3 == 2: members["todos"] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/todo"}}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": members, "required": ["path"],
              "additionalProperties": False}
    if place % 3 == 2: schema["$defs"] = {"todo": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}}
    if place % 5 == 4: members["url"] = {"type": "string", "format": "uri"}
    return schema


def check_agents(post):
    """Turns as Codex and Claude Code send them.

    - post: sends a body to a path, and gives the answer's JSON.
    """
    instructions = "You are an agent. Work step by step. " * 4
    codex = {
        "model": "default", "instructions": instructions, "stream": False, "store": False, "tool_choice": "auto", "parallel_tool_calls": False,
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "reasoning": {"effort": "none", "summary": "auto"}, "text": {"verbosity": "low"},
        "tools": [*({"type": "function", "name": name, "description": "Does it.", "strict": False, "parameters": agent_schema(place)}
                    for place, name in enumerate(NAMES)), {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}}, {"type": "web_search"}],
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is 347 + 586?"}]},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Look."}], "encrypted_content": None},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}], "phase": "commentary"},
            {"type": "function_call", "name": "Bash", "arguments": "{\"path\":\"/\"}", "call_id": "call_1", "id": "fc_1", "status": "completed"},
            {"type": "function_call_output", "call_id": "call_1", "output": "Exit code: 0\nOutput:\nfile"},
        ],
        "max_output_tokens": 20, "temperature": 0,
    }
    first = post("/v1/responses", codex)
    assert first["status"] in ("completed", "incomplete") and len(first["tools"]) == len(NAMES), first
    claude = {
        "model": "default", "max_tokens": 20, "stream": False, "temperature": 1, "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}, {"type": "text", "text": instructions, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": name, "description": "Does it.", "input_schema": agent_schema(place)} for place, name in enumerate(NAMES)],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "<system-reminder>"}, {"type": "text", "text": "What is 347 + 586?", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "/a"}},
                                              {"type": "tool_use", "id": "toolu_2", "name": "Grep", "input": {"path": "/b", "limit": 1.5}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "text", "is_error": False},
                                         {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "none"}]},
                                         {"type": "text", "text": "Go on."}]},
        ],
        "context_management": {"edits": []}, "seed": 1,
    }
    answer = post("/v1/messages", claude)
    assert answer["stop_reason"] in ("end_turn", "max_tokens", "tool_use"), answer
    # The next turn begins with all that this one had.
    claude["system"][0]["text"] = "x-anthropic-billing-header: cch=2"
    cached = post("/v1/messages", claude)["usage"]["cache_read_input_tokens"]
    assert cached > 500, cached
    forced = post("/v1/messages", {**claude, "max_tokens": 400, "tool_choice": {"type": "tool", "name": "mcp__git__log"}, "temperature": 0})
    block = forced["content"][0] if forced["content"] else None
    assert forced["stop_reason"] == "max_tokens" or set(block["input"]) <= {"path", "limit", "todos"}, forced
