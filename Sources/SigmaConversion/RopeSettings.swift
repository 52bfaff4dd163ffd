import Sigma
import SystemLibrary

/// RoPE's base and scaling in a checkpoint's config: `rope_theta` and `rope_scaling`, or both in `rope_parameters`, which newer transformers
/// write, perhaps with an object for each type of attention.
struct RopeSettings {
    let theta: Float
    let scaling: ModelConfiguration.RopeScaling
    /// Positions that the scaling makes usable; nil: as many as the config states.
    private(set) var contextLength: Int?

    /// All that a scaling's object may hold: what we don't know could compute something else.
    private static let knownKeys: Set<String> = [
        "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor",
        "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", "partial_rotary_factor", "finetuned",
        "low_freq_factor", "high_freq_factor",
    ]

    /// - Parameters:
    ///   - applies: whether the scaling counts.
    ///   - isChosen: whether an override says so; if not, a scaling that doesn't count is told.
    ///   - contextLength: what the config states.
    /// - Throws: `SigmaError` (`.damaged`) naming the key, for a scaling that we don't compute, too.
    init(_ config: inout ConfigReader, applies: Bool, isChosen: Bool, headDim: Int, contextLength: Int) throws {
        let sections = try ["rope_scaling", "rope_parameters"].compactMap { try Self.section($0, config) }
        let outer = try config.number("rope_theta")
        let inner = try sections.lazy.compactMap { try $0.reader.number("rope_theta") }.first
        if let inner, let outer, inner != outer {
            config.warnings.append("rope_theta is \(outer), but rope_parameters say \(inner); \(outer) is used")
        }
        if inner == nil, outer == nil {
            config.warnings.append("rope_theta is missing: 10000 is used (--override rope_theta=N)")
        }
        theta = Float(outer ?? inner ?? 10_000)

        guard let (name, section) = sections.first else {
            scaling = .none
            return
        }
        // No scaling: that part of a head is not turned at all.
        if let share = try section.number("partial_rotary_factor"), share != 1 {
            throw section.failure("partial_rotary_factor", "expected 1, found \(share)")
        }
        guard applies || !isChosen else {
            scaling = .none
            return
        }
        let kind = try section.string("rope_type") ?? section.string("type") ?? "default"
        if !applies {
            scaling = .none
            if kind != "default" {
                config.warnings.append(
                    "\(name) (\(kind)) is ignored, as in the authors' code (--override rope_scaling=on turns it on)")
            }
            return
        }
        guard ["default", "linear", "yarn", "llama3"].contains(kind) else {
            throw config.failure(
                name, "expected linear, yarn or llama3, found \(kind)",
                remedy: "Within the original context it changes little or nothing: --override rope_scaling=off")
        }
        if let unknown = section.config.keys.first(where: { !Self.knownKeys.contains($0) && section.has($0) }) {
            throw section.failure(
                unknown, "the key has no meaning here, and could change what the model computes",
                remedy: "To ignore it: --override rope_scaling=off")
        }
        switch kind {
        case "linear": scaling = .linear(factor: Float(try Self.factor(section)))
        case "yarn":
            let factor = try Self.factor(section)
            let original = try Self.originalContext(section, &config, contextLength: contextLength)
            scaling = .yarn(
                factor: Float(factor), originalContext: original,
                betaFast: Float(try section.number("beta_fast") ?? 32),
                betaSlow: Float(try section.number("beta_slow") ?? 1),
                attentionFactor: try Self.attentionFactor(section, factor).map { Float($0) },
                truncate: try section.bool("truncate") ?? true)
            self.contextLength = yarnContext(factor: factor, original: original)
        case "llama3":
            scaling = .divided(
                by: try Self.llama3Divisors(section, theta: theta, headDim: headDim, contextLength: contextLength))
        default: scaling = .none
        }
    }

    /// Llama 3's scaling: slow pairs turn `factor` times slower, fast ones as ever, with a ramp between. Rounded where transformers rounds.
    private static func llama3Divisors(
        _ section: ConfigReader, theta: Float, headDim: Int, contextLength: Int
    ) throws -> [Float] {
        func required(_ key: String) throws -> Float {
            guard let number = try section.number(key), number > 0 else {
                throw section.failure(key, "expected a number above 0")
            }
            return Float(number)
        }
        let factor = try required("factor")
        let low = try required("low_freq_factor")
        let high = try required("high_freq_factor")
        guard high > low else {
            throw section.failure("high_freq_factor", "expected more than low_freq_factor, \(low)")
        }
        let original = Float(try section.integer("original_max_position_embeddings") ?? contextLength)
        return (0..<headDim / 2).map { pair in
            let frequency = 1 / Float(pow(Double(theta), Double(2 * pair) / Double(headDim)))
            let turns = original / (2 * Float.pi / frequency)
            if turns < low { return factor }
            if turns > high { return 1 }
            let share = (turns - low) / (high - low)
            return frequency / ((1 - share) * frequency / factor + share * frequency)
        }
    }

    /// A section's settings. Of several types of attention full attention's: there is no other here.
    private static func section(_ name: String, _ config: ConfigReader) throws -> (name: String, reader: ConfigReader)?
    {
        guard let reader = try config.section(name) else { return nil }
        let nested = reader.config.keys.filter { reader.value($0)?.object != nil }
        if nested.isEmpty { return (name, reader) }
        guard let full = try reader.section("full_attention") else {
            throw config.failure(
                name, "expected settings for full_attention, found them for \(nested.joined(separator: ", "))")
        }
        // What stands outside counts for all types.
        var settings = full.config
        for (key, value) in zip(reader.config.keys, reader.config.values) where value.object == nil && !full.has(key) {
            settings.set(key, value)
        }
        return (name, ConfigReader(config: settings, path: config.path, prefix: full.prefix))
    }

    private static func factor(_ section: ConfigReader) throws -> Double {
        guard let factor = try section.number("factor"), factor > 0 else {
            throw section.failure("factor", "expected a number above 0")
        }
        return factor
    }

    private static func originalContext(
        _ section: ConfigReader, _ config: inout ConfigReader, contextLength: Int
    ) throws -> Int {
        let key = "original_max_position_embeddings"
        if let original = try section.integer(key) { return original }
        config.warnings.append("\(section.prefix + key) is missing: \(contextLength), max_position_embeddings, is used")
        return contextLength
    }

    private static func attentionFactor(_ section: ConfigReader, _ factor: Double) throws -> Double? {
        if let stated = try section.number("attention_factor") { return stated }
        guard let over = try section.number("mscale"), let under = try section.number("mscale_all_dim"), over != 0,
            under != 0
        else { return nil }
        return yarnMagnitude(factor, over) / yarnMagnitude(factor, under)
    }
}

/// yarn's factor on attention scores, as its authors have it.
func yarnMagnitude(_ factor: Double, _ weight: Double) -> Double {
    factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1
}

/// Positions that a model with yarn can use; nil for numbers that make no sense, which are refused elsewhere.
func yarnContext(factor: Double, original: Int) -> Int? { Int(exactly: (factor * Double(original)).rounded()) }
