"""Keeps the answers that schemathesis asks for small: an allowed request may want 2,048 answers of 4,096 tokens each."""

import sys

import schemathesis

# Functions' schemas are values of any shape, deep in a body: its generators nest deeper than Python allows by default.
sys.setrecursionlimit(10_000)

LIMITS = {"n": (2, 2048), "max_tokens": (8, 2**31 - 1), "max_completion_tokens": (8, 2**31 - 1), "max_output_tokens": (8, 2**31 - 1),
          "thinking_budget": (8, 2**31 - 1)}


@schemathesis.hook
def before_call(context, case, kwargs):
    if not isinstance(case.body, dict):
        return
    for name, (small, most) in LIMITS.items():
        value = case.body.get(name)
        # What is refused must stay what it is.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and small < value <= most and value == int(value):
            case.body[name] = small
