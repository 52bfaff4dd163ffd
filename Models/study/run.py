"""Trains what is missing of the study's runs; goes on where it was stopped.

    python Models/study/run.py               every run of runs.py that has no results yet
    python Models/study/run.py --jobs 2      two at a time, each on one core
    python Models/study/run.py --list        what is done
    python Models/study/run.py --only A-lbl  the runs of one variant
    python Models/study/run.py --scale short a seventh of the tokens: 300 steps with half the batch

STATE/SCALE/runs/ keeps the states, the final checkpoints and a run's curves while it trains. A finished run's curves and measurements
are in results/SCALE/, and their presence there is what says that it is done. It may be stopped at any time.
"""

import argparse
import fcntl
import json
import multiprocessing
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

from runs import GROUPS, HERE, QUICK_GROUPS, SCALES, SWITCH, Run, Scale  # first: it finds the other folders

import data
from measure import read_rows
from process import StopRequest, use_one_core
from training import Training


class Study:
    """Runs at one scale, from one corpus, with their states in one folder and their results in another."""

    def __init__(self, groups: list[list[Run]], scale: Scale, corpus: Path, state: Path, results: Path, jobs: int = 1):
        self.groups, self.scale, self.jobs = groups, scale, jobs
        self.corpus_folder, self.state, self.results = corpus, state, results

    def done(self, run: Run) -> bool:
        return (self.results / str(run) / "frozen.csv").exists()

    def steps_left(self, run: Run) -> int:
        if self.done(run):
            return 0
        total = self.scale.steps * run.variant.length
        curves = self.state / "runs" / str(run) / "curves.csv"
        begun = int(SWITCH * total) if run.variant.trunk else 0
        return total - (int(read_rows(curves)[-1]["step"]) if curves.exists() else begun)

    def corpus(self) -> data.Corpus:
        """The corpus; results of another one must not stand beside its own."""
        corpus, about = data.Corpus(self.corpus_folder), self.results / "corpus.json"
        if not about.exists():
            self.results.mkdir(parents=True, exist_ok=True)
            about.write_text(json.dumps(corpus.about, indent=2) + "\n")
        elif json.loads(about.read_text())["sha256"] != corpus.about["sha256"]:
            sys.exit(f"{about}: these results come from another text than {corpus.folder}; give another folder with --results")
        return corpus

    def train(self, group: list[Run], stop: StopRequest | None = None):
        use_one_core()
        stop, corpus = StopRequest() if stop is None else stop, self.corpus()
        for run in group:
            if self.done(run) or stop:
                continue
            training = Training(run, self.scale, corpus, self.state / "runs")
            first, start = training.step, time.monotonic()
            while not training.finished and not stop:
                row = training.train_step()
                if row and training.step % (5 * self.scale.log_every) == 0:
                    self.report(training, row, (time.monotonic() - start) / (training.step - first))
            if training.finished:
                training.finish(self.results)
                print(f"{run}: done", flush=True)
            else:
                training.save(training.state_file)

    def report(self, training: Training, row: dict, seconds_a_step: float):
        left = sum(self.steps_left(run) for group in self.groups for run in group)
        minutes = round(left * seconds_a_step / self.jobs / 60)
        print(f"{training.run}: step {row['step']} of {training.steps}, loss {row['mean_loss']}, "
              f"layer 0 {float(row['most_0']):+.2f} / {float(row['least_0']):+.2f}, {seconds_a_step:.2f} s a step; "
              f"all runs: {left} steps or {minutes // 60}:{minutes % 60:02} h left", flush=True)

    def run(self):
        self.state.mkdir(parents=True, exist_ok=True)
        lock = (self.state / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{self.state}: another process trains here")
        self.corpus()
        if self.jobs == 1:
            stop = StopRequest()
            for group in self.groups:
                self.train(group, stop)
        else:
            self.train_at_once()
        if any(self.steps_left(run) for group in self.groups for run in group):
            sys.exit("stopped; the same command goes on from here")

    def train_at_once(self):
        """Every group in a process of its own, `jobs` at a time. Asked to stop, it waits until they have saved their states."""
        stop, context = StopRequest(), multiprocessing.get_context("spawn")
        waiting = [group for group in self.groups if any(self.steps_left(run) for run in group)]
        running: list[multiprocessing.Process] = []
        while running or waiting and not stop:
            while waiting and len(running) < self.jobs and not stop:
                running.append(context.Process(target=self.train, args=(waiting.pop(0),)))
                running[-1].start()
            wait([process.sentinel for process in running])
            ended = [process for process in running if not process.is_alive()]
            running = [process for process in running if process.is_alive()]
            if any(process.exitcode for process in ended):
                waiting = []

    def show(self):
        for group in self.groups:
            for run in group:
                left = self.steps_left(run)
                print(f"{str(run):30} {'done' if self.done(run) else f'{left} steps left'}   {run.variant.label}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, each on one core (1)")
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="text to train on (default: the machine's documentation)")
    parser.add_argument("--scale", choices=SCALES, default="full", help="how large runs are (full)")
    parser.add_argument("--state", type=Path, default=data.ROOT / ".study", help="corpus, states and checkpoints (.study)")
    parser.add_argument("--results", type=Path, help="what is kept of finished runs (Models/study/results/SCALE; quick: in the state)")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="only runs of these variants")
    parser.add_argument("--list", action="store_true", help="say which runs are done, and train none")
    arguments = parser.parse_args()

    groups, state = GROUPS, arguments.state / arguments.scale
    corpus, results, text = arguments.state / "corpus", HERE / "results" / arguments.scale, arguments.text
    if arguments.scale == "quick":  # stays out of the way of the others, and needs nothing of the machine
        groups, corpus, results, text = QUICK_GROUPS, state / "corpus", state / "results", text or data.ROOT / "Sources"
    if arguments.only:
        known = dict.fromkeys(run.name for group in groups for run in group)
        for name in arguments.only:
            if name not in known:
                parser.error(f"--only {name}: there is no such variant; there are {', '.join(known)}")
        groups = [[run for run in group if run.name in arguments.only] for group in groups]
    study = Study(groups, SCALES[arguments.scale], corpus, state, arguments.results or results, arguments.jobs)
    if arguments.list:
        return study.show()
    if not (corpus / "corpus.json").exists():
        data.make(corpus, text)
    elif arguments.text:
        sys.exit(f"{corpus} has a corpus already; for that of {arguments.text} name another folder with --state, and one with --results")
    study.run()


if __name__ == "__main__":
    main()
