import ArgumentParser
import Sigma
import SigmaCommand
import SigmaConversion

struct Convert: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-convert",
        abstract: "Makes a native model file from a Hugging Face checkpoint or a GGUF file, or shows what is in one.",
        discussion: """
            INPUT is a folder with config.json, safetensors files and tokenizer files (tokenizer.json, or a .tiktoken file \
            with tokenizer_config.json), or a GGUF file of architecture qwen3moe, qwen3, qwen2, llama or sigma, whose weights keep \
            their types. OUTPUT appears whole or not at all.

            Examples:
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf
              sigma-convert ./Sigma-MoE-Tiny sigma-bf16.gguf --type bf16
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf --imatrix sigma.imatrix
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf --sensitivity sigma.sensitivity --size 8GiB
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf --override rope_theta=1000000
              sigma-convert Qwen3-30B-A3B-Q4_K_M.gguf qwen3.gguf
              sigma-convert sigma.gguf plain.gguf --plain-gguf
              sigma-convert old.gguf screened.gguf --head-screen on
              sigma-convert --inspect sigma.gguf --verify
              sigma-convert --synthetic sigma-moe-tiny synthetic.gguf --layers 8
              sigma-convert --synthetic sigma-moe-tiny synthetic.gguf --tokenizer ./Sigma-MoE-Tiny
            """,
        version: sigmaVersion)

    @Argument(help: "A checkpoint folder or a GGUF file.")
    var input: String?
    @Argument(help: "The model file to write.")
    var output: String?
    @Option(
        help:
            "Type of experts, attention and embedding: bf16, f16, f32, q8_0, q6_k, q5_k, q4_k, q4_0 or q3_k (default: q4_k; for a GGUF file, its own types)."
    )
    var type: String?
    @Option(
        help:
            "Type of the output head and of a tied embedding (default: q6_k if --type has fewer bits, else the same).")
    var outputType: String?
    @Option(
        name: .customLong("tensor-type"),
        help: ArgumentHelp(
            "Type of the tensors that NAME stands for, as llama.cpp names them: blk.3.attn_v.weight, '*.ffn_down_exps.*' "
                + "(repeatable; the last that matches counts).", valueName: "name=type"))
    var tensorTypes: [String] = []
    @Option(
        help: ArgumentHelp(
            "Choose the type of each tensor by what 'sigma-eval sensitivity' has measured, within --size or --bits.",
            valueName: "file"))
    var sensitivity: String?
    @Option(help: ArgumentHelp("With --sensitivity: the file's size at most.", valueName: "size"))
    var size: ByteSize?
    @Option(help: ArgumentHelp("With --sensitivity: bits per weight at most, on average.", valueName: "bits"))
    var bits: Double?
    @Option(
        help: ArgumentHelp(
            "Weight errors by the importance that 'sigma-eval imatrix' has measured in this model.", valueName: "file"))
    var imatrix: String?
    @Option(
        help: ArgumentHelp(
            "Add planes that screen the output head: auto (if the head has 32 MiB or more), on or off.",
            valueName: "when"))
    var headScreen = HeadScreening.auto
    @Option(
        name: .customLong("override"),
        help: ArgumentHelp(
            "Decide an open point: a key of config.json, chat.style, chat.thinks, chat.opens_thinking, chat.thinking_prompt, "
                + "rope_scaling=on, unknown_tensors=ignore, ... (repeatable).", valueName: "key=value"))
    var overrides: [String] = []
    @Flag(
        name: .customLong("plain-gguf"),
        help:
            "Write a GGUF file with ggml's own rows for other tools: of architecture qwen3moe if the model allows it, else sigma."
    )
    var plainGGUF = false
    @Option(help: "Threads (default: all processors).")
    var threads: Int?
    @Option(help: ArgumentHelp("Print the contents of a model file.", valueName: "file"))
    var inspect: String?
    @Flag(help: "With --inspect: compare every record's checksum.")
    var verify = false

    @Option(
        help: ArgumentHelp(
            "Write a model of a known shape (sigma-moe-tiny) with random weights and balanced routing to OUTPUT.",
            valueName: "shape"))
    var synthetic: String?
    @Option(help: "With --synthetic: number of layers (default: the shape's).")
    var layers: Int?
    @Option(help: "With --synthetic: seed of the random numbers (default: 0).")
    var seed: UInt64?
    @Option(
        help: ArgumentHelp(
            "With --synthetic: share of tokens whose expert a layer's router would choose from the state of the layer before (default: 0.75).",
            valueName: "share"))
    var predictability: Double?
    @Option(
        help: ArgumentHelp(
            "With --synthetic: the tokenizer of a folder with tokenizer.json or a .tiktoken file.", valueName: "folder"
        ))
    var tokenizer: String?

    func run() throws {
        if let threads, !(1...1024).contains(threads) {
            throw usageError("expected --threads from 1 to 1024, found \(threads)")
        }
        if let synthetic { return try writeSynthetic(synthetic) }
        guard layers == nil, seed == nil, predictability == nil, tokenizer == nil else {
            throw usageError("--layers, --seed, --predictability and --tokenizer go with --synthetic")
        }
        if let inspect {
            guard input == nil, output == nil, !plainGGUF, type == nil, outputType == nil, tensorTypes.isEmpty,
                imatrix == nil, sensitivity == nil, size == nil, bits == nil, overrides.isEmpty, headScreen == .auto
            else { throw usageError("--inspect takes one file, --verify and nothing else") }
            return try Inspection(path: inspect, verifies: verify).run()
        }
        guard !verify else { throw usageError("--verify goes with --inspect FILE") }
        guard let input, let output else {
            throw usageError(
                "expected INPUT and OUTPUT", remedy: "For example: sigma-convert ./Sigma-MoE-Tiny sigma.gguf")
        }
        guard !plainGGUF || headScreen != .on else {
            throw usageError("--head-screen on goes with native files: planes are no part of a plain GGUF file")
        }
        guard !input.isEmpty, !output.isEmpty else { throw usageError("INPUT and OUTPUT must not be empty") }
        try checkOutput(output)
        try convert(input, output)
    }

    private func convert(_ input: String, _ output: String) throws {
        let options = Converter.Options(
            input: input, output: output, form: plainGGUF ? .plainGGUF : .native,
            type: try type.map { try weightType($0, "--type") },
            outputType: try outputType.map { try weightType($0, "--output-type") },
            rules: try tensorTypes.map(rule), mix: try mix(), importance: imatrix,
            overrides: try Overrides(overrides), headScreening: headScreen,
            threads: threads ?? 0)
        // A second Ctrl-C must not leave a half-written file behind either.
        Interrupt.install(secondEndsProcess: false)
        let begin = monotonicTime()
        let written = try withProgressBar("converting") { progress in
            try Converter.convert(
                options, warn: { warn($0) }, progress: progress, isCancelled: { Interrupt.isRequested })
        }
        if let obstacle = written.obstacle {
            note("\(output): architecture sigma, as \(obstacle), which qwen3moe lacks; other engines don't know it")
        } else if plainGGUF {
            note("\(output): architecture qwen3moe")
        }
        if let mix = written.mix { report(mix, written.parts) }
        try noteFile(output, since: begin)
    }

    private func rule(_ text: String) throws -> TypeChoice.Rule {
        guard let sign = text.lastIndex(of: "="), sign > text.startIndex else {
            throw usageError("expected --tensor-type NAME=TYPE, found '\(text)'")
        }
        return TypeChoice.Rule(
            pattern: String(text[..<sign]),
            type: try weightType(String(text[text.index(after: sign)...]), "--tensor-type"))
    }

    private func mix() throws -> Converter.Mix? {
        guard let sensitivity else {
            guard size == nil, bits == nil else {
                throw usageError(
                    "--size and --bits need --sensitivity FILE",
                    remedy: "Make one with: sigma-eval sensitivity --model MODEL_IN_BF16 TEXT_FILE")
            }
            return nil
        }
        guard type == nil, outputType == nil else {
            throw usageError(
                "--type and --output-type don't go with --sensitivity, which chooses types",
                remedy: "Settle single tensors with --tensor-type.")
        }
        switch (size, bits) {
        case (let size?, nil): return Converter.Mix(sensitivity: sensitivity, limit: .bytes(size.bytes))
        case (nil, let bits?):
            guard bits > 0, bits <= 32 else { throw usageError("expected --bits from 0 to 32, found \(bits)") }
            return Converter.Mix(sensitivity: sensitivity, limit: .bits(bits))
        default: throw usageError("--sensitivity needs either --size or --bits")
        }
    }

    private func report(_ mix: TypeMix, _ parts: [WeightPlan.Part]) {
        let weights = parts.reduce(0) { $0 + $1.weightCount }
        let shares = Dictionary(grouping: parts, by: \.type).sorted { $0.key.rawValue < $1.key.rawValue }.map {
            let share = Double($1.reduce(0) { $0 + $1.weightCount }) / Double(weights)
            return "\($0.name) \(JSONWriter.fixed(100 * share, decimals: 1)) %"
        }
        let bits = JSONWriter.fixed(8 * Double(mix.byteCount) / Double(weights), decimals: 3)
        note(
            "\(bits) bits per weight: \(shares.joined(separator: ", ")); expected divergence "
                + "\(JSONWriter.fixed(mix.divergence, decimals: 6)) nats per token")
    }

    /// With `--synthetic` the only argument is the output.
    private func writeSynthetic(_ name: String) throws {
        guard let output = input, !output.isEmpty, self.output == nil, inspect == nil, !verify, imatrix == nil,
            overrides.isEmpty, tensorTypes.isEmpty, sensitivity == nil, size == nil, bits == nil
        else {
            throw usageError(
                "expected OUTPUT alone with --synthetic",
                remedy: "For example: sigma-convert --synthetic sigma-moe-tiny synthetic.gguf")
        }
        try checkOutput(output)
        guard var shape = SyntheticModel.Shape.all.first(where: { $0.name == name }) else {
            let names = SyntheticModel.Shape.all.map(\.name).joined(separator: ", ")
            throw usageError("expected --synthetic \(names), found '\(name)'")
        }
        if let layers {
            guard (1...1024).contains(layers) else {
                throw usageError("expected --layers from 1 to 1024, found \(layers)")
            }
            shape.layerCount = layers
        }
        let type = try weightType(self.type ?? "q4_k", "--type")
        var options = SyntheticModel.Options(
            type: type, outputType: try outputType.map { try weightType($0, "--output-type") } ?? type.outputHeadType)
        options.shape = shape
        options.seed = seed ?? 0
        options.predictability = predictability ?? options.predictability
        options.isQwen3MoE = plainGGUF
        options.tokenizerFolder = tokenizer
        options.headScreening = headScreen
        options.threads = threads ?? 0
        try SyntheticCommand(options: options, output: output).run()
    }

    /// A model file is written in many places at once, and read where it lies.
    private func checkOutput(_ path: String) throws {
        if path == "-" {
            throw usageError(
                "a model file cannot be written to standard output", remedy: "Name a file; one of this name is ./-")
        }
    }

    private func weightType(_ name: String, _ option: String) throws -> WeightType {
        // --inspect and other tools write Q8_0.
        if let type = WeightType.allCases.first(where: { $0.isTarget && $0.name == name.lowercased() }) { return type }
        throw usageError("expected \(option) bf16, f16, f32, q8_0, q6_k, q5_k, q4_k, q4_0 or q3_k, found '\(name)'")
    }
}

extension HeadScreening: ExpressibleByArgument {}
