import Foundation
import SystemLibrary
import Testing

/// `sigma-run --batch`: exactly one result for each line, whatever interrupts it.
@Suite struct BatchCommandTests {
    private static func lines(_ count: Int) -> String {
        (0..<count).map {
            #"{"custom_id":"q\#($0)","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"What is \#(100 + $0) + 35?"}],"temperature":0}}"#
        }.joined(separator: "\n") + "\n"
    }

    private static func file(_ text: String) throws -> String {
        let path = Scratch.path("batch.jsonl")
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        return path
    }

    private static func ids(_ path: String) throws -> [String] {
        try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
            return try #require(object?["custom_id"] as? String)
        }
    }

    private static func wholeLines(_ path: String) -> Int {
        (try? String(contentsOfFile: path, encoding: .utf8))?.count { $0 == "\n" } ?? 0
    }

    @Test func resultsGoToStandardOutput() throws {
        let run = try Subprocess.run(
            "sigma-run", ["--model", TestModels.demo, "--batch", "-"], input: Array(Self.lines(3).utf8))
        #expect(run.code == 0 && run.lines.count == 3 && !run.errors.contains("warning"))
        #expect(run.text.contains("100 + 35 = 135."))
        // What the lines don't say is not taken from options, and that is said.
        for option in [["--temperature", "0"], ["--no-think"], ["--choice", "a"], ["--system", "a"], ["--stats"]] {
            let warned = try Subprocess.run(
                "sigma-run", ["--model", TestModels.demo, "--batch", "-"] + option, input: Array(Self.lines(1).utf8))
            #expect(warned.code == 0 && warned.errors.contains("no effect on a batch"), "\(option)")
        }
    }

    /// Killed at any moment and begun again, until it is done.
    @Test func killedRunsGoOn() throws {
        // Answers of all lengths, so that they end one after the other.
        let lines = (0..<30).map {
            #"{"custom_id":"q\#($0)","method":"POST","url":"/v1/completions","body":{"prompt":"What is \#($0)?","max_tokens":\#(10 * ($0 + 1)),"temperature":0}}"#
                + "\n"
        }
        let (input, output) = (try Self.file(lines.joined()), Scratch.path("results.jsonl"))
        let arguments = ["--model", TestModels.endless, "--batch", input, "--output", output]
        for round in 1...5 {
            let process = try Subprocess("sigma-run", arguments)
            // Until it has written some more, and a moment that differs.
            for _ in 0..<600_000 {
                if Self.wholeLines(output) >= 4 * round { break }
                usleep(1000)
            }
            #expect(Self.wholeLines(output) >= 4 * round)
            usleep(UInt32(round * 1700))
            kill(process.pid, round % 2 == 0 ? SIGKILL : SIGTERM)
            _ = process.readToEnd()
            _ = process.wait()
            #expect(Self.wholeLines(output) < 30, "it was done before it was killed")
        }
        // A line that was not written whole.
        let handle = try #require(FileHandle(forWritingAtPath: output))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data(#"{"id":"line-30","custom_id":"q29","resp"#.utf8))
        try handle.close()
        #expect(try Subprocess.run("sigma-run", arguments).code == 0)
        let ids = try Self.ids(output)
        #expect(ids.count == 30 && Set(ids).count == 30)
        let again = try Subprocess.run("sigma-run", arguments)
        #expect(again.code == 0 && again.errors.contains("0 lines are left"))
        #expect(try Self.ids(output).count == 30)
    }

    private static func line(_ id: String) -> String {
        #"{"custom_id":"\#(id)","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"What is 1 + 2?"}],"temperature":0,"max_tokens":4}}"#
            + "\n"
    }

    /// Wherever they stand in another file with the same output, and whatever has stood there before.
    @Test func linesAreKnownByTheirIds() throws {
        let output = Scratch.path("results.jsonl")
        func run(_ ids: [String]) throws -> Subprocess.Result {
            try Subprocess.run(
                "sigma-run",
                ["--model", TestModels.demo, "--batch", Self.file(ids.map(Self.line).joined()), "--output", output])
        }
        #expect(try run(["a"]).code == 0)
        let second = try run(["c", "a", "b"])
        #expect(second.code == 0 && second.errors.contains("1 results are there already; 2 lines are left."))
        #expect(try Self.ids(output).sorted() == ["a", "b", "c"])
        // As bytes: the same letter in two forms makes two ids.
        #expect(try run([#"\u00e9"#]).code == 0)
        #expect(try run([#"\u00e9"#, #"e\u0301"#]).code == 0)
        #expect(try Self.ids(output).count == 5)
    }

    @Test func whatIsRefused() throws {
        let input = try Self.file(Self.lines(2))
        let other = try Self.file("something else\n")
        let twice = try Self.file(Self.lines(1) + Self.lines(1))
        for (arguments, code) in [
            (["--batch", input, "--output", other], 65), (["--batch", twice], 65), (["--batch", "/nowhere"], 66),
            (["--batch", "/dev/zero"], 65), (["--batch", input, "--output", "/nowhere/results"], 66),
            (["--batch", input, "--output", "/dev/null"], 64), (["--batch", input, "--prompt", "a"], 64),
            (["--output", other, "--prompt", "a"], 64), (["--batch", input, "--json"], 64),
        ] as [([String], Int32)] {
            let run = try Subprocess.run("sigma-run", ["--model", TestModels.demo] + arguments)
            #expect(run.code == code && run.output.isEmpty, "\(arguments): \(run.errors)")
        }
        #expect(try String(contentsOfFile: other, encoding: .utf8) == "something else\n")
        // What has no line end is no result that was cut, nor is the input.
        for (text, code) in [(#"{"name":"the only copy"}"#, 65), (Self.lines(1).trimmingCharacters(in: .newlines), 64)]
        {
            let file = try Self.file(text)
            let run = try Subprocess.run(
                "sigma-run", ["--model", TestModels.demo, "--batch", code == 64 ? file : input, "--output", file])
            #expect(Int(run.code) == code, "\(run.errors)")
            #expect(try String(contentsOfFile: file, encoding: .utf8) == text)
        }
    }
}
