import Foundation
import SigmaTerminal
import Testing

/// What comes from a model or a file reaches no terminal raw, and every pipe as it is.
@Suite struct TerminalTextTests {
    /// A window's title, the clipboard, the screen and a cursor key's answer, in seven and in eight bits.
    static let evil = "a\u{1b}]0;PWNED\u{7}b\u{1b}]52;c;ZXZpbA==\u{7}c\u{1b}[2Jd\u{9b}2Je\r\u{8}f\u{7f}g"
    static let shown = "a^[]0;PWNED^Gb^[]52;c;ZXZpbA==^Gc^[[2Jd^[[2Je^M^Hf^?g"
    /// Has the model say it: as the end of its thinking.
    static let arguments = [
        "--model", TestModels.demo, "--threads", "1", "--temperature", "0", "--thinking-budget", "0",
        "--closing-phrase",
        evil, "--prompt", "What is 2 + 3?",
    ]

    /// Control characters that are neither line ends nor sequences of ours.
    private func foreign(_ output: [UInt8]) -> [Unicode.Scalar] {
        var text = String(decoding: output, as: UTF8.self)
        for own in ["\u{1b}[2m", "\u{1b}[0m", "\u{1b}[31m", "\u{1b}[33m", "\r\u{1b}[K", "\r\n"] {
            text = text.replacingOccurrences(of: own, with: "")
        }
        return text.unicodeScalars.filter {
            ($0.value < 0x20 && $0 != "\n" && $0 != "\t") || (0x7f..<0xa0).contains($0.value)
        }
    }

    @Test(arguments: ["stdout", "stderr"]) func thinkingOnATerminal(place: String) throws {
        for kind in ["xterm", "dumb"] {
            let terminal = try ChatProcess(
                Self.arguments + ["--thinking", place], columns: 200, environment: ["TERM": kind])
            #expect(try terminal.end() == 0)
            #expect(foreign(terminal.output).isEmpty, "\(foreign(terminal.output))")
            #expect(terminal.screen.text.contains(Self.shown), "\(terminal.screen.text)")
        }
    }

    @Test func pipesGetTheBytes() throws {
        let result = try Subprocess.run("sigma-run", Self.arguments + ["--thinking", "stdout"])
        #expect(result.code == 0 && result.text.contains(Self.evil))
        let lines = try JSONRun(Self.arguments)
        #expect(lines.events.contains { $0.name == "closing" && $0.text.contains(Self.evil) })
    }

    /// JSON on a terminal is JSON, and the same.
    @Test func jsonOnATerminal() throws {
        let terminal = try ChatProcess(Self.arguments + ["--json"], columns: 2000)
        #expect(try terminal.end() == 0)
        #expect(foreign(terminal.output).isEmpty)
        let events = try JSONRun.events(terminal.output.filter { $0 != UInt8(ascii: "\r") })
        #expect(events.contains { $0.name == "closing" && $0.text.contains(Self.evil) })
    }

    /// What a model says at random has control characters, too.
    @Test func answersOnATerminal() throws {
        let arguments = [
            "--model", TestModels.endless, "--threads", "1", "--no-think", "--temperature", "20", "--top-k", "0",
            "--top-p",
            "1", "--seed", "3", "--max-tokens", "1500", "--prompt", "a",
        ]
        let pipe = try Subprocess.run("sigma-run", arguments)
        try #require(!foreign(pipe.output).isEmpty, "the model says nothing evil")
        let terminal = try ChatProcess(arguments)
        #expect(try terminal.end() == 0)
        #expect(foreign(terminal.output).isEmpty)
    }

    @Test func theOtherCommands() throws {
        let file = try Scratch.file("evil.txt", Self.evil)
        let ids = try Subprocess.run("sigma-eval", ["tokenize", "--model", TestModels.demo, file])
        #expect(ids.code == 0)
        let list = try Scratch.file("ids.json", ids.output)
        let decode = ["tokenize", "--decode", "--model", TestModels.demo, list]
        #expect(try Subprocess.run("sigma-eval", decode).text == Self.evil)
        let decoded = try ChatProcess(decode, command: "sigma-eval", columns: 200)
        #expect(try decoded.end() == 0)
        #expect(foreign(decoded.output).isEmpty && decoded.screen.text.contains(Self.shown))

        // The name of a file, in an error, in a note and in a table.
        let folder = Scratch.path("fo\u{1b}]0;x\u{7}lder\u{9b}2J")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let model = folder + "/\u{1b}[2J.gguf"
        try FileManager.default.copyItem(atPath: TestModels.demo, toPath: model)
        for (command, arguments) in [
            ("sigma-convert", ["--inspect", model]), ("sigma-convert", ["--inspect", folder + "/none"]),
            ("sigma-convert", [model, folder + "/plain.gguf", "--plain-gguf"]),
            ("sigma-convert", [model, folder + "/none/other.gguf"]),
            ("sigma-eval", ["tokenize", "--model", folder, file]),
            ("sigma-bench", ["--model", folder + "/none"]),
            ("sigma-run", ["--model", model, "--\u{1b}]0;x\u{7}option"]),
        ] {
            let terminal = try ChatProcess(arguments, command: command, columns: 300)
            _ = try terminal.end()
            #expect(!terminal.output.isEmpty)
            #expect(foreign(terminal.output).isEmpty, "\(command) \(arguments)")
        }
    }

    @Test func jsonEscapes() {
        #expect(DisplayText.escapedInJSON("{\"a\":\"\u{9b}\u{7f}é\"}\n") == "{\"a\":\"\\u009b\\u007fé\"}\n")
        #expect(DisplayText.escapedInJSON("{}") == "{}")
    }
}
