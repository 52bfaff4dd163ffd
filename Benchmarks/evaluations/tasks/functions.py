"""What the task files here name with !function: data, prompts and judgements. `run.py` puts the folder above on the path."""

import json
import os
import re

import code_runner
import data
import judge

# ---- data

gsm8k_data, bbh_data, bbh_letters_data, humaneval_data = data.gsm8k, data.bbh, data.bbh_letters, data.humaneval
mmlu_redux_data, reasoning_gym_data = data.mmlu_redux, data.reasoning_gym


# ---- judgements: each gives the share of a question's answers that are right

def share(answers, is_right):
    return {"score": sum(map(is_right, answers)) / len(answers)}


def all_answers(resps, docs):
    """A filter that keeps every answer: avg@k wants them all."""
    return [list(answers) for answers in resps]


def gsm8k(doc, results):
    reference = judge.number(doc["answer"])
    return share(results[0], lambda answer: judge.number(answer) == reference)


def bbh(doc, results):
    def is_right(answer):
        stated = re.findall(r"(?i)the answer is\s*((?:(?!the answer is).)*)", answer)
        return bool(stated) and plain(stated[-1]) == plain(doc["target"])

    return share(results[0], is_right)


def plain(text):
    """Without the full stop, and without the brackets of a choice."""
    text = text.strip().rstrip(".").strip()
    option = re.fullmatch(r"\(?([A-Z])\)(?:\s.*)?", text)
    return option[1] if option else " ".join(text.split()).lower()


def choice(doc, results, answer):
    letters = "ABCDEFGHIJ"[:len(options(doc))]
    return share(results[0], lambda text: judge.letter(text, letters) == letters[answer])


def mmlu_redux(doc, results):
    return choice(doc, results, int(doc["answer"]))


def mmlu_pro(doc, results):
    return choice(doc, results, int(doc["answer_index"]))


def gpqa(doc, results):
    return choice(doc, results, doc["answer"])


def boxed(doc, results):
    reference = str(doc["answer"] if "answer" in doc else doc["Answer"])
    return share(results[0], lambda text: judge.solved(reference, text))


def reasoning_gym(doc, results):
    import reasoning_gym as gym

    entry = json.loads(doc["entry"])
    kind = gym.create_dataset(doc["subject"], size=1, seed=1)

    def is_right(text):
        answer = judge.last_boxed(text)
        if answer is None:
            stated = re.findall(r"(?i)answer is:?\s*(.*)", text)
            answer = stated[-1].strip().rstrip(".") if stated else text.strip()
        return kind.score_answer(answer=answer, entry=entry) >= 1

    return share(results[0], is_right)


# ---- programs

def passes(program):
    if os.environ.get("SIGMA_RUN_CODE") != "1":
        raise RuntimeError("programs of models are run only with --run-code")
    return code_runner.run(program).passed


def humaneval(doc, results):
    def is_right(text):
        # A whole function if it is there, else what follows the prompt.
        body = text if re.search(rf"(?m)^def {doc['entry_point']}\b", text) else doc["prompt"] + text
        # Imports of the prompt, which answers leave out.
        return passes(f"{head(doc['prompt'])}\n{body}\n{doc['test']}\ncheck({doc['entry_point']})\n")

    return share(results[0], is_right)


def head(prompt):
    return prompt[:prompt.index("def ")] if "def " in prompt else ""


def humaneval_chat(doc, results):
    return humaneval(doc, [[fenced(text) for text in results[0]]])


def fenced(text):
    """The last block of code between fences; the whole text if there is none."""
    blocks = re.findall(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", text, re.DOTALL)
    return blocks[-1] if blocks else text


def mbpp(doc, results):
    tests = "\n".join([doc.get("test_setup_code") or "", *doc["test_list"]])
    return share(results[0], lambda text: passes(f"{fenced(text.split('[DONE]')[0])}\n{tests}\n"))


def mbpp_examples():
    """Tasks 2, 3 and 4: the data's own examples for prompts."""
    from datasets import load_dataset

    return [{**row, "is_example": True} for row in load_dataset("google-research-datasets/mbpp", "full", split="prompt").select(range(1, 4))]


# ---- prompts

def options(doc):
    if "options" in doc:
        return doc["options"]
    choices = doc["choices"]
    return choices["text"] if isinstance(choices, dict) else choices


def lettered(doc):
    return "\n".join(f"{letter}. {option}" for letter, option in zip("ABCDEFGHIJ", options(doc)))


def letters_prompt(doc):
    return f"Question: {doc['question'].strip()}\n{lettered(doc)}\nAnswer:"


def letters(doc):
    return list("ABCDEFGHIJ"[:len(options(doc))])


def letters_target(doc):
    return doc["choices"]["label"].index(doc["answerKey"])


def choice_prompt(doc):
    return (f"{doc['question'].strip()}\n\n{lettered(doc)}\n\nPlease reason step by step, and put the letter of your choice, and nothing else, "
            "within \\boxed{}.")


def gpqa_docs(dataset):
    """Four options in an order that only depends on the question."""
    import random

    def row(doc):
        right = doc["Correct Answer"].strip()
        found = [right, *(doc[f"Incorrect Answer {index}"].strip() for index in (1, 2, 3))]
        random.Random(doc["Question"]).shuffle(found)
        return {"question": doc["Question"], "options": found, "answer": found.index(right)}

    return dataset.map(row, remove_columns=dataset.column_names)
