import Sigma

/// A model of a real shape with seeded random weights: for measuring speed and memory where the real weights cannot be had.
package struct SyntheticModel {
    /// What can be chosen about the architecture.
    package struct Shape: Sendable, Equatable {
        package var name: String
        package var layerCount: Int
        /// The blocks of all types must divide these: multiples of 256.
        package var hiddenSize: Int
        package var headCount: Int
        package var kvHeadCount: Int
        /// Heads times this: a multiple of 256.
        package var headDim: Int
        package var expertCount: Int
        package var expertIntermediateSize: Int
        /// The specials have the last ids, as many as o200k's tokenizer has.
        package var vocabularySize: Int
        package var contextLength: Int

        package init(
            name: String, layerCount: Int, hiddenSize: Int, headCount: Int, kvHeadCount: Int, headDim: Int,
            expertCount: Int, expertIntermediateSize: Int, vocabularySize: Int, contextLength: Int
        ) {
            self.name = name
            self.layerCount = layerCount
            self.hiddenSize = hiddenSize
            self.headCount = headCount
            self.kvHeadCount = kvHeadCount
            self.headDim = headDim
            self.expertCount = expertCount
            self.expertIntermediateSize = expertIntermediateSize
            self.vocabularySize = vocabularySize
            self.contextLength = contextLength
        }

        /// Paper, Table 1.
        package static let sigmaMoETiny = Shape(
            name: "sigma-moe-tiny", layerCount: 56, hiddenSize: 1536, headCount: 16, kvHeadCount: 4, headDim: 96,
            expertCount: 96, expertIntermediateSize: 768, vocabularySize: 200_064, contextLength: 131_072)

        /// Those that `--synthetic` knows.
        package static let all = [sigmaMoETiny]
    }

    package struct Options: Sendable {
        package var shape = Shape.sigmaMoETiny
        package var seed: UInt64 = 0
        /// Share of tokens for which a layer's router, on the state that the router before it saw, chooses the expert that is used.
        package var predictability = 0.75
        /// Of experts, attention and embedding.
        package var type: WeightType
        package var outputType: WeightType
        /// With the router of Qwen3-MoE (softmax, weights normalised) instead of Sigma's: the same weights for other engines.
        package var isQwen3MoE = false
        /// A folder with tokenizer files, whose tokens and chat format the model gets; nil: bytes, and names for the other ids.
        package var tokenizerFolder: String?
        /// Whether the output head gets planes that screen it.
        package var headScreening = HeadScreening.auto
        /// 0: as many as there are processors.
        package var threads = 0

        package init(type: WeightType, outputType: WeightType) {
            self.type = type
            self.outputType = outputType
        }
    }

    /// The predictability that the weights are made for: as near to the wanted one as can be.
    package let predictability: Double
    /// What the converter writes.
    package let input: ConversionInput

    /// - Throws: `SigmaError`: `.usage` for a predictability that is not between 0 and 1, or that these layers cannot have; as `TokenizerImport`,
    ///   and `.noInput` where the folder has no tokenizer.
    package init(_ options: Options) throws {
        let shape = options.shape
        guard options.predictability > 0, options.predictability < 1 else {
            throw SigmaError(
                .usage, "expected --predictability between 0 and 1, found \(options.predictability)")
        }
        precondition(
            [shape.hiddenSize, shape.expertIntermediateSize, shape.headCount * shape.headDim]
                .allSatisfy { $0 > 0 && $0 % 256 == 0 })
        let configuration = shape.configuration(isQwen3MoE: options.isQwen3MoE)
        if let problem = configuration.problem { throw SigmaError(.usage, problem) }
        let scales = try SyntheticScales(
            expertCount: shape.expertCount, layerCount: shape.layerCount, predictability: options.predictability)
        predictability = scales.predictability
        let weights = try SyntheticWeights(
            configuration, scales, seed: options.seed, type: options.type, headType: options.outputType,
            threads: options.threads > 0 ? options.threads : Workers.processorCount)
        let name = "\(shape.name) synthetic (seed \(options.seed))"
        if let folder = options.tokenizerFolder {
            let tokenizer = try TokenizerImport(
                folder,
                CheckpointConfiguration(configuration, architecture: Self.architecture, family: SigmaFamily()),
                overrides: Overrides())
            guard let definition = tokenizer.definition else {
                throw SigmaError(.noInput, "no tokenizer.json and no .tiktoken file here", path: folder)
            }
            input = ConversionInput(
                synthetic: weights, configuration, name: name, definition, tokenizer.chatFormat,
                warnings: tokenizer.warnings, files: tokenizer.files)
        } else {
            input = ConversionInput(
                synthetic: weights, configuration, name: name,
                SyntheticTokenizer.definition(vocabularySize: shape.vocabularySize),
                SyntheticTokenizer.chatFormat(vocabularySize: shape.vocabularySize))
        }
    }

    fileprivate static let architecture = "synthetic"
}

extension SyntheticModel.Shape {
    /// - Parameter isQwen3MoE: with that family's router (softmax, weights normalised to 1) instead of Sigma's.
    fileprivate func configuration(isQwen3MoE: Bool) -> ModelConfiguration {
        ModelConfiguration(
            vocabularySize: vocabularySize, hiddenSize: hiddenSize, layerCount: layerCount, headCount: headCount,
            kvHeadCount: kvHeadCount, headDim: headDim, expertCount: expertCount,
            expertIntermediateSize: expertIntermediateSize, sharedExpertCount: 0, denseIntermediateSize: 0,
            expertsPerToken: Array(repeating: 1, count: layerCount), scoring: isQwen3MoE ? .softmax : .sigmoid,
            weightNormalization: isQwen3MoE ? .always : .whenSeveral, routedScalingFactor: 1, qkNorm: true,
            rmsNormEpsilon: 1e-6, ropeTheta: 1_000_000, ropeScaling: .none, contextLength: contextLength,
            tiedEmbeddings: false)
    }
}

extension ConversionInput {
    fileprivate init(
        synthetic weights: SyntheticWeights, _ configuration: ModelConfiguration, name: String,
        _ tokenizer: TokenizerDefinition, _ chatFormat: ChatFormat, warnings: [String] = [], files: [String] = []
    ) {
        self.configuration = configuration
        architecture = SyntheticModel.architecture
        self.name = name
        self.weights = weights
        keepsTypes = true
        self.tokenizer = tokenizer
        self.chatFormat = chatFormat
        self.warnings = warnings
        self.files = files
        checkIntact = {}
        verify = { _ in }
    }
}

/// A tokenizer that needs no training: 256 bytes, Sigma's specials, and names for the other ids.
enum SyntheticTokenizer {
    /// Ids from the vocabulary's end to which the specials' ids are counted: of the real vocabulary.
    private static let realVocabulary = 200_064

    static func definition(vocabularySize: Int) -> TokenizerDefinition {
        let shift = vocabularySize - realVocabulary
        var specials: [Int: String] = [:]
        for (id, text) in TiktokenFile.specials { specials[id + shift] = text }
        // Between the ranks and the first special, and after it, lie rows without a token and dummies.
        let ordinary = 199_998 + shift
        var tokens = TokenTable()
        var kinds: [TokenizerDefinition.TokenKind] = []
        for id in 0..<vocabularySize {
            if id < 256 {
                tokens.append([UInt8(id)])
                kinds.append(.normal)
            } else if let text = specials[id] {
                tokens.append(Array(text.utf8))
                kinds.append(.control)
            } else if id < ordinary {
                tokens.append(Array("<t\(id)>".utf8))
                kinds.append(.normal)
            } else {
                tokens.append([])
                kinds.append(.unused)
            }
        }
        let end = Int32(199_999 + shift)
        return TokenizerDefinition(
            tokens: tokens, kinds: kinds, mergeRule: .listed([], ignoringMerges: false), pattern: .o200k,
            normalizer: .none, bos: end, eos: end, addsBos: false)
    }

    static func chatFormat(vocabularySize: Int) -> ChatFormat {
        let shift = Int32(vocabularySize - realVocabulary)
        return ChatFormat(
            style: .sigma, opensThinking: true, thinkingPrompt: ChatFormat.defaultThinkingPrompt,
            closingPhrase: ChatFormat.defaultClosingPhrase, stopTokens: [200_003 + shift, 199_999 + shift])
    }
}
