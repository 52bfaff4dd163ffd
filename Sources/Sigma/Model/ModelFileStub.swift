package final class ModelFile: Sendable {
    package let configuration: ModelConfiguration
    package let weights: ModelWeights
    package let chatFormat: ChatFormat?
    package let name = ""
    package let path = ""
    package let byteCount = 0
    package init(path: String) throws { fatalError() }
    package func tokenizerDefinition() throws -> TokenizerDefinition? { nil }
    package func checkIntact() throws {}
}
