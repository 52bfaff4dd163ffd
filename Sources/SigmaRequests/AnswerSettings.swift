import Sigma

/// What both kinds of body say in the same words: the model, how tokens are chosen, how many answers, and how they are sent.
package struct AnswerSettings: Sendable, Equatable {
    /// The model that the client wants; nil: whichever is there.
    package var model: String?
    /// Where a body is silent, the defaults of `GenerationOptions`.
    package var options = GenerationOptions()
    /// Answers for each prompt. The answer with index i takes the seed plus i.
    package var choicesPerPrompt = 1
    /// Whether the answer is sent as it is made.
    package var streams = false
    /// Whether a stream ends with a chunk that has the usage.
    package var includesUsage = false
    /// Prefixes are shared only between requests with the same salt.
    package var cacheSalt: String?
    /// Likeliest tokens whose log-probabilities are given at each position; nil: no log-probabilities.
    package var logProbabilityCount: Int?
    /// What the answers, never their thinking, must be; nil: anything.
    package var constraint: BodyConstraint?
    /// The functions that answers may call; nil: there are none.
    package var tools: ToolSet?
    /// The date that the prompt names; nil: what the model's template does.
    package var promptDate: String?
    /// What the answer will probably repeat; empty: unknown. It changes only the speed.
    package var prediction = ""

    /// What the bodies of all endpoints say in the same words.
    init(shared fields: inout FieldReader) throws(RequestError) {
        model = try fields.name("model")
        try readSampling(&fields)
        cacheSalt = try fields.name("cache_salt")
        streams = try fields.bool("stream") ?? false
        fields.ignore("metadata", "service_tier")
    }

    /// Chats and completions.
    init(_ fields: inout FieldReader) throws(RequestError) {
        try self.init(shared: &fields)
        try readLimits(&fields)
        choicesPerPrompt = try fields.integer("n", in: 1...Int64(RequestLimits.choices)) ?? 1
        try fields.allow("best_of", only: .integer(1), .integer(Int64(choicesPerPrompt)))
        constraint = try ConstraintFields(&fields).constraint
        if let value = fields.take("stream_options") {
            guard streams else {
                throw RequestError.invalid("stream_options", "is for streams, and stream is not true")
            }
            var options = try FieldReader(value, at: "stream_options")
            includesUsage = try options.bool("include_usage") ?? false
            options.ignore("include_obfuscation")
            try options.allow("continuous_usage_stats", only: .bool(false))
            try options.finish()
        }
        fields.ignore(
            "user", "store", "parallel_tool_calls", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
        // Knobs of other servers, where they are set to do nothing.
        try fields.allow("repetition_penalty", only: .integer(1))
        try fields.allow("length_penalty", only: .integer(1))
        try fields.allow("typical_p", only: .integer(1))
        try fields.allow("min_tokens", only: .integer(0))
        try fields.allow("ignore_eos", only: .bool(false))
        try fields.allow("use_beam_search", only: .bool(false))
        try fields.allow("skip_special_tokens", only: .bool(true))
    }

    private mutating func readSampling(_ fields: inout FieldReader) throws(RequestError) {
        func isFraction(_ value: Double) -> Bool { (0...1).contains(value) }
        if let value = try fields.number("temperature", "a number of 0 or more", { $0 >= 0 }) {
            options.temperature = value
        }
        // Some servers write "all" as -1.
        if let value = try fields.integer("top_k", in: -1...Int64(Int32.max)) { options.topK = max(0, value) }
        if let value = try fields.number("top_p", "a number above 0 and at most 1", { isFraction($0) && $0 > 0 }) {
            options.topP = value
        }
        if let value = try fields.number("min_p", "a number from 0 to 1", isFraction) { options.minP = value }
        if let value = try fields.integer("seed", in: Int64.min...Int64.max) {
            options.seed = UInt64(bitPattern: Int64(value))
        }
        if let value = try fields.number("frequency_penalty", "a number from -2 to 2", { $0.magnitude <= 2 }) {
            options.frequencyPenalty = value
        }
        if let value = try fields.number("presence_penalty", "a number from -2 to 2", { $0.magnitude <= 2 }) {
            options.presencePenalty = value
        }
        try readBiases(&fields)
    }

    private mutating func readBiases(_ fields: inout FieldReader) throws(RequestError) {
        guard let value = fields.take("logit_bias") else { return }
        guard let biases = value.object else {
            throw RequestError.invalid("logit_bias", "expected an object of token ids and biases, found \(value.kind)")
        }
        guard biases.count <= RequestLimits.biases else {
            throw RequestError.invalid(
                "logit_bias", "expected at most \(RequestLimits.biases) tokens, found \(biases.count)")
        }
        for (key, value) in zip(biases.keys, biases.values) {
            // Only one way to write an id, so that none is there twice.
            guard let id = Int32(key), id >= 0, String(id) == key else {
                throw RequestError.invalid(
                    "logit_bias", "expected token ids as names, found \(JSONValue.string(key).kind)")
            }
            guard let bias = value.double, bias.magnitude <= 100 else {
                throw RequestError.invalid(
                    "logit_bias", "expected a bias from -100 to 100 for token \(id), found \(value.kind)")
            }
            options.logitBias[id] = bias
        }
    }

    private mutating func readLimits(_ fields: inout FieldReader) throws(RequestError) {
        let old = try fields.integer("max_tokens", in: Self.tokenCounts)
        let new = try fields.integer("max_completion_tokens", in: Self.tokenCounts)
        if let old, let new, old != new {
            throw RequestError.invalid(
                "max_completion_tokens", "is \(new), and max_tokens, which means the same, is \(old)")
        }
        if let limit = new ?? old { options.maximumTokens = limit }
        try readStopStrings(&fields, "stop")
    }

    static let tokenCounts = 0...Int64(Int32.max)

    mutating func readStopStrings(_ fields: inout FieldReader, _ key: String) throws(RequestError) {
        guard let value = fields.take(key) else { return }
        let list = value.array ?? [value]
        guard list.count <= RequestLimits.stopStrings else {
            throw RequestError.invalid(
                key, "expected at most \(RequestLimits.stopStrings) strings, found \(list.count)")
        }
        for stop in list {
            guard let text = stop.string, (1...RequestLimits.stopStringBytes).contains(text.utf8.count) else {
                throw RequestError.invalid(
                    key, "expected strings of 1 to \(RequestLimits.stopStringBytes) bytes, found \(stop.kind)")
            }
            options.stopStrings.append(text)
        }
    }
}
