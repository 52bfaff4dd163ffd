import Foundation
import Sigma
import Testing

/// `--memory`: what the commands state is what a run can have, in every command that computes.
@Suite struct BudgetTests {
    /// Mebibytes that the model needs at least.
    private func leastBudget(_ model: String, _ kvType: KVType) throws -> Int {
        let refused = try Subprocess.run(
            "sigma-run", ["--model", model, "--tokens", "5", "--memory", "1MiB", "--kv-type", kvType.rawValue])
        #expect(refused.code == 69 && refused.errors.contains("Raise --memory to "), "\(refused.errors)")
        let found = try #require(refused.errors.firstMatch(of: /needs ([0-9]+) MiB at least/))
        return try #require(Int(found.1))
    }

    /// Positions that the table of `--stats` states.
    private func statedLength(_ errors: String) throws -> Int {
        let match = try #require(errors.firstMatch(of: /longest sequence +([0-9]+) tokens/))
        return try #require(Int(match.1))
    }

    @Test(arguments: [KVType.f16, .q8_0, .f32]) func theStatedLengthIsReached(kvType: KVType) throws {
        var lengths: [Int] = []
        let least = try leastBudget(TestModels.endless, kvType)
        for mebibytes in [least, least + 2] {
            let arguments = [
                "--model", TestModels.endless, "--memory", "\(mebibytes)MiB", "--kv-type", kvType.rawValue, "--context",
                "30000", "--threads", "1", "--stats",
            ]
            let short = try JSONRun(arguments + ["--tokens", "5", "--max-tokens", "1"])
            // What the process itself takes differs from run to run, and so does the length: by a block of positions, perhaps.
            let count = try max(1, statedLength(short.errors) - 276)
            let prompt = (0..<count).map { "\(($0 * 37 + 11) % 256)" }.joined(separator: ",")
            let run = try JSONRun(arguments + ["--tokens", prompt, "--max-tokens", "4000", "--seed", "1"])
            #expect(run.done["reason"] as? String == "context")
            // The last token is chosen, and needs no place.
            let length = try statedLength(run.errors)
            #expect((length...length + 1).contains(count + run.ids.count), "\(length): \(count) and \(run.ids.count)")
            lengths.append(length)
        }
        #expect(lengths[0] > 0 && lengths[0] < lengths[1])
    }

    @Test func theTableIsOfTheTypeInUse() throws {
        for kvType in [KVType.f16, .q8_0] {
            let result = try Subprocess.run(
                "sigma-run",
                [
                    "--model", TestModels.demo, "--tokens", "5", "--max-tokens", "1", "--stats", "--memory", "100MiB",
                    "--kv-type", kvType.rawValue,
                ])
            #expect(result.errors.contains("for each 256 positions, \(kvType.rawValue)"), "\(result.errors)")
        }
    }

    /// A chat names the limit that it has met.
    @Test func chatsNameTheBudget() throws {
        let least = try leastBudget(TestModels.demo, .f16)
        let system = try Scratch.file("system.txt", String(repeating: "1 2 3 4 5 6 7 8 9 0 ", count: 400))
        let chat = try ChatProcess(
            ["--model", TestModels.demo, "--memory", "\(least)MiB", "--system-file", system, "--threads", "1"],
            columns: 200)
        try chat.waitForPrompt()
        chat.enter("What is 2 + 3?")
        try chat.wait("the limit's name") { $0.text.contains("more than what the memory budget has room for") }
        try chat.waitForPrompt()
        chat.type("\u{4}")
        #expect(try chat.end() == 0)
    }

    @Test func everyEvaluationKeepsIt() throws {
        let text = try Scratch.file("text.txt", String(repeating: EvalTests.text, count: 8))
        let least = try leastBudget(TestModels.demo, .f16)
        let cpu = ["--model", TestModels.demo, "--threads", "1"]
        for arguments in [
            ["perplexity", text], ["routing", text], ["task", "--count", "2", "--no-direct"],
            ["imatrix", text, "--output", Scratch.path("a.imatrix")],
            ["compare", "--reference", TestModels.demo, text],
        ] {
            let json = arguments + cpu + ["--json"]
            func result(_ more: [String]) throws -> Subprocess.Result { try Subprocess.run("sigma-eval", json + more) }
            let whole = try result([])
            // Two models share it.
            let needed = (arguments[0] == "compare" ? 2 : 1) * (least + 2)
            let small = try result(["--memory", "\(needed)MiB"])
            #expect(small.code == 0, "\(arguments): \(small.errors)")
            if arguments[0] != "imatrix" { #expect(small.output == whole.output, "\(arguments)") }
            let refused = try result(["--memory", "3MiB"])
            #expect(refused.code == 69 && refused.errors.contains("Raise --memory"), "\(arguments): \(refused.errors)")
        }
    }
}
