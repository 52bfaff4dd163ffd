import ArgumentParser
import Sigma

extension KVType: ExpressibleByArgument {}
extension SigmaModel.Configuration.Backend: ExpressibleByArgument {}

/// Which model computes, and with what: the same in every command that computes.
public struct ComputeOptions: ParsableArguments {
    @OptionGroup public var model: ModelOption

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Limit on the tokens of a sequence (default: what the model states).", valueName: "n"))
    public var context: Int?

    @Option(
        help: ArgumentHelp("Type of the key-value cache: f16, q8_0 or f32 (for checking numbers).", valueName: "type"))
    public var kvType: KVType = .f16

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Threads that compute (default: the processors this process may use).", valueName: "n"))
    public var threads: Int?

    @Option(
        help: ArgumentHelp("What computes: cpu, cuda, or auto, the best that is there.", valueName: "name"))
    public var backend: SigmaModel.Configuration.Backend = .auto

    public init() {}

    /// - Throws: `SigmaError` (`.usage`) for values out of range. Cheap: for before anything is read.
    public func check() throws {
        if let threads, !(1...256).contains(threads) {
            throw usageError("--threads must be from 1 to 256, and is \(threads)")
        }
        if let context, context < 1 { throw usageError("--context must be at least 1, and is \(context)") }
    }

    public var configuration: SigmaModel.Configuration {
        var configuration = SigmaModel.Configuration(
            threads: threads, backend: backend, contextLength: context, kvType: kvType)
        configuration.warn = { SigmaCommand.warn($0) }
        return configuration
    }
}

/// `--expert-cache`: a size, `all` (every expert stays), or `auto`.
public enum ExpertCacheSize: ExpressibleByArgument, Sendable, Equatable {
    case auto
    case all
    case size(ByteSize)

    public init?(argument: String) {
        switch argument.lowercased() {
        case "auto": self = .auto
        case "all": self = .all
        default:
            guard let size = ByteSize(argument: argument) else { return nil }
            self = .size(size)
        }
    }

    public var defaultValueDescription: String { "auto" }

    public var limit: SigmaModel.Configuration.ExpertCache {
        switch self {
        case .auto: .auto
        case .all: .all
        case .size(let size): .size(.bytes(size.bytes))
        }
    }
}

extension PredictionMode: ExpressibleByArgument {}
extension EvictionPolicyKind: ExpressibleByArgument {}
