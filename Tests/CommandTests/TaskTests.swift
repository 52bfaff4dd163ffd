import Foundation
import Testing

/// `sigma-eval task` on a handful of questions.
@Suite struct TaskTests {
    static let wordings = [
        "What is 12 + 35?", "What is 7 + 8?", "What is 30 - 12?", "Which is larger, 5 or 9?", "Sort 3, 1, 2.", "Hello",
    ]

    /// What sigma-run answers to a question, greedily.
    static func answer(_ question: String, thinks: Bool) throws -> String {
        let arguments = ["--model", TestModels.demo, "--temperature", "0", "--prompt", question, "--max-tokens", "256"]
        return try JSONRun(arguments + [thinks ? "--think" : "--no-think", "--thinking-budget", "1024"]).text("answer")
    }

    static func line(_ kind: String, _ question: String, _ answer: String) throws -> String {
        let object = ["kind": kind, "question": question, "answer": answer]
        return String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self)
    }

    static func file(_ lines: [String]) throws -> String {
        try Scratch.file("questions.jsonl", lines.joined(separator: "\n") + "\n")
    }

    func report(_ arguments: [String]) throws -> [String: Any] {
        let result = try Subprocess.run("sigma-eval", ["task", "--model", TestModels.demo, "--json"] + arguments)
        #expect(result.code == 0, "\(result.errors)")
        return try #require(try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Any])
    }

    @Test func sharesAreThoseOfTheAnswersThatSigmaRunGives() throws {
        var lines: [String] = []
        var right = ["thinking": 0, "direct": 0]
        for (index, question) in Self.wordings.enumerated() {
            let thought = try Self.answer(question, thinks: true)
            let direct = try Self.answer(question, thinks: false)
            // Every other answer is asked for with a letter too many.
            let expected = index % 2 == 0 ? thought : thought + "x"
            right["thinking"]! += thought == expected ? 1 : 0
            right["direct"]! += direct == expected ? 1 : 0
            lines.append(try Self.line(index < 3 ? "first" : "second", question, expected))
        }
        let found = try report(["--questions", try Self.file(lines)])
        #expect(found["count"] as? Int == 6)
        #expect(right["thinking"] == 3)
        for (key, mode) in [("with_thinking", "thinking"), ("without_thinking", "direct")] {
            let share = try #require(found[key] as? Double)
            #expect(abs(share - Double(right[mode]!) / 6) < 1e-6, "\(key)")
        }
        let kinds = try #require(found["kinds"] as? [[String: Any]])
        #expect(kinds.map { $0["kind"] as? String } == ["first", "second"])
        #expect(kinds.map { $0["count"] as? Int } == [3, 3])
        #expect(abs((kinds[0]["with_thinking"] as? Double ?? 0) - 2.0 / 3) < 1e-6)
        #expect(abs((kinds[1]["with_thinking"] as? Double ?? 0) - 1.0 / 3) < 1e-6)
    }

    @Test func theSeedChoosesAndNothingElseDoes() throws {
        // Answers that no model gives, so that --show names every question that was put.
        let file = try Self.file(try (0..<40).map { try Self.line("sums", "What is \($0) + 1?", "none") })
        func put(_ arguments: [String]) throws -> Set<String> {
            let all = ["task", "--model", TestModels.demo, "--questions", file, "--no-direct", "--show", "40"]
            let result = try Subprocess.run("sigma-eval", all + arguments)
            #expect(result.code == 0, "\(result.errors)")
            return Set(result.errors.split(separator: "\n").map(String.init).filter { $0.contains("What is") })
        }
        let first = try put(["--count", "6", "--seed", "4"])
        #expect(first.count == 6)
        #expect(try put(["--count", "6", "--seed", "4", "--threads", "1"]) == first)
        #expect(try put(["--count", "6", "--seed", "5"]) != first)
        #expect(try put(["--count", "40"]).count == 40)
    }

    @Test func onlyTheKindsAskedFor() throws {
        let file = try Self.file([
            try Self.line("a", "What is 1 + 1?", "x"), try Self.line("b", "What is 2 + 1?", "x"),
            try Self.line("c", "What is 3 + 1?", "x"),
        ])
        let found = try report(["--questions", file, "--kind", "c", "--kind", "a", "--no-direct"])
        let kinds = try #require(found["kinds"] as? [[String: Any]])
        #expect(kinds.map { $0["kind"] as? String } == ["a", "c"])
        #expect(found["without_thinking"] == nil && kinds[0]["without_thinking"] == nil)
    }

    @Test func wrongUsage() throws {
        let file = try Self.file([try Self.line("a", "What is 1 + 1?", "x")])
        for (arguments, code) in [
            (["--count", "0"], 64), (["--kind", "b"], 64), (["--seed", "-1"], 64),
            (["--questions", Scratch.path("missing")], 66),
            (["--questions", try Scratch.file("empty", "\n")], 65),
            (["--questions", try Scratch.file("keys", "{\"kind\":\"a\",\"question\":\"b\"}\n")], 65),
            (["--questions", try Scratch.file("text", "What is 1 + 1?\n")], 65),
        ] as [([String], Int32)] {
            let given = arguments.contains("--questions") ? arguments : arguments + ["--questions", file]
            let result = try Subprocess.run("sigma-eval", ["task", "--model", TestModels.demo] + given)
            #expect(result.code == code, "\(arguments): \(result.errors)")
            #expect(result.output.isEmpty)
        }
    }

    /// The questions that come with the demo model are there, and the demo model answers most of them.
    @Test func theDemoModelsOwnQuestions() throws {
        let found = try report(["--count", "4", "--no-direct"])
        #expect(found["count"] as? Int == 44)
        #expect(try #require(found["with_thinking"] as? Double) > 0.75)
    }
}
