import Sigma
import SigmaStudies
import SystemLibrary

/// Makes model files: native ones, and plain GGUF files for other tools.
package struct Converter {
    package struct Options: Sendable {
        package enum Form: Sendable {
            case native
            /// A GGUF file with ggml's own rows.
            case plainGGUF
        }

        /// A checkpoint folder, a plain GGUF file, or a native model file.
        package var input: String
        package var output: String
        package var form: Form
        /// Of experts, dense layers, attention and embedding. nil is q4_k for a checkpoint, and for files what they have.
        package var type: WeightType?
        /// Of the output head and a tied embedding; nil is q6_k where `type` has fewer bits, else `type`.
        package var outputType: WeightType?
        /// Types of single tensors, whatever the rest has.
        package var rules: [TypeChoice.Rule]
        /// How the other types are chosen, instead of by `type` and `outputType`.
        package var mix: Mix?
        /// A file of `sigma-eval imatrix`, by which quantizers weigh errors.
        package var importance: String?
        package var overrides: Overrides
        /// Whether a native file gets planes that screen its output head.
        package var headScreening: HeadScreening
        /// 0: as many as there are processors.
        package var threads: Int

        package init(
            input: String, output: String, form: Form = .native, type: WeightType? = nil,
            outputType: WeightType? = nil, rules: [TypeChoice.Rule] = [], mix: Mix? = nil, importance: String? = nil,
            overrides: Overrides, headScreening: HeadScreening = .auto, threads: Int = 0
        ) {
            self.input = input
            self.output = output
            self.form = form
            self.type = type
            self.outputType = outputType
            self.rules = rules
            self.mix = mix
            self.importance = importance
            self.overrides = overrides
            self.headScreening = headScreening
            self.threads = threads
        }
    }

    /// Types by measurement.
    package struct Mix: Sendable {
        /// A file of `sigma-eval sensitivity`.
        package var sensitivity: String
        package var limit: TypeMix.Limit

        package init(sensitivity: String, limit: TypeMix.Limit) {
            self.sensitivity = sensitivity
            self.limit = limit
        }
    }

    /// What was written.
    package struct Summary: Sendable {
        /// `general.architecture` of the file.
        package let architecture: String
        /// Why a plain file is no `qwen3moe` one.
        package let obstacle: String?
        /// Nil where types were not chosen by measurement.
        package var mix: TypeMix?
        /// The weights, with their types.
        package let parts: [WeightPlan.Part]
    }

    /// Converts a model. `options.output` appears, or is replaced, whole or not at all.
    ///
    /// - Parameters:
    ///   - warn: called for each choice that the user should know of, before the weights are converted.
    ///   - progress: the share that is done, 0...1; on the calling thread.
    ///   - isCancelled: asked often; the conversion then ends with `.interrupted`.
    /// - Throws: `SigmaError`.
    @discardableResult
    package static func convert(
        _ options: Options, warn: (String) -> Void = { _ in }, progress: @escaping (Double) -> Void = { _ in },
        isCancelled: @escaping () -> Bool = { false }
    ) throws -> Summary {
        try convert(
            ConversionInput(options.input, overrides: options.overrides), options, warn: warn, progress: progress,
            isCancelled: isCancelled)
    }

    /// The same for an input that is open.
    @discardableResult
    package static func convert(
        _ input: ConversionInput, _ options: Options, warn: (String) -> Void = { _ in },
        progress: @escaping (Double) -> Void = { _ in }, isCancelled: @escaping () -> Bool = { false }
    ) throws -> Summary {
        var weights = input.weights
        if let path = options.importance {
            weights = WeightedSources(
                base: weights, importance: try ImportanceMatrix(path: path, for: input.configuration),
                tiedEmbeddings: input.configuration.tiedEmbeddings)
        }
        let (plan, mix, moreWarnings) = try plan(input, weights, options)
        if let definition = input.tokenizer {
            // What could not be loaded must not be written.
            do { _ = try Tokenizer(definition) } catch { throw error.inFile(options.input) }
        }
        try OutputFile.check(
            options.output, inputs: input.files + [options.importance, options.mix?.sensitivity].compactMap { $0 })
        for warning in input.warnings + plan.warnings + moreWarnings { warn(warning) }
        if let path = options.importance,
            !plan.parts.contains(where: { $0.type.isQuantized && $0.matrices[0].type != $0.type })
        {
            warn("\(path) changes nothing: no weights are quantized")
        }

        // What is damaged must not get a fresh checksum.
        try input.verify { share in
            progress(share)
            return !isCancelled()
        }
        let pieceWriter = PieceWriter(
            threads: options.threads > 0 ? options.threads : Workers.processorCount, progress: progress,
            isCancelled: isCancelled, checkIntact: input.checkIntact)
        switch options.form {
        case .native:
            try ModelFileWriter(plan: plan, pieceWriter: pieceWriter).write(nativeHeader(input), to: options.output)
            return Summary(
                architecture: ModelFileFormat.architecture, obstacle: nil, mix: mix, parts: plan.parts)
        case .plainGGUF:
            let writer = PlainFileWriter(plan, architecture: plainArchitecture(input, plan))
            try writer.write(plainHeader(input, writer.architecture), to: options.output, pieceWriter)
            return Summary(
                architecture: writer.architecture, obstacle: PlainFileWriter.obstacle(input.configuration, plan),
                mix: mix, parts: plan.parts)
        }
    }

    // MARK: - Types

    /// - Returns: also what the user should know of how types were chosen.
    private static func plan(
        _ input: ConversionInput, _ weights: any WeightSources, _ options: Options
    ) throws -> (WeightPlan, TypeMix?, warnings: [String]) {
        func plan(_ types: TypeChoice) throws -> WeightPlan {
            try WeightPlan(
                weights, input.configuration, types: types,
                ignoresUnknown: options.overrides.ignoresUnknownTensors(),
                headScreening: options.form == .native ? options.headScreening : .off)
        }
        guard let mix = options.mix else {
            let type = options.type ?? (input.keepsTypes ? nil : .q4_k)
            let choice = TypeChoice(
                type: type, outputType: options.outputType ?? type?.outputHeadType, rules: options.rules)
            return (try plan(choice), nil, [])
        }
        let start = try plan(TypeChoice(rules: options.rules))
        if let quantized = start.parts.first(where: { $0.matrices[0].type.isQuantized }) {
            throw SigmaError(
                .usage, "types can be chosen for float weights only, and these are \(quantized.type.name)",
                path: options.input, item: quantized.name,
                remedy: "Convert the checkpoint itself, or a file of --type bf16.")
        }
        let sensitivity = try Sensitivity(path: mix.sensitivity, for: start.parts)
        let chosen = try mixed(start.parts, sensitivity, options, plan) { try fileSize(input, $0, options.form) }
        var warnings = start.warnings.filter { !chosen.plan.warnings.contains($0) }
        if sensitivity.modelName != input.name {
            warnings.append(
                "\(mix.sensitivity) was measured on a model called '\(sensitivity.modelName)', and this one is called '\(input.name)'"
            )
        }
        return (chosen.plan, chosen.mix, warnings)
    }

    /// - Parameters:
    ///   - parts: with their own types, but for those that rules settle.
    ///   - plan: makes a plan of types.
    ///   - fileSize: of a plan.
    private static func mixed(
        _ parts: [WeightPlan.Part], _ sensitivity: Sensitivity, _ options: Options,
        _ plan: (TypeChoice) throws -> WeightPlan, _ fileSize: (WeightPlan) throws -> Int
    ) throws -> (plan: WeightPlan, mix: TypeMix) {
        let fixed = parts.map { part in options.rules.last { $0.matches(part.name) } == nil ? nil : part.type }
        let size: TypeMix.ByteCount =
            options.form == .native
            ? { $0.byteCount($1) } : { $0.matrices.count * $0.rows * $1.rowBytes($0.columns) }
        func mixed(_ budget: Int) throws -> (plan: WeightPlan, mix: TypeMix)? {
            guard let mix = TypeMix(parts, sensitivity, fixed: fixed, budget: budget, size: size) else {
                return nil
            }
            let rules = zip(parts, mix.types).map { TypeChoice.Rule(pattern: $0.name, type: $1) }
            return (try plan(TypeChoice(rules: rules)), mix)
        }
        let least = TypeMix.leastBytes(parts, sensitivity, fixed: fixed, size: size)
        switch options.mix!.limit {
        case .bits(let bits):
            let weightCount = Double(parts.reduce(0) { $0 + $1.weightCount })
            if let result = try mixed(Int(bits * weightCount / 8)) { return result }
            let needed = JSONWriter.fixed((8000 * Double(least) / weightCount).rounded(.up) / 1000, decimals: 3)
            throw SigmaError(
                .usage, "the smallest types need \(needed) bits per weight, and \(bits) are allowed",
                remedy: "Use --bits \(needed) or more.")
        case .bytes(let limit):
            // Records are filled up to pages, and planes, norms and the header come with the parts.
            var budget = limit
            while let result = try mixed(budget) {
                let excess = try fileSize(result.plan) - limit
                if excess <= 0 { return result }
                budget = min(budget, result.mix.byteCount) - excess
            }
            // What fills records up differs between mixes, so the smallest may fit all the same.
            let result = try mixed(least)
            let smallest = try result.map { try fileSize($0.plan) } ?? least
            if let result, smallest <= limit { return result }
            throw SigmaError(
                .usage, "the smallest types make a file of \(smallest) bytes, and \(limit) are allowed",
                remedy: "Use --size \(smallest) or more.")
        }
    }

    private static func fileSize(
        _ input: ConversionInput, _ plan: WeightPlan, _ form: Options.Form
    ) throws -> Int {
        switch form {
        case .native: return ModelFileWriter.layout(nativeHeader(input), plan).fileSize
        case .plainGGUF:
            let writer = PlainFileWriter(plan, architecture: plainArchitecture(input, plan))
            return writer.layout(try plainHeader(input, writer.architecture)).fileSize
        }
    }

    private static func plainArchitecture(_ input: ConversionInput, _ plan: WeightPlan) -> String {
        PlainFileWriter.obstacle(input.configuration, plan) == nil ? "qwen3moe" : ModelFileFormat.architecture
    }

    // MARK: - Headers

    private static func nativeHeader(_ input: ConversionInput) -> GGUFWriter {
        var header = GGUFWriter(architecture: ModelFileFormat.architecture, alignment: ModelFileFormat.alignment)
        header.set(ModelFileFormat.Key.version, ModelFileFormat.version)
        header.set("general.quantization_version", UInt32(2))
        header.set(ModelFileFormat.Key.name, input.name)
        header.set(ModelFileFormat.Key.sourceArchitecture, input.architecture)
        ModelFileMetadata.write(input.configuration, to: &header)
        ModelFileMetadata.write(input.chatFormat, to: &header)
        if let definition = input.tokenizer { ModelFileTokenizer.write(definition, to: &header) }
        return header
    }

    private static func plainHeader(_ input: ConversionInput, _ architecture: String) throws -> GGUFWriter {
        var header = GGUFWriter(architecture: architecture, alignment: PlainFileWriter.alignment)
        header.set("general.quantization_version", UInt32(2))
        header.set(ModelFileFormat.Key.name, input.name)
        header.set(ModelFileFormat.Key.sourceArchitecture, input.architecture)
        if architecture == ModelFileFormat.architecture {
            ModelFileMetadata.write(input.configuration, to: &header)
        } else {
            PlainFileWriter.writeMetadata(input.configuration, to: &header)
        }
        ModelFileMetadata.write(input.chatFormat, to: &header)
        if let definition = input.tokenizer {
            // llama.cpp wants a token for each row of the embedding.
            try ModelFileTokenizer.writePlain(definition, count: input.configuration.vocabularySize, to: &header)
            header.set("tokenizer.chat_template", PlainFileWriter.chatTemplate(input.chatFormat))
        } else {
            header.set("tokenizer.ggml.model", "no_vocab")
        }
        return header
    }
}

extension WeightType {
    /// The head's type where none is asked for: it is read for every token, and its errors reach the probabilities directly.
    package var outputHeadType: WeightType {
        switch self {
        case .q5_k, .q4_k, .q4_0, .q3_k: .q6_k
        default: self
        }
    }
}
