import ArgumentParser
import Sigma
import SigmaCommand
import SigmaConversion

struct Convert: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-convert",
        abstract: "Makes a native model file of a Hugging Face checkpoint or a GGUF file, or shows what is in one.",
        discussion: """
            INPUT is a folder with config.json, safetensors files and tokenizer files (tokenizer.json, or a .tiktoken file \
            with tokenizer_config.json), or a GGUF file of architecture qwen3moe or sigma, whose weights keep their types. \
            OUTPUT appears whole or not at all.

            Examples:
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf
              sigma-convert ./Sigma-MoE-Tiny sigma-bf16.gguf --type bf16
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf --imatrix sigma.imatrix
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf --override rope_theta=1000000
              sigma-convert Qwen3-30B-A3B-Q4_K_M.gguf qwen3.gguf
              sigma-convert sigma.gguf plain.gguf --plain-gguf
              sigma-convert --inspect sigma.gguf --verify
            """,
        version: sigmaVersion)

    @Argument(help: "A checkpoint folder or a GGUF file.")
    var input: String?
    @Argument(help: "The model file to write.")
    var output: String?
    @Option(
        help:
            "Type of experts, attention and embedding: bf16, f16, f32, q8_0, q6_k, q4_k or q4_0 (q4_k; for a GGUF file, what it has)."
    )
    var type: String?
    @Option(
        help: "Type of the output head and of a tied embedding (q6_k where --type is q4_k or q4_0, else the same).")
    var outputType: String?
    @Option(
        help: ArgumentHelp(
            "Weigh errors by what 'sigma-eval imatrix' has measured in this model.", valueName: "file"))
    var imatrix: String?
    @Option(
        name: .customLong("override"),
        help: ArgumentHelp(
            "Settle an open point: a key of config.json, chat.thinking_prompt, chat.opens_thinking, chat.closing_phrase, "
                + "rope_scaling=on, tokenizer.specials, ... (repeatable).", valueName: "key=value"))
    var overrides: [String] = []
    @Flag(
        name: .customLong("plain-gguf"),
        help: "Write a GGUF file with ggml's own rows for other tools: qwen3moe where the model is one, else sigma.")
    var plainGGUF = false
    @Option(help: "Threads (default: all processors).")
    var threads: Int?
    @Option(help: ArgumentHelp("Print what is in a model file.", valueName: "file"))
    var inspect: String?
    @Flag(help: "With --inspect: compare every record's checksum.")
    var verify = false

    // Promised, and not here yet: understood so that the answer is clear.
    @Option(help: .hidden) var synthetic: String?
    @Option(help: .hidden) var layers: Int?
    @Option(help: .hidden) var seed: UInt64?
    @Option(help: .hidden) var predictability: Double?

    func run() throws {
        if synthetic != nil || layers != nil || seed != nil || predictability != nil {
            throw notYet("--synthetic")
        }
        if let inspect {
            guard input == nil, output == nil else { throw usageError("--inspect takes one file and nothing else") }
            return try Inspection(path: inspect, verifies: verify).run()
        }
        guard !verify else { throw usageError("--verify goes with --inspect FILE") }
        guard let input, let output else {
            throw usageError(
                "expected INPUT and OUTPUT", remedy: "For example: sigma-convert ./Sigma-MoE-Tiny sigma.gguf")
        }
        guard !input.isEmpty, !output.isEmpty else { throw usageError("INPUT and OUTPUT must not be empty") }
        if let threads, !(1...1024).contains(threads) {
            throw usageError("expected --threads from 1 to 1024, found \(threads)")
        }
        try convert(input, output)
    }

    private func convert(_ input: String, _ output: String) throws {
        let options = Converter.Options(
            input: input, output: output, form: plainGGUF ? .plainGGUF : .native,
            type: try type.map { try weightType($0, "--type") },
            outputType: try outputType.map { try weightType($0, "--output-type") }, importance: imatrix,
            overrides: try Overrides(overrides),
            threads: threads ?? 0)
        // A second Ctrl-C must not leave a half-written file behind either.
        Interrupt.install(secondEndsProcess: false)
        var bar = ProgressBar("converting")
        let begin = monotonicTime()
        let written = try withoutActuallyEscaping({ (share: Double) in bar.update(share) }) { update in
            try Converter.convert(options, warn: { warn($0) }, progress: update, isCancelled: { Interrupt.isRequested })
        }
        bar.finish()
        if let obstacle = written.obstacle {
            note("\(output): architecture sigma, as \(obstacle), which qwen3moe has not; other engines don't know it")
        } else if plainGGUF {
            note("\(output): architecture qwen3moe")
        }
        let size = try MappedFile(path: output).bytes.count
        note("\(output): \(ByteSize.text(size)) in \(JSONWriter.fixed(monotonicTime() - begin, decimals: 1)) s")
    }

    private func weightType(_ name: String, _ option: String) throws -> WeightType {
        if let type = WeightType.allCases.first(where: { $0.name == name }) { return type }
        throw usageError("expected \(option) bf16, f16, f32, q8_0, q6_k, q4_k or q4_0, found '\(name)'")
    }

    private func notYet(_ what: String) -> SigmaError { SigmaError(.unavailable, "\(what) is not in this version yet") }
}
