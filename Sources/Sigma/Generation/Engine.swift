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
        scheduler = Scheduler(forwardPass, model.configuration, allowedTokens: allowedTokens)
        try scheduler.startThread()
    }

    deinit { scheduler.close() }

    package func makeTimeline(kvType: KVType) throws -> Timeline { Timeline(try backend.makeSequence(kvType: kvType)) }

    /// - Throws: `SigmaError(.usage)` naming the first id without a row in the embedding.
    func checkVocabulary(_ tokens: [Int32]) throws {
        if let bad = tokens.first(where: { $0 < 0 || Int($0) >= vocabularySize }) {
            throw SigmaError(.usage, "token id \(bad) is outside the model's vocabulary of \(vocabularySize) rows")
        }
    }

    /// Runs the generation to its end on the engine thread; then calls `onEnd`, once, on that thread.
    package func run(_ generation: Generation, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
        run(work: generation, onEnd: onEnd)
    }

    /// Runs any work in the same way.
    func run(work: any StepWork, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
        scheduler.append(Scheduler.Job(work: work, onEnd: onEnd))
    }
}
