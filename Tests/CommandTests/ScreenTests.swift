import Foundation
import SystemLibrary
import Testing

/// What people and pipes see; interrupts and readers that go away.
@Suite struct ScreenTests {
    static let question = ["--model", TestModels.demo, "--prompt", "What is 12 + 35?", "--seed", "3"]

    @Test func placesOfThinking() throws {
        let json = try JSONRun(Self.question)
        let (thinking, answer) = (json.text("thinking"), json.text("answer"))
        #expect(!thinking.isEmpty && !answer.isEmpty)
        let byDefault = try Subprocess.run("sigma-run", Self.question)
        #expect(byDefault.text == answer + "\n")
        #expect(byDefault.errors == thinking + (thinking.hasSuffix("\n") ? "" : "\n"))
        let none = try Subprocess.run("sigma-run", Self.question + ["--thinking", "none"])
        #expect(none.text == answer + "\n")
        #expect(none.errors.isEmpty)
        let both = try Subprocess.run("sigma-run", Self.question + ["--thinking", "stdout"])
        #expect(both.text.hasPrefix(thinking))
        #expect(both.text.hasSuffix("\n\n" + answer + "\n"))
        #expect(both.errors.isEmpty)
        // No colour outside a terminal.
        #expect(!(byDefault.text + byDefault.errors + both.text).contains("\u{1b}"))
    }

    @Test func rawTextIsLeftAsItIs() throws {
        let arguments = [
            "--model", TestModels.demo, "--raw", "--prompt", "<|user|>2 + 2", "--max-tokens", "9", "--seed", "1",
        ]
        #expect(try Subprocess.run("sigma-run", arguments).text == JSONRun(arguments).text("answer"))
    }

    @Test func idsWithoutATokenizer() throws {
        let arguments = ["--model", TestModels.bare, "--tokens", "1,2", "--max-tokens", "4", "--seed", "1"]
        let ids = try JSONRun(arguments).ids.map(String.init).joined(separator: " ")
        #expect(try Subprocess.run("sigma-run", arguments).text == ids)
    }

    @Test func stopStrings() throws {
        let greedy = ["--model", TestModels.demo, "--no-think", "--temperature", "0", "--prompt", "What is 12 + 35?"]
        let whole = try JSONRun(greedy).text("answer")
        try #require(whole.count >= 6)
        for start in 1..<(whole.count - 2) {
            let from = whole.index(whole.startIndex, offsetBy: start)
            let stop = String(whole[from..<whole.index(from, offsetBy: 2)])
            let place = try #require(whole.range(of: stop)).lowerBound
            let result = try Subprocess.run("sigma-run", greedy + ["--stop", "never said", "--stop", stop])
            #expect(result.text == (place == whole.startIndex ? "" : whole[..<place] + "\n"))
            let run = try JSONRun(greedy + ["--stop", stop])
            #expect(run.text("answer") == whole[..<place])
            #expect(run.done["reason"] as? String == "stop")
        }
        // What could have become a stop string comes with the end.
        let unfinished = String(whole.suffix(3)) + "..."
        #expect(try JSONRun(greedy + ["--stop", unfinished]).text("answer") == whole)
        #expect(try Subprocess.run("sigma-run", greedy + ["--stop", unfinished]).text == whole + "\n")
    }

    @Test func statistics() throws {
        let result = try Subprocess.run("sigma-run", Self.question + ["--stats", "--thinking", "none"])
        for label in ["prompt", "first token", "tokens/s", "GB/s", "expert cache", "disk read", "peak memory", "seed"] {
            #expect(result.errors.contains(label))
        }
    }

    // MARK: - Interrupts and closed pipes

    static let endless = [
        "--model", TestModels.bare, "--tokens", "1,2", "--context", "4000000", "--max-tokens", "4000000",
    ]

    @Test func interruptsEndTheGeneration() throws {
        let process = try Subprocess("sigma-run", Self.endless + ["--json"])
        var output = process.read()
        while output.filter({ $0 == UInt8(ascii: "\n") }).count < 5 { output += process.read() }
        kill(process.pid, SIGINT)
        output += process.readToEnd()
        #expect(process.wait().code == 130)
        let events = try JSONRun.events(output)
        #expect(events.last?.name == "done")
        #expect(events.last?["reason"] as? String == "interrupted")
        #expect(events.last?.stat("answer_tokens") == events.count - 2)
    }

    @Test func interruptsShowStatistics() throws {
        let process = try Subprocess("sigma-run", Self.endless)
        _ = process.read()
        kill(process.pid, SIGINT)
        _ = process.readToEnd()
        let (code, errors) = process.wait()
        #expect(code == 130)
        #expect(errors.contains("tokens/s"))
        #expect(!errors.contains("error"))
    }

    @Test func interruptsBeforeTheGeneration() throws {
        // Waits for a prompt that never comes.
        let fifo = Scratch.path("fifo")
        try #require(mkfifo(fifo, 0o600) == 0)
        let process = try Subprocess("sigma-run", [fifo, "--model", TestModels.demo])
        // The handler is installed well before the file is opened: once we can open the other end, it is there.
        let end = open(fifo, O_WRONLY | O_CLOEXEC)
        kill(process.pid, SIGINT)
        _ = process.readToEnd()
        #expect(process.wait().code == 130)
        close(end)
    }

    /// A signal is obeyed while nothing comes.
    @Test(arguments: [
        ("sigma-run", ["--batch"]), ("sigma-eval", ["routing"]), ("sigma-eval", ["constraints"]),
        ("sigma-eval", ["loglikelihood"]), ("sigma-eval", ["perplexity"]),
    ])
    func interruptsWhileInputIsAwaited(_ command: String, _ arguments: [String]) throws {
        let fifo = Scratch.path("fifo")
        try #require(mkfifo(fifo, 0o600) == 0)
        let process = try Subprocess(command, arguments + [fifo, "--model", TestModels.demo])
        // Once we can open this end, the command has the other.
        let end = open(fifo, O_WRONLY | O_CLOEXEC)
        kill(process.pid, SIGTERM)
        _ = process.readToEnd()
        #expect(process.wait().code == 130)
        close(end)
    }

    @Test(arguments: [[], ["--json"]]) func closedPipesEndQuietly(options: [String]) throws {
        let process = try Subprocess("sigma-run", Self.endless + options)
        _ = process.read()
        close(process.output)
        let (code, errors) = process.wait()
        #expect(code == 0)
        #expect(!errors.contains("error"))
    }

    @Test(.enabled("there is no /dev/full") { FileManager.default.fileExists(atPath: "/dev/full") })
    func fullDisksAreTold() throws {
        let command = try Subprocess.path(of: "sigma-run")
        let script = "exec '\(command)' --model '\(TestModels.bare)' --tokens 1 --max-tokens 3 > /dev/full"
        let result = try Subprocess.run("/bin/sh", ["-c", script])
        #expect(result.code == 74)
        #expect(result.errors.contains("standard output"))
    }

    @Test func closedStandardStreams() throws {
        let command = try Subprocess.path(of: "sigma-run")
        for (arguments, code) in [
            ("- <&-", 74), ("--tokens 1 --max-tokens 3 >&-", 74), ("--tokens 1 --max-tokens 3 2>&-", 0),
        ]
            as [(String, Int32)]
        {
            let script = "exec '\(command)' --model '\(TestModels.bare)' \(arguments)"
            #expect(try Subprocess.run("/bin/sh", ["-c", script]).code == code)
        }
    }
}
