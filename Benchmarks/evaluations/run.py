"""Measures the rows of the report's tables 2 and 6 with a model behind sigma-serve. docs/evaluations.md has the rows and what they need.

    run.py --table 2 --model sigma-base.gguf --output results --estimate
    run.py --table 6 --tasks aime24,math500 --limit 100 --url http://127.0.0.1:8080 --output results

The same command goes on where an interrupted one ended. Exit codes: 0; 1 where a row failed; 2 wrong usage; 130 interrupted.
"""

import argparse
import contextlib
import json
import logging
import os
import random
import sys
import time
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, choices=[2, 6], help="the report's table: 2 of base models, 6 of post-trained ones")
    parser.add_argument("--tasks", help="names of rows, with commas between; recipes.py lists them (default: the table's)")
    parser.add_argument("--limit", type=int, help="questions of each row, drawn at random (default: all)")
    parser.add_argument("--draw", type=int, default=1, help="seed of that draw (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the answers (default: 1)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--model", type=Path, help="a model file: a server of its own is started")
    where.add_argument("--url", help="a sigma-serve that runs")
    parser.add_argument("--api-key", default=os.environ.get("SIGMA_API_KEY"), help="its key (default: $SIGMA_API_KEY)")
    parser.add_argument("--binary", type=Path, help="the sigma-serve to start (default: the package's release build)")
    parser.add_argument("--server-option", action="append", default=[], metavar="OPTION", help="an option for it, as --server-option=--memory=6GiB")
    parser.add_argument("--data", type=Path, help="folder with data that is not to come from the hub")
    parser.add_argument("--output", type=Path, default=Path("evaluation-results"), help="folder for answers and report")
    parser.add_argument("--parallel", type=int, default=8, help="requests at the same time (default: 8)")
    parser.add_argument("--no-think", action="store_true", help="chats without thinking")
    parser.add_argument("--thinking-budget", type=int, help="tokens of thinking (default: the report's 32768)")
    parser.add_argument("--answer-tokens", type=int, help="tokens of an answer (default: the recipe's)")
    parser.add_argument("--run-code", action="store_true", help="run programs that the model writes, shut in as code_jail.py says")
    parser.add_argument("--estimate", action="store_true", help="only say what the run would cost")
    options = parser.parse_args(given)
    if not options.table and not options.tasks:
        parser.error("say what to measure: --table 2, --table 6, or --tasks")
    if not options.model and not options.url:
        parser.error("say which model: --model FILE, or --url of a server")
    if options.limit is not None and options.limit < 1:
        parser.error("--limit must be at least 1")
    if options.parallel < 1:
        parser.error("--parallel must be at least 1")
    return options


def main(given=None):
    options = arguments(given)
    if options.data:
        os.environ["SIGMA_EVALUATION_DATA"] = str(options.data.resolve())
    os.environ["SIGMA_RUN_CODE"] = "1" if options.run_code else "0"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    sys.path.insert(0, str(HERE))
    import recipes
    import server as servers

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        chosen = recipes.chosen(options.table, [name.strip() for name in options.tasks.split(",")] if options.tasks else None)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.run_code:
        import code_runner

        code_runner.check()
    options.output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if options.model:
            server = stack.enter_context(servers.serving(options.model, options.binary, options.server_option))
        else:
            server = servers.Server(options.url, options.api_key)
        return Run(options, chosen, server).run()


class Run:
    def __init__(self, options, chosen, server):
        from server import fingerprint

        self.options, self.recipes, self.server = options, chosen, server
        self.fingerprint = {**fingerprint(server, options.model, options.server_option), "harness": version("lm-eval")}
        self.folder = options.output
        self.check_folder()

    def check_folder(self):
        """Answers of another model are no answers of this one."""
        path = self.folder / "model.json"
        if path.exists():
            found = json.loads(path.read_text())
            if found != self.fingerprint:
                raise SystemExit(f"error: {self.folder} has answers of {found}, and this is {self.fingerprint}: name another --output")
        elif not self.options.estimate:
            path.write_text(json.dumps(self.fingerprint) + "\n")

    def run(self):
        import estimate
        from report import write

        rows = [self.prepare(recipe) for recipe in self.recipes]
        ready = [row for row in rows if row.tasks]
        if ready:
            speeds = estimate.measure(self.server, self.options.parallel)
            self.show_estimate(rows, speeds)
        if self.options.estimate:
            return 0 if all(row.tasks for row in rows) else 1
        for row in ready:
            self.measure(row)
            write(self.folder, [row.row for row in rows], self.about())
        write(self.folder, [row.row for row in rows], self.about())
        print((self.folder / "report.md").read_text())
        return 0 if all(row.row.score is not None for row in rows) else 1

    def about(self):
        return {"title": f"Evaluation of {self.server.model}", "context": self.server.context,
                "draw": f"{self.options.limit or 'all'} questions of a row, draw {self.options.draw}, answers' seed {self.options.seed}",
                "thinking": "off" if self.options.no_think else f"at most {self.options.thinking_budget or 32768} tokens, in chats",
                "harness": f"lm-eval {version('lm-eval')}"}

    # ---- preparing

    @cached_property
    def manager(self):
        """Reads thousands of task files, once."""
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=str(HERE / "tasks"))

    def prepare(self, recipe):
        from report import Row

        row = Prepared(recipe, Row(recipe.name, recipe.title, recipe.table, recipe.metric, recipe.shots, recipe.reported))
        if recipe.task is None:
            row.row.remark = recipe.remark
        elif recipe.runs_code and not self.options.run_code:
            row.row.remark = "needs --run-code"
        else:
            try:
                self.load(row)
            except Exception as error:  # noqa: BLE001 - whatever a data set's loader raises, other rows go on
                row.tasks = {}
                row.row.remark = f"no data: {type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
                print(f"{recipe.name}: {row.row.remark}", file=sys.stderr)
        return row

    def load(self, row):
        """The harness's tasks with the questions to ask, drawn from all of a row's together."""
        tasks = self.manager.load([row.recipe.task])["tasks"]
        for task in tasks.values():
            if task.get_config("num_fewshot") != 0:
                task.set_config(key="num_fewshot", value=row.recipe.shots)
            task.set_fewshot_seed(seed=1234)
        everything = [(name, index) for name, task in tasks.items() for index in range(len(task.eval_docs))]
        drawn = everything
        if self.options.limit and self.options.limit < len(everything):
            drawn = random.Random(self.options.draw).sample(everything, self.options.limit)
        row.row.questions, row.row.all_questions = len(drawn), len(everything)
        row.samples = {}
        for name, index in sorted(drawn):
            row.samples.setdefault(name, []).append(index)
        row.tasks = {name: tasks[name] for name in row.samples}
        row.model = self.model(row.recipe)

    def model(self, recipe):
        from progress import Progress
        from answer_store import AnswerStore
        from served_model import ServedModel

        budgets = {"thinking_budget": self.options.thinking_budget, "max_gen_toks": self.options.answer_tokens}
        store = None if self.options.estimate else AnswerStore(self.folder / f"{recipe.name}.answers.jsonl")
        return ServedModel(self.server, store, Progress(recipe.title), self.options.parallel, recipe.chat, not self.options.no_think,
                           self.options.seed, {name: value for name, value in budgets.items() if value})

    def show_estimate(self, rows, speeds):
        import estimate
        from progress import duration

        print(f"measured: {speeds.prompt:.0f} tokens/s of prompts, {speeds.scored:.0f} with their log-probabilities, "
              f"{speeds.answer:.1f} of {self.options.parallel} answers together", file=sys.stderr)
        total = most = 0
        for row in rows:
            if not row.tasks:
                print(f"{row.recipe.name:16} {row.row.remark}", file=sys.stderr)
                continue
            requests = []
            for name, task in row.tasks.items():
                task.build_all_requests(
                    samples=row.samples[name], rank=0, world_size=1, apply_chat_template=row.recipe.chat,
                    chat_template=row.model.apply_chat_template if row.recipe.chat else None)
                requests += task.instances
            cost = estimate.cost(requests, row.recipe, row.model, speeds)
            total, most = total + cost.seconds, most + cost.most_seconds
            print(f"{row.recipe.name:16} {cost.questions} of {row.row.all_questions} questions, error ± {estimate.left_error(row.recipe, cost.questions):.1f}; "
                  f"{cost.prompt_tokens:.0f} prompt and {cost.answer_tokens:.0f} answer tokens: {duration(cost.seconds)}, "
                  f"at most {duration(cost.most_seconds)}", file=sys.stderr)
        print(f"all: {duration(total)}, at most {duration(most)}", file=sys.stderr)

    # ---- measuring

    def measure(self, row):
        from lm_eval.evaluator import evaluate
        from report import mean

        begin = time.monotonic()
        try:
            result = evaluate(row.model, {"tasks": row.tasks, "groups": {}, "group_map": {}}, samples=row.samples, bootstrap_iters=0,
                              apply_chat_template=row.recipe.chat, confirm_run_unsafe_code=False)
        except Exception as error:  # noqa: BLE001 - the other rows go on; this one says why it has no score
            row.row.remark = f"failed: {type(error).__name__}: {error}"
            print(f"{row.recipe.name}: {row.row.remark}", file=sys.stderr)
            return
        finally:
            row.model.progress.end()
            row.row.seconds = time.monotonic() - begin
        metric, filter_name = row.recipe.score
        values = {}
        for name, samples in result["samples"].items():
            for sample in samples:
                if sample["filter"] == filter_name:
                    values.setdefault(sample["doc"].get("subject") or name, []).append(float(sample[metric]))
        row.row.score, row.row.error = mean([value for part in values.values() for value in part])
        for name, part in values.items():
            score, error = mean(part)
            row.row.parts[name] = {"score": score, "error": error, "questions": len(part)}
        row.row.answer_tokens = sum(entry.get("answer_tokens", 0) for entry in row.model.store.answers.values())
        if row.model.cut:
            row.row.remark = f"{row.model.cut} prompts had no room in the context of {self.server.context} tokens"
        row.model.store.close()


class Prepared:
    """A recipe with its tasks and questions, and the row that comes of it."""

    def __init__(self, recipe, row):
        self.recipe, self.row = recipe, row
        self.tasks, self.samples, self.model = {}, {}, None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
