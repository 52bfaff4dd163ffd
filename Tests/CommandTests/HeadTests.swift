import Foundation
import Sigma
import SigmaStudies
import Testing

/// The screened output head in the commands: which head decided, and what is told of it.
@Suite struct HeadTests {
    static let arguments = ["--tokens", "5,60,700", "--max-tokens", "30", "--seed", "4"]

    private func run(_ model: String, _ more: [String] = []) throws -> JSONRun {
        try JSONRun(["--model", model] + Self.arguments + more)
    }

    @Test func theDoneLineNamesTheHead() throws {
        let screened = try run(TestModels.screened)
        func stats(_ run: JSONRun) -> [String: Any] { run.done["stats"] as? [String: Any] ?? [:] }
        #expect(stats(screened)["head"] as? String == "screened")
        // One row a token, the first with the prompt; some may fall back.
        let rows = try #require(screened.done.stat("screened_rows"))
        let fallbacks = try #require(screened.done.stat("head_fallbacks"))
        #expect(rows + fallbacks == screened.ids.count && rows > 20)
        #expect(screened.done.stat("head_comparisons") == 0 && screened.done.stat("head_misses") == 0)

        let full = try run(TestModels.screened, ["--full-head"])
        #expect(stats(full)["head"] as? String == "full" && full.done.stat("screened_rows") == 0)
        #expect(full.ids == screened.ids)
        for more in [["--temperature", "0"], ["--threads", "1"], ["--top-k", "40"]] {
            #expect(try run(TestModels.screened, more).ids == run(TestModels.screened, more + ["--full-head"]).ids)
        }
        // What needs all logits gets them.
        let whole = try run(TestModels.screened, ["--top-k", "0"])
        #expect(stats(whole)["head"] as? String == "full" && whole.done.stat("head_comparisons") == 0)
        // A file without planes.
        #expect(stats(try JSONRun(JSONLinesTests.bare))["head"] as? String == "full")
    }

    @Test func logProbabilitiesCompareBothHeads() throws {
        let plain = try run(TestModels.screened)
        let compared = try run(TestModels.screened, ["--logprobs", "3"])
        #expect(compared.ids == plain.ids)
        #expect((compared.done["stats"] as? [String: Any])?["head"] as? String == "full")
        #expect(try #require(compared.done.stat("head_comparisons")) > 20)
        #expect(compared.done.stat("head_misses") == 0)
        // Planes that are wrong are found out, and log-probabilities don't suffer.
        let damaged = try run(TestModels.damagedScreen, ["--logprobs", "3"])
        #expect(try #require(damaged.done.stat("head_misses")) > 5)
        #expect(damaged.ids == plain.ids && damaged.tokens.map(\.logprob) == compared.tokens.map(\.logprob))
        // Nothing is compared where the full head was asked for.
        let full = try run(TestModels.damagedScreen, ["--logprobs", "3", "--full-head"])
        #expect(full.done.stat("head_comparisons") == 0 && full.ids == plain.ids)
    }

    @Test func theTableTellsToo() throws {
        let result = try Subprocess.run(
            "sigma-run", ["--model", TestModels.damagedScreen, "--stats", "--logprobs", "1", "--json"] + Self.arguments)
        #expect(result.code == 0)
        #expect(result.errors.contains("output head") && result.errors.contains("the screen missed "))
    }

    @Test func evaluationCountsMisses() throws {
        func tallies(_ model: String, _ more: [String] = []) throws -> [String: [String: Any]] {
            let result = try Subprocess.run(
                "sigma-eval", ["head", "--model", model, "--random-tokens", "40", "--json"] + more)
            #expect(result.code == 0, "\(result.errors)")
            return try #require(
                try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: [String: Any]])
        }
        let intact = try tallies(TestModels.screened)
        #expect(Set(intact.keys) == Set(StateKind.allCases.map(\.rawValue)))
        for (kind, tally) in intact {
            #expect(tally["positions"] as? Int == 40)
            if kind != "aligned" { #expect(tally["misses"] as? Int == 0, "\(kind)") }
        }
        let damaged = try tallies(TestModels.damagedScreen, ["--kinds", "real"])
        #expect(try #require(damaged["real"]?["misses"] as? Int) > 10)
        let table = try Subprocess.run(
            "sigma-eval", ["head", "--model", TestModels.screened, "--random-tokens", "5", "--kinds", "real,tied"])
        #expect(table.lines.count == 3 && table.lines[1].contains("real"))
        let none = try Subprocess.run("sigma-eval", ["head", "--model", TestModels.bare])
        #expect(none.code == 65 && none.errors.contains("--head-screen on"))
        for bad in [["--largest", "0"], ["--kinds", "real,odd"], ["--random-tokens", "0"], ["--deviations", "-1"]] {
            #expect(try Subprocess.run("sigma-eval", ["head", "--model", TestModels.screened] + bad).code == 64)
        }
    }

    @Test func benchmarksSayWhichHead() throws {
        func row(_ more: [String]) throws -> [String: Any] {
            let result = try Subprocess.run(
                "sigma-bench",
                [
                    "--model", TestModels.screened, "--prompt", "0", "--generate", "6", "--repetitions", "1",
                    "--format", "json",
                ]
                    + more)
            #expect(result.code == 0, "\(result.errors)")
            let rows = try JSONSerialization.jsonObject(with: Data(result.output)) as? [[String: Any]]
            return try #require(rows?.first)
        }
        let screened = try row([])
        let full = try row(["--full-head"])
        #expect(screened["head"] as? String == "screened" && full["head"] as? String == "full")
        #expect(full["head_bytes_per_token"] is NSNull)
        let bytes = try #require(screened["head_bytes_per_token"] as? Int)
        let planes = try #require(try ModelFile(path: TestModels.screened).weights.screen)
        #expect(bytes > planes.coarseBytes)
        // What differs between the rows is what the heads read.
        let model = try ModelFile(path: TestModels.screened)
        let difference =
            try #require(full["bytes_per_token"] as? Int) - (try #require(screened["bytes_per_token"] as? Int))
        #expect(abs(difference - (model.weights.head.byteCount - bytes)) <= 2)
    }

    @Test func inspectionNamesThePlanes() throws {
        let result = try Subprocess.run("sigma-convert", ["--inspect", TestModels.screened, "--verify"])
        #expect(result.code == 0)
        #expect(result.text.contains("screened, planes of") && result.text.contains("output_screen.coarse"))
        let damaged = try Subprocess.run("sigma-convert", ["--inspect", TestModels.damagedScreen, "--verify"])
        #expect(damaged.code == 65 && damaged.errors.contains("output_screen.coarse"))
        let wrong = try Subprocess.run(
            "sigma-convert", [TestModels.screened, Scratch.path("x.gguf"), "--head-screen", "perhaps"])
        #expect(wrong.code == 64)
    }
}
