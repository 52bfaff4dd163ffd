/// A loaded model with its back end, and the scheduler whose thread runs every step. The thread ends when the engine is released.
package final class Engine: Sendable {
    package let model: ModelFile
    package let backend: any EngineBackend
    package let forwardPass: ForwardPass
    package let tokenizer: Tokenizer?
    package let chatFormat: ChatFormat?
    /// Positions a sequence may have.
    package let contextLength: Int
    package let stopTokens: Set<Int32>
    /// Tokens that may be chosen.
    package let choosable: TokenMask
    /// Constraints on its answers.
    package let constraints: AnswerConstraints
    private let timelines = TimelineRegistry()
    /// Beginnings that requests share.
    package let prefixes: PrefixCache
    /// What drafts cost and gain. The engine's thread alone uses it.
    let draftPlanner = DraftPlanner()
    /// What the engine does now, and did, for whoever watches it.
    package let gauge: EngineGauge
    private let scheduler: Scheduler

    package var configuration: ModelConfiguration { model.configuration }
    package var vocabularySize: Int { model.configuration.vocabularySize }
    package var modelPath: String { model.path }

    /// - Parameters:
    ///   - contextLength: a limit below (or above) what the model states; nil: the model's.
    ///   - date: the date that prompts name, instead of the chat format's; nil: the chat format's.
    ///   - prefixCacheBytes: what shared beginnings may hold; nil: a part of what keys and values can have.
    /// - Throws: `SigmaError` if the model's tokenizer is damaged, or no thread can be had.
    package init(
        model: ModelFile, backend: any EngineBackend, contextLength: Int? = nil, date: String? = nil,
        prefixCacheBytes: Int? = nil
    ) throws {
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
        var chatFormat = model.chatFormat
        if let date, chatFormat?.date.isEmpty == false { chatFormat?.date = date }
        self.chatFormat = chatFormat
        self.contextLength = contextLength ?? model.configuration.contextLength
        var stops = Set(model.chatFormat?.stopTokens ?? [])
        if let eos = tokenizer?.eos { stops.insert(eos) }
        stopTokens = stops
        let vocabularySize = model.configuration.vocabularySize
        choosable =
            tokenizer.map { tokenizer in
                TokenMask(vocabularySize: vocabularySize) { tokenizer.isAllowed($0) }
            } ?? TokenMask(all: vocabularySize)
        constraints = AnswerConstraints(tokenizer, choosable: choosable, stopTokens: stops)
        prefixes = PrefixCache(byteLimit: try prefixCacheBytes ?? Self.defaultPrefixCacheBytes(backend))
        gauge = EngineGauge(backend)
        scheduler = Scheduler(
            forwardPass, memory: backend, model.configuration, timelines: timelines, prefixes: prefixes,
            drafts: draftPlanner, gauge: gauge)
        try scheduler.startThread()
    }

    deinit { scheduler.close() }

    /// A quarter of what keys and values can have; where the model's memory is not limited, an eighth of what the system offers. The rest is
    /// for sequences and experts.
    private static func defaultPrefixCacheBytes(_ backend: any EngineBackend) throws -> Int {
        guard let positions = backend.positionLimit(kvType: .f16) else { return (AvailableMemory.bytes ?? 1 << 33) / 8 }
        return positions / 4 * (try backend.makeSequence(kvType: .f16).layout.positionBytes)
    }

    /// - Throws: `SigmaError(.unavailable)` if the model cannot have this type.
    package func makeTimeline(kvType: KVType) throws -> Timeline {
        let timeline = Timeline(try backend.makeSequence(kvType: kvType))
        timelines.add(timeline)
        return timeline
    }

    // MARK: - Limits

    /// - Throws: `SigmaError(.usage)` naming the first id without a row in the embedding.
    func checkVocabulary(_ tokens: [Int32]) throws {
        if let bad = tokens.first(where: { $0 < 0 || Int($0) >= vocabularySize }) {
            throw SigmaError(.usage, "token id \(bad) is outside the model's vocabulary of \(vocabularySize) rows")
        }
    }

    /// Tokens that a sequence may have: the context, or what the memory budget has room for.
    package func positionLimit(kvType: KVType) -> Int {
        min(contextLength, backend.positionLimit(kvType: kvType) ?? .max)
    }

    /// The same, for a prompt that must fit.
    /// - Throws: `SigmaError`: `.usage` if the context is too short for it, `.unavailable` if the memory is.
    func positionLimit(kvType: KVType, promptTokens: Int) throws -> Int {
        guard promptTokens <= contextLength else {
            throw SigmaError(
                .usage, "the prompt has \(promptTokens) tokens and the context is \(contextLength)",
                remedy: .anyOf(["Shorten the prompt.", .raise(.contextLength, least: nil)]))
        }
        let limit = positionLimit(kvType: kvType)
        guard promptTokens <= limit else { throw noRoom(for: promptTokens, kvType) }
        return limit
    }

    func noRoom(for promptTokens: Int, _ kvType: KVType) -> SigmaError {
        SigmaError(
            .unavailable,
            "the prompt has \(promptTokens) tokens, and the memory budget has room for the keys and values of \(positionLimit(kvType: kvType))",
            remedy: .anyOf(
                [.raise(.memory, least: nil), "Shorten the prompt."]
                    + (kvType == .q8_0 ? [] : [.set(.kvType, to: "q8_0")])))
    }

    /// Whether a new sequence could have so many positions beside those that are there; kept prefixes make room for it.
    package func makeRoom(positions: Int, kvType: KVType) -> Bool {
        guard let sequence = try? backend.makeSequence(kvType: kvType) else { return false }
        while !backend.hasRoom(for: sequence, positions: positions) {
            guard prefixes.evictOne() else { return false }
        }
        return true
    }

    /// Takes the memory of so many positions for a sequence that nobody uses, between two steps: kept prefixes, idle timelines and experts' slots
    /// make room for it first. Not from the engine's thread.
    ///
    /// - Returns: false if there is no room.
    /// - Throws: `SigmaError(.unavailable)` if the system's memory ends.
    func reserve(_ positions: Int, of sequence: SequenceState) throws -> Bool {
        try scheduler.betweenSteps { [backend, prefixes, timelines] in
            while !backend.hasRoom(for: sequence, positions: positions) {
                guard prefixes.evictOne() || timelines.giveUpOldestIdle() else { return false }
            }
            try backend.reserve(positions, of: sequence)
            return true
        }
    }

    /// As many of the tokens as a step that has only them can take, at least one: for studies, which run the forward pass themselves.
    /// - Throws: `SigmaError(.unavailable)` if not even one fits.
    package func piece(of tokens: ArraySlice<Int32>, for sequence: SequenceState) throws -> ArraySlice<Int32> {
        let count = backend.room(for: sequence, limit: min(tokens.count, backend.rowLimit), beside: Batch())
        guard count > 0 else { throw noRoom(for: sequence.length + tokens.count, sequence.kvType) }
        return tokens.prefix(count)
    }

    // MARK: - Work

    /// Starts an answer.
    ///
    /// - Parameters:
    ///   - timeline: nobody else's while the answer is made. What it has in common with the request is not computed again.
    ///   - tap: sees every event first, on the engine's thread: it must be quick.
    ///   - onEnd: called once, on that thread, before the reader hears of the end.
    /// - Throws: as `Generation.init`; then nothing was started.
    package func answer(
        _ request: GenerationRequest, on timeline: Timeline, tap: (@Sendable (AnswerEvent) -> Void)? = nil,
        onEnd: (@Sendable (Generation) -> Void)? = nil
    ) throws -> Answer {
        let channel = AnswerChannel { [weak self] in self?.wake() }
        let generation = try Generation(request, on: timeline, engine: self, hasReader: { channel.hasRoom() }) {
            tap?($0)
            channel.write($0)
        }
        run(generation) { result in
            onEnd?(generation)
            channel.end(result)
        }
        return Answer(generation, channel)
    }

    /// Runs work to its end on the engine's thread; then calls `onEnd`, once, on that thread.
    func run(_ work: any StepWork, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
        work.timeline.beginUse()
        scheduler.append(Scheduler.Job(work: work, onEnd: onEnd))
    }

    /// Runs a generation to its end: for programs of this package that read it themselves.
    package func run(_ generation: Generation, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
        run(generation as any StepWork, onEnd: onEnd)
    }

    /// Whether tokens/s of all together matter alone, as in batches, and nobody waits for a single answer.
    package var favorsThroughput: Bool { scheduler.favorsThroughput }

    /// Favours throughput until `endBatch` has been called as often.
    package func beginBatch() { scheduler.countBatch(1) }
    package func endBatch() { scheduler.countBatch(-1) }

    /// Work was cancelled, or a reader has room again.
    func wake() { scheduler.wake() }
}
