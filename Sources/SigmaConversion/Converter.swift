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
        /// A file of `sigma-eval imatrix`, by which quantizers weigh errors.
        package var importance: String?
        package var overrides: Overrides
        /// Whether a native file gets planes that screen its output head.
        package var headScreening: HeadScreening
        /// 0: as many as there are processors.
        package var threads: Int

        package init(
            input: String, output: String, form: Form = .native, type: WeightType? = nil,
            outputType: WeightType? = nil, importance: String? = nil, overrides: Overrides,
            headScreening: HeadScreening = .auto, threads: Int = 0
        ) {
            self.input = input
            self.output = output
            self.form = form
            self.type = type
            self.outputType = outputType
            self.importance = importance
            self.overrides = overrides
            self.headScreening = headScreening
            self.threads = threads
        }
    }

    /// What was written.
    package struct Summary: Sendable {
        /// `general.architecture` of the file.
        package let architecture: String
        /// Why a plain file is no `qwen3moe` one.
        package let obstacle: String?
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
        let type = options.type ?? (input.keepsTypes ? nil : .q4_k)
        let outputType = options.outputType ?? type?.outputHeadType
        var weights = input.weights
        if let path = options.importance {
            weights = WeightedSources(
                base: weights, importance: try ImportanceMatrix(path: path, for: input.configuration),
                tiedEmbeddings: input.configuration.tiedEmbeddings)
        }
        let plan = try WeightPlan(
            weights, input.configuration, type: type, outputType: outputType,
            ignoresUnknown: options.overrides.ignoresUnknownTensors(),
            headScreening: options.form == .native ? options.headScreening : .off)
        if let definition = input.tokenizer {
            // What could not be loaded must not be written.
            do { _ = try Tokenizer(definition) } catch { throw error.inFile(options.input) }
        }
        try refuseOverwriting(input.files + [options.importance].compactMap { $0 }, options.output)
        for warning in input.warnings + plan.warnings { warn(warning) }

        // What is damaged must not get a fresh checksum.
        try input.verify { _ in !isCancelled() }
        let pieceWriter = PieceWriter(
            threads: options.threads > 0 ? options.threads : Workers.processorCount, progress: progress,
            isCancelled: isCancelled, checkIntact: input.checkIntact)
        switch options.form {
        case .native:
            try ModelFileWriter(plan: plan, pieceWriter: pieceWriter).write(nativeHeader(input), to: options.output)
            return Summary(architecture: ModelFileFormat.architecture, obstacle: nil)
        case .plainGGUF:
            let obstacle = PlainFileWriter.obstacle(input.configuration, plan)
            let architecture = obstacle == nil ? "qwen3moe" : ModelFileFormat.architecture
            try PlainFileWriter(plan, architecture: architecture, pieceWriter).write(
                plainHeader(input, architecture), to: options.output)
            return Summary(architecture: architecture, obstacle: obstacle)
        }
    }

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

    /// The output must not be one of the files that are read (under whatever name).
    private static func refuseOverwriting(_ inputs: [String], _ output: String) throws {
        var target = stat()
        guard stat(output, &target) == 0 else { return }
        for input in inputs {
            var status = stat()
            if stat(input, &status) == 0, status.st_dev == target.st_dev, status.st_ino == target.st_ino {
                throw SigmaError(.usage, "the output would overwrite the input \(input)", path: output)
            }
        }
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
