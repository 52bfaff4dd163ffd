import Foundation
import SigmaBase
import SystemLibrary
import Testing

/// A pipe or a device where a file is expected is refused or used, and never waited for.
@Suite struct SpecialFileTests {
    private let pipe: String
    private let text: String

    init() throws {
        pipe = Scratch.path("pipe")
        try #require(mkfifo(pipe, 0o600) == 0)
        text = try Scratch.file("text.txt", "What is 2 + 3?\n")
    }

    /// The command with its time limited: a wait would have no end.
    private func run(_ command: String, _ arguments: [String]) throws -> Subprocess.Result {
        try Subprocess.run("/usr/bin/env", ["timeout", "-s", "KILL", "600", Subprocess.path(of: command)] + arguments)
    }

    /// Every place of a file that is read.
    @Test func pipesWithoutAWriter() throws {
        let demo = ["--model", TestModels.demo]
        for (command, arguments) in [
            ("sigma-run", [pipe] + demo), ("sigma-run", ["--prompt", "a", "--system-file", pipe] + demo),
            ("sigma-run", ["--prompt", "a", "--model", pipe]),
            ("sigma-eval", ["routing", "--replay", pipe] + demo), ("sigma-eval", ["routing", pipe] + demo),
            ("sigma-eval", ["perplexity", pipe] + demo), ("sigma-eval", ["tokenize", pipe] + demo),
            ("sigma-eval", ["tokenize", "--decode", pipe] + demo),
            ("sigma-eval", ["task", "--questions", pipe] + demo),
            ("sigma-eval", ["compare", "--reference", pipe, text] + demo), ("sigma-eval", ["head", pipe] + demo),
            ("sigma-eval", ["imatrix", pipe, "--output", Scratch.path("out.imatrix")] + demo),
            ("sigma-bench", ["simulate", "--memory", "1GiB", "--trace", pipe] + demo),
            ("sigma-convert", [pipe, Scratch.path("out.gguf")]),
            ("sigma-convert", ["--inspect", pipe]),
            ("sigma-convert", [TestModels.demo, Scratch.path("out.gguf"), "--imatrix", pipe]),
        ] {
            let result = try run(command, arguments)
            #expect([65, 66].contains(result.code), "\(command) \(arguments): \(result.code) \(result.errors)")
            #expect(result.output.isEmpty && result.errors.contains(pipe), "\(command) \(arguments): \(result.errors)")
        }
    }

    @Test func pipesWithoutAReader() throws {
        let demo = ["--model", TestModels.demo]
        for (command, arguments, codes) in [
            ("sigma-run", ["--tokens", "5", "--max-tokens", "1", "--expert-trace", pipe] + demo, [74]),
            ("sigma-eval", ["routing", text, "--plot", pipe] + demo, [74]),
            ("sigma-eval", ["routing", text, "--expert-trace", pipe] + demo, [74]),
            ("sigma-eval", ["imatrix", text, "--output", pipe] + demo, [64]),
            ("sigma-convert", [TestModels.demo, pipe], [64]),
        ] as [(String, [String], [Int32])] {
            let result = try run(command, arguments)
            #expect(codes.contains(result.code), "\(command) \(arguments): \(result.code) \(result.errors)")
            #expect(result.errors.contains(pipe), "\(command) \(arguments): \(result.errors)")
        }
    }

    /// As a shell's `<(...)` and `>(...)`: whatever comes is read, however late, and a reader gets all of it.
    @Test func pipesWithAnotherEnd() throws {
        let trace = Scratch.path("experts.trace")
        let demo = ["--model", TestModels.demo]
        #expect(try run("sigma-eval", ["routing", text, "--expert-trace", trace] + demo).code == 0)
        let plain = try run("sigma-eval", ["routing", "--json", "--replay", trace] + demo)
        #expect(plain.code == 0 && !plain.output.isEmpty)
        let command = try Subprocess.path(of: "sigma-eval")
        func shell(_ script: String) throws -> Subprocess.Result {
            try Subprocess.run(
                "/usr/bin/env",
                ["timeout", "-s", "KILL", "600", "bash", "-c", script, "bash", command, TestModels.demo, trace, text])
        }
        let late = try shell(
            "\"$1\" routing --json --model \"$2\" --replay <(sleep 0.3; head -c 100 \"$3\"; sleep 0.3; tail -c +101 \"$3\")"
        )
        #expect(late.code == 0 && late.output == plain.output, "\(late.errors)")
        let copied = try shell(
            "\"$1\" routing --model \"$2\" \"$4\" --expert-trace >(cat > \"$3.copy\") > /dev/null && for i in {1..600}; do cmp -s \"$3\" \"$3.copy\" && exit 0; sleep 0.1; done; exit 1"
        )
        #expect(copied.code == 0, "\(copied.errors)")
        let figure = try shell("\"$1\" routing --model \"$2\" \"$4\" --plot /dev/stdout | tail -c 400000")
        #expect(figure.code == 0 && figure.text.contains("</svg>"), "\(figure.errors)")
    }

    @Test func devices() throws {
        let demo = ["--model", TestModels.demo]
        for device in ["/dev/zero", "/dev/null"] {
            for (command, arguments) in [
                ("sigma-run", ["--prompt", "a", "--model", device]),
                ("sigma-eval", ["routing", "--replay", device] + demo),
                ("sigma-bench", ["simulate", "--memory", "1GiB", "--trace", device] + demo),
                ("sigma-convert", ["--inspect", device]),
                ("sigma-convert", [device, Scratch.path("out.gguf")]),
            ] {
                let result = try run(command, arguments)
                #expect(result.code == 65, "\(command) \(arguments): \(result.code) \(result.errors)")
            }
        }
        let endless = try run("sigma-run", ["/dev/zero"] + demo)
        #expect(endless.code == 65 && endless.errors.contains("expected at most"), "\(endless.errors)")
        let refused = try run("sigma-convert", [TestModels.demo, "/dev/null"])
        #expect(refused.code == 64)
        var status = stat()
        #expect(stat("/dev/null", &status) == 0 && status.st_mode & S_IFMT == S_IFCHR)
    }

    /// What a checkpoint's folder has in a file's place.
    @Test(arguments: [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    ])
    func pipesInACheckpoint(name: String) throws {
        let folder = Scratch.path("checkpoint")
        try FileManager.default.copyItem(
            atPath: packageRoot + "/Tests/Fixtures/reference/qwen3moe", toPath: folder)
        try? FileManager.default.removeItem(atPath: folder + "/" + name)
        try #require(mkfifo(folder + "/" + name, 0o600) == 0)
        let result = try run("sigma-convert", [folder, Scratch.path("out.gguf")])
        #expect([65, 66].contains(result.code), "\(result.code) \(result.errors)")
        #expect(result.errors.contains(name), "\(result.errors)")
    }

    /// A figure appears whole or not at all, and keeps what it replaces until then.
    @Test func figuresOfAFullDisk() throws {
        let script =
            "mkdir \"$1\" && mount -t tmpfs -o size=16k none \"$1\" && echo old > \"$1/a.svg\" && \"$2\" routing \"$3\" --model \"$4\" --plot \"$1/a.svg\" > /dev/null; code=$?; cat \"$1\"/*; exit $code"
        let result = try Subprocess.run(
            "/usr/bin/env",
            [
                "unshare", "-rm", "sh", "-c", script, "sh", Scratch.path("disk"), Subprocess.path(of: "sigma-eval"),
                text,
                TestModels.demo,
            ])
        if result.errors.contains("unshare") || result.errors.contains("mount") {
            try Test.cancel("no namespaces here")
        }
        #expect(result.code == 74 && result.text == "old\n", "\(result.code) \(result.errors)")
    }
}
