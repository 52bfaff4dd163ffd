/// A loaded model with its back end, and the scheduler whose thread runs every step. The thread ends when the engine is released.
package final class Engine: Sendable {
    package let model: ModelFile
    package let backend: any Backend
    package let forwardPass: ForwardPass
    package let tokenizer: Tokenizer?
    package let chatFormat: ChatFormat?
    /// Positions a sequence may have.
    package let contextLength: Int
    package let stopTokens: Set<Int32>
    /// [vocabulary]: rows that may be chosen; empty: all.
    package let allowedTokens: [Bool]
    private let scheduler: Scheduler

    package var configuration: ModelConfiguration { model.configuration }
    package var vocabularySize: Int { model.configuration.vocabularySize }
    package var modelPath: String { model.path }

    /// - Parameter contextLength: a limit below (or above) what the model states; nil: the model's.
    /// - Throws: `SigmaError` if the model's tokenizer is damaged, or no thread can be had.
    package init(model: ModelFile, backend: any Backend, contextLength: Int? = nil) throws {
        self.model = model
        self.backend = backend
        forwardPass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        let definition = try model.tokenizerDefinition()
        let tokenizer: Tokenizer?
        do {
            tokenizer = try definition.map { definition throws(SigmaError) in try Tokenizer(definition) }
        } catch {
            throw error.inFile(model.path)
        }
        self.tokenizer = tokenizer
        chatFormat = model.chatFormat
        self.contextLength = contextLength ?? model.configuration.contextLength
        var stops = Set(model.chatFormat?.stopTokens ?? [])
        if let eos = tokenizer?.eos { stops.insert(eos) }
        stopTokens = stops
        allowedTokens =
            tokenizer.map { tokenizer in
                (0..<model.configuration.vocabularySize).map { tokenizer.isAllowed(Int32($0)) }
            } ?? []
        scheduler = Scheduler(forwardPass, model.configuration)
        try scheduler.startThread()
    }

    deinit { scheduler.close() }

    package func makeTimeline(kvType: KVType) throws -> Timeline { Timeline(try backend.makeSequence(kvType: kvType)) }

    /// Runs the generation to its end on the engine thread; then calls `onEnd`, once, on that thread.
    package func run(_ generation: Generation, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
        scheduler.append(Scheduler.Job(generation: generation, onEnd: onEnd))
    }
}
