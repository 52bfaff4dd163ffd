package final class ModelFile: Sendable {
    package let configuration: ModelConfiguration
    package let weights: ModelWeights
    init(c: ModelConfiguration, w: ModelWeights) { configuration = c; weights = w }
    package func checkIntact() throws {}
}
