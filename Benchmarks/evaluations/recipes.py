"""The rows of the report's tables 2 and 6, each with how it is measured here.

The report names benchmarks, metrics, shots and sampling, and no prompts. Where the harness (lm-evaluation-harness) has a task that asks in this way, it is
that task; a task whose name begins with sigma_ is in tasks/, and its file says why.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    name: str
    title: str
    #: 2, 6, or None for what is no row of the report
    table: int | None
    #: of Sigma-MoE-Tiny, in percent
    reported: float | None
    #: as the report names it
    metric: str
    shots: int
    #: a task or group of the harness, or one of tasks/; None: there is no recipe
    task: str | None
    #: the harness's metric of a question, and the filter before it
    score: tuple[str, str] = ("score", "all")
    #: in the model's chat format, with thinking
    chat: bool = False
    runs_code: bool = False
    #: tokens that an answer is expected to have, thinking included: for the estimate alone
    tokens: int = 0
    #: what is known of it
    remark: str = ""


ACCURACY, NORMED = ("acc", "none"), ("acc_norm", "none")
UNTRIED = "not tried: its data could not be had"

RECIPES = [
    Recipe("mmlu", "MMLU", 2, 64.81, "EM", 5, "mmlu", ACCURACY, remark=UNTRIED),
    Recipe("mmlu_pro", "MMLU-Pro", 2, 38.13, "EM", 5, "mmlu_pro", ("exact_match", "custom-extract"), tokens=250, remark=UNTRIED),
    Recipe("bbh", "BBH", 2, 63.23, "EM", 3, "sigma_bbh", tokens=150),
    Recipe("piqa", "PIQA", 2, 82.05, "Acc.", 0, "piqa", NORMED, remark=UNTRIED),
    Recipe("gpqa", "GPQA", 2, 27.68, "EM", 5, "gpqa_main_n_shot", ACCURACY, remark=UNTRIED),
    Recipe("arc_c", "ARC-C", 2, 80.29, "EM", 25, "sigma_arc_challenge_letters", ACCURACY, remark=UNTRIED),
    Recipe("hellaswag", "HellaSwag", 2, 79.79, "EM", 10, "hellaswag", NORMED, remark=UNTRIED),
    Recipe("winogrande", "WinoGrande", 2, 76.09, "Acc.", 5, "winogrande", ACCURACY, remark=UNTRIED),
    Recipe("gsm8k", "GSM8K", 2, 71.65, "EM", 8, "sigma_gsm8k", tokens=120),
    Recipe("math", "MATH", 2, 36.88, "EM", 4, "minerva_math", ("math_verify", "none"), tokens=250, remark=UNTRIED),
    Recipe("humaneval", "HumanEval", 2, 42.07, "Pass@1", 0, "sigma_humaneval", runs_code=True, tokens=120),
    Recipe("mbpp", "MBPP", 2, 47.00, "Pass@1", 3, "sigma_mbpp", runs_code=True, tokens=80, remark=UNTRIED),

    Recipe("mmlu_redux", "MMLU-Redux", 6, 79.8, "avg@1", 0, "sigma_chat_mmlu_redux", chat=True, tokens=2000, remark=UNTRIED),
    Recipe("chat_mmlu_pro", "MMLU-Pro", 6, 63.7, "avg@1", 0, "sigma_chat_mmlu_pro", chat=True, tokens=3000, remark=UNTRIED),
    Recipe("gpqa_diamond", "GPQA-Diamond", 6, 46.4, "avg@8", 0, "sigma_chat_gpqa_diamond", chat=True, tokens=8000, remark=UNTRIED),
    Recipe("math500", "MATH-500", 6, 94.6, "avg@1", 0, "sigma_chat_math500", chat=True, tokens=5000, remark=UNTRIED),
    Recipe("aime24", "AIME'24", 6, 65.4, "avg@16", 0, "sigma_chat_aime24", chat=True, tokens=15000, remark=UNTRIED),
    Recipe("aime25", "AIME'25", 6, 48.8, "avg@16", 0, "sigma_chat_aime25", chat=True, tokens=15000, remark=UNTRIED),
    Recipe("chat_humaneval", "HumanEval", 6, 79.9, "avg@1", 0, "sigma_chat_humaneval", chat=True, runs_code=True, tokens=3000),
    Recipe("livecodebench", "LiveCodeBench v6", 6, 42.2, "avg@1", 0, None, chat=True, runs_code=True,
           remark="no recipe: the harness has no task of it"),

    Recipe("bbh_letters", "BBH's options", None, None, "Acc.", 0, "sigma_bbh_letters", ACCURACY),
    Recipe("reasoning_gym", "reasoning-gym", None, None, "avg@1", 0, "sigma_chat_reasoning_gym", chat=True, tokens=150),
]


def chosen(table, names):
    """The recipes of a table, or those that are named, or both."""
    known = {recipe.name: recipe for recipe in RECIPES}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise ValueError(f"there is no task {', '.join(unknown)}; there are: {', '.join(known)}")
    return [recipe for recipe in RECIPES
            if (table is None or recipe.table == table) and (not names or recipe.name in names)]
