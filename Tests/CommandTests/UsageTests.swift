import Foundation
import Sigma
import Testing

/// Exit codes, and errors of one or two lines.
@Suite struct UsageTests {
    static let wrong: [[String]] = [
        [],
        ["--prompt", "a", "--tokens", "1"],
        ["--prompt", "a", "file.txt"],
        ["--tokens", "1", "file.txt"],
        ["--prompt", ""],
        ["--tokens", ""],
        ["--tokens", "1,x"],
        ["--tokens", "1,,2"],
        ["--tokens", "-1"],
        ["--tokens", "99999999999"],
        ["--prompt", "a", "--temperature", "-1"],
        ["--prompt", "a", "--temperature", "nan"],
        ["--prompt", "a", "--top-k", "-1"],
        ["--prompt", "a", "--top-p", "0"],
        ["--prompt", "a", "--top-p", "1.5"],
        ["--prompt", "a", "--min-p", "2"],
        ["--prompt", "a", "--max-tokens", "-1"],
        ["--prompt", "a", "--thinking-budget", "-1"],
        ["--prompt", "a", "--logprobs", "-1"],
        ["--prompt", "a", "--seed", "-1"],
        ["--prompt", "a", "--threads", "0"],
        ["--prompt", "a", "--context", "0"],
        ["--prompt", "a", "--stop", ""],
        ["--prompt", "a", "--kv-type", "f64"],
        ["--prompt", "a", "--thinking", "here"],
        ["--prompt", "a", "--memory", "lots"],
        ["--prompt", "a", "--expert-cache", "some"],
        ["--prompt", "a", "--backend", "abacus"],
        ["--prompt", "a", "--system", "b", "--system-file", "c"],
        ["--prompt", "a", "--raw", "--system", "b"],
        ["-", "--system-file", "-"],
        ["--no-such-option"],
        ["--prompt", "a", "--regex", "a", "--choice", "b"],
        ["--prompt", "a", "--json-schema", "{}", "--regex", "a"],
        ["--prompt", "a", "--json-schema", "true", "--choice", "b"],
        ["--prompt", "a", "--json-schema", "{"],
        ["--prompt", "a", "--json-schema", "{\"type\":7}"],
        ["--prompt", "a", "--json-schema", "false"],
        ["--prompt", "a", "--regex", "("],
        ["--prompt", "a", "--regex", "(?<=a)b"],
        ["--prompt", "a", "--regex", "a\\b"],
    ]

    @Test(arguments: wrong) func wrongUsage(arguments: [String]) throws {
        let result = try Subprocess.run("sigma-run", arguments + ["--model", TestModels.demo])
        #expect(result.code == 64, "\(result.errors)")
        #expect(result.output.isEmpty)
        #expect(!result.errors.isEmpty)
    }

    @Test func wrongUsageThatTheModelShows() throws {
        for (arguments, word) in [
            (["--tokens", "1,96"], "96"), (["--tokens", "1", "--logprobs", "97"], "96"),
            (["--tokens", "1,2,3,4", "--context", "3"], "context"),
        ] {
            let result = try Subprocess.run("sigma-run", arguments + ["--model", TestModels.bare])
            #expect(result.code == 64)
            expectShort(result.errors, word)
        }
    }

    /// A constraint that cannot be honoured is named by its option or file, and a schema's place in it.
    @Test func constraintsThatCannotBeHonoured() throws {
        let schema = #"{"properties":{"a":{"type":"array","uniqueItems":true}}}"#
        let file = try Scratch.file("schema.json", schema)
        let notSchema = try Scratch.file("number.json", "7")
        for (arguments, code, words) in [
            (["--json-schema", schema], 64, ["--json-schema", "#/properties/a/uniqueItems"]),
            (["--json-schema", file], 64, [file, "#/properties/a/uniqueItems"]),
            (["--json-schema", notSchema], 64, [notSchema]),
            (["--json-schema", Scratch.path("missing.json")], 66, ["missing.json"]),
            (["--regex", "a("], 64, ["--regex"]),
            (["--regex", "a", "--choice", "b"], 64, ["--json-schema, --regex and --choice"]),
        ] as [([String], Int32, [String])] {
            let result = try Subprocess.run("sigma-run", ["--prompt", "a", "--model", TestModels.demo] + arguments)
            #expect(result.code == code && result.output.isEmpty, "\(result.errors)")
            for word in words { expectShort(result.errors, word) }
        }
        // A model without tokenizer has nothing to constrain.
        let bare = try Subprocess.run("sigma-run", ["--tokens", "1", "--choice", "a", "--model", TestModels.bare])
        #expect(bare.code == 65)
        expectShort(bare.errors, "no tokenizer")
    }

    @Test func argumentsThatAreNotUTF8() throws {
        // Through a shell, since Swift strings cannot hold it.
        let command = try Subprocess.path(of: "sigma-run")
        let file = try Scratch.file("script", Array("exec '\(command)' --prompt 'a".utf8) + [0xff] + Array("'".utf8))
        let result = try Subprocess.run("/bin/sh", [file])
        #expect(result.code == 64)
        expectShort(result.errors, "UTF-8")
    }

    @Test func inputs() throws {
        let missing = Scratch.path("missing.txt")
        let notText = try Scratch.file("bytes.txt", [0x61, 0x62, 0xc3, 0x28])
        for (arguments, code, word) in [
            ([missing], 66, missing), ([Scratch.folder], 65, "folder"), ([notText], 65, "byte 2"),
            (["--prompt", "a", "--system-file", missing], 66, missing),
        ] as [([String], Int32, String)] {
            let result = try Subprocess.run("sigma-run", arguments + ["--model", TestModels.demo])
            #expect(result.code == code)
            expectShort(result.errors, word)
        }
    }

    @Test func models() throws {
        let whole = Array(try Data(contentsOf: URL(fileURLWithPath: TestModels.bare)))
        var foreign = GGUFWriter(architecture: "qwen3moe", alignment: 32)
        foreign.set("general.name", "foreign")
        let foreignFile = try Scratch.file("foreign.gguf", foreign.layout().header)
        let checkpoint = packageRoot + "/Tests/Fixtures/reference/sigma-top1"
        for (path, code, word) in [
            (Scratch.path("missing.gguf"), 66, "missing.gguf"),
            (checkpoint, 65, "sigma-convert"),
            (foreignFile, 65, "sigma-convert"),
            (try Scratch.file("empty.gguf", []), 65, "empty"),
            (try Scratch.file("text.gguf", "This is no model."), 65, "text.gguf"),
            (try Scratch.file("short.gguf", Array(whole.prefix(whole.count / 2))), 65, "short.gguf"),
            (try Scratch.file("header.gguf", Array(whole.prefix(100))), 65, "header.gguf"),
        ] as [(String, Int32, String)] {
            for (command, arguments) in [
                ("sigma-run", ["--tokens", "1"]), ("sigma-eval", ["perplexity", checkpoint + "/config.json"]),
                ("sigma-eval", ["tokenize", checkpoint + "/config.json"]),
            ] {
                let result = try Subprocess.run(command, arguments + ["--model", path])
                #expect(result.code == code, "\(command) \(path)")
                #expect(result.output.isEmpty)
                expectShort(result.errors, word)
            }
        }
    }

    @Test func modelsWithoutTokenizer() throws {
        for arguments in [["--prompt", "a"], ["--raw", "--prompt", "a"]] {
            let result = try Subprocess.run("sigma-run", arguments + ["--model", TestModels.bare])
            #expect(result.code == 65)
            expectShort(result.errors, "tokenizer")
        }
    }

    @Test func whatIsNotAvailable() throws {
        for (arguments, environment) in [
            (["--backend", "cuda"], ["SIGMA_CUDA_DRIVER": "/nonexistent/libcuda.so"]),
            (["--expert-cache", "1KiB", "--backend", "cpu"], [:]), (["--memory", "1KiB", "--backend", "cpu"], [:]),
        ] {
            let result = try Subprocess.run(
                "sigma-run", ["--tokens", "1", "--model", TestModels.bare] + arguments, environment: environment)
            #expect(result.code == 69)
            expectShort(result.errors, "")
        }
        let result = try Subprocess.run(
            "sigma-run", ["--tokens", "1", "--model", TestModels.bare], environment: ["SIGMA_INSTRUCTION_SET": "abacus"]
        )
        #expect(result.code == 69)
    }

    @Test(arguments: [
        ["--backend", "cpu"], ["--backend", "auto"], ["--expert-cache", "all"], ["--expert-cache", "auto"],
        ["--expert-cache", "8GiB"], ["--memory", "4GiB"], ["--kv-type", "q8_0"], ["--kv-type", "f32"],
        ["--threads", "3"],
    ]) func whatIsAvailable(arguments: [String]) throws {
        let run = try JSONRun(["--tokens", "1,2", "--max-tokens", "3", "--model", TestModels.bare] + arguments)
        #expect(run.ids.count == 3)
    }

    @Test func extremeValues() throws {
        let most = "\(Int.max)"
        for arguments in [
            ["--max-tokens", most, "--context", "5"], ["--context", most], ["--top-k", most],
            ["--thinking-budget", most],
            ["--seed", "\(UInt64.max)"], ["--temperature", "1e308"], ["--temperature", "1e-308"],
            ["--top-p", "1e-300"],
            ["--min-p", "1"], ["--memory", "4000000000GiB"], ["--expert-cache", "4000000000GiB"], ["--threads", "256"],
        ] {
            let result = try Subprocess.run(
                "sigma-run", ["--tokens", "1,2", "--max-tokens", "2", "--model", TestModels.bare] + arguments)
            #expect(result.code == 0, "\(arguments): \(result.errors)")
        }
    }

    @Test func theModelOfTheEnvironment() throws {
        let arguments = ["--tokens", "1", "--max-tokens", "2"]
        let named = try Subprocess.run("sigma-run", arguments, environment: ["SIGMA_MODEL": TestModels.bare])
        #expect(named.code == 0)
        let missing = try Subprocess.run(
            "sigma-run", arguments, environment: ["SIGMA_MODEL": Scratch.path("none.gguf")])
        #expect(missing.code == 66)
        let both = try Subprocess.run(
            "sigma-run", arguments + ["--model", TestModels.bare],
            environment: ["SIGMA_MODEL": Scratch.path("none.gguf")])
        #expect(both.code == 0)
    }

    @Test(arguments: ["sigma-run", "sigma-eval", "sigma-convert", "sigma-bench", "sigma-serve"])
    func helpAndVersion(command: String) throws {
        for option in ["--help", "--version"] {
            let result = try Subprocess.run(command, [option])
            #expect(result.code == 0)
            #expect(!result.output.isEmpty)
            #expect(result.errors.isEmpty)
        }
    }

    /// `error: ...`, at most two lines, naming `word`; no trace of a crash.
    func expectShort(_ errors: String, _ word: String, location: SourceLocation = #_sourceLocation) {
        #expect(errors.hasPrefix("error: "), sourceLocation: location)
        #expect(errors.split(separator: "\n").count <= 2, sourceLocation: location)
        #expect(word.isEmpty || errors.contains(word), "\(errors)", sourceLocation: location)
    }

    /// Packed or not: the same weights.
    @Test func inspectionCountsParameters() throws {
        func parameters(_ model: String) throws -> Substring? {
            let result = try Subprocess.run("sigma-convert", ["--inspect", model])
            #expect(result.code == 0, "\(result.errors)")
            return String(decoding: result.output, as: UTF8.self).split(separator: "\n").first {
                $0.hasPrefix("parameters")
            }
        }
        let packed = try #require(try parameters(TestModels.demo))
        #expect(try packed == parameters(TestModels.demoFloat))
        #expect(packed.contains("7351072 in all"))
    }
}
