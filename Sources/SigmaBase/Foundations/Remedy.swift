/// What the receiver of an error can do about it.
///
/// Settings are named as cases, so that every program can say them in its own words: the library's names are `description`, the commands write
/// their options.
public enum Remedy: Sendable, Equatable, ExpressibleByStringInterpolation, CustomStringConvertible {
    /// Something that a user of the engine can set.
    public enum Setting: String, Sendable, CaseIterable {
        case memory, expertCache, kvType, contextLength, threads, backend, model

        /// As a Swift program knows it.
        var libraryName: String {
            switch self {
            case .memory: "Configuration.memory"
            case .expertCache: "Configuration.expertCache"
            case .kvType: "Configuration.kvType"
            case .contextLength: "Configuration.contextLength"
            case .threads: "Configuration.threads"
            case .backend: "Configuration.backend"
            case .model: "the model file"
            }
        }
    }

    /// Words that hold in every program: a whole sentence.
    case advice(String)
    /// Give a setting a larger value; `least` works, where that is known ("607 MiB").
    case raise(Setting, least: String?)
    /// Give a setting a smaller value.
    case lower(Setting)
    case set(Setting, to: String)
    /// Give prompts in the model's own markup, without the chat format.
    case writeMarkup
    /// Any of several will do.
    case anyOf([Remedy])

    public init(stringLiteral text: String) { self = .advice(text) }

    public var description: String { text { $0.libraryName } }

    /// One sentence, or one for each of several remedies.
    /// - Parameter name: what a setting is called.
    public func text(_ name: (Setting) -> String) -> String {
        switch self {
        case .advice(let text): text
        case .raise(let setting, let least):
            least.map { "Raise \(name(setting)) to \($0) or more." } ?? "Raise \(name(setting))."
        case .lower(let setting): "Lower \(name(setting))."
        case .set(let setting, let value): "Set \(name(setting)) to \(value)."
        case .writeMarkup: "Write the model's own markup, and give its tokens to SigmaModel.makeSequence()."
        case .anyOf(let remedies): remedies.map { $0.text(name) }.joined(separator: " Or: ")
        }
    }
}
