/// The shape and the rules of a model, with every open point settled.
///
/// Built from a checkpoint's `config.json` when converting, and from the keys of a native model file when loading.
public struct ModelConfiguration: Sendable, Equatable {
    /// How router logits become scores. Scores are fp32.
    public enum RouterScoring: UInt32, Sendable {
        case softmax = 1
        case sigmoid = 2
    }

    /// When the weights of the chosen experts are divided by their sum.
    public enum WeightNormalization: String, Sendable {
        case never
        /// Only in layers that choose more than one expert (Sigma).
        case whenSeveral = "when-several"
        /// At one expert too (Qwen3-MoE): the weight is then 1.
        case always
    }

    /// Scaling of RoPE's frequencies.
    public enum RopeScaling: Sendable, Equatable {
        case none
        case linear(factor: Float)
        case yarn(
            factor: Float, originalContext: Int, betaFast: Float, betaSlow: Float, attentionFactor: Float?,
            truncate: Bool)
        /// Each pair of a head's dimensions has a divisor of its own [headDim / 2] (Llama 3).
        case divided(by: [Float])
    }

    public var vocabularySize: Int
    public var hiddenSize: Int
    public var layerCount: Int
    public var headCount: Int
    public var kvHeadCount: Int
    public var headDim: Int
    public var expertCount: Int
    public var expertIntermediateSize: Int
    /// Shared experts: their number; width is `sharedExpertCount * expertIntermediateSize`.
    public var sharedExpertCount: Int
    /// Width of dense layers' MLP; 0 where there are none.
    public var denseIntermediateSize: Int
    /// One entry per layer: how many experts a token uses; 0 marks a dense layer.
    public var expertsPerToken: [Int]
    public var scoring: RouterScoring
    public var weightNormalization: WeightNormalization
    public var routedScalingFactor: Float
    /// RMSNorm on q and k, per head, before RoPE.
    public var qkNorm: Bool
    public var rmsNormEpsilon: Float
    public var ropeTheta: Float
    public var ropeScaling: RopeScaling
    /// Positions the model states it can use.
    public var contextLength: Int
    /// The output head is the embedding.
    public var tiedEmbeddings: Bool

    package init(
        vocabularySize: Int, hiddenSize: Int, layerCount: Int, headCount: Int, kvHeadCount: Int, headDim: Int,
        expertCount: Int, expertIntermediateSize: Int, sharedExpertCount: Int, denseIntermediateSize: Int,
        expertsPerToken: [Int], scoring: RouterScoring, weightNormalization: WeightNormalization,
        routedScalingFactor: Float, qkNorm: Bool, rmsNormEpsilon: Float, ropeTheta: Float, ropeScaling: RopeScaling,
        contextLength: Int, tiedEmbeddings: Bool
    ) {
        self.vocabularySize = vocabularySize
        self.hiddenSize = hiddenSize
        self.layerCount = layerCount
        self.headCount = headCount
        self.kvHeadCount = kvHeadCount
        self.headDim = headDim
        self.expertCount = expertCount
        self.expertIntermediateSize = expertIntermediateSize
        self.sharedExpertCount = sharedExpertCount
        self.denseIntermediateSize = denseIntermediateSize
        self.expertsPerToken = expertsPerToken
        self.scoring = scoring
        self.weightNormalization = weightNormalization
        self.routedScalingFactor = routedScalingFactor
        self.qkNorm = qkNorm
        self.rmsNormEpsilon = rmsNormEpsilon
        self.ropeTheta = ropeTheta
        self.ropeScaling = ropeScaling
        self.contextLength = contextLength
        self.tiedEmbeddings = tiedEmbeddings
    }

    /// Width of all query heads together.
    public var queryWidth: Int { headCount * headDim }
    /// Width of all key (or value) heads together.
    public var kvWidth: Int { kvHeadCount * headDim }
    public func isDense(layer: Int) -> Bool { expertsPerToken[layer] == 0 }

    /// Whether the weights of the chosen experts are divided by their sum in a layer that chooses so many.
    package func normalizesWeights(choices: Int) -> Bool {
        switch weightNormalization {
        case .never: false
        case .whenSeveral: choices > 1
        case .always: true
        }
    }
}
