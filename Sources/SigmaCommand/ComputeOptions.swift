import ArgumentParser
import CSigma
import Sigma

extension KVType: ExpressibleByArgument {
    /// Upper and lower case are the same.
    public init?(argument: String) { self.init(rawValue: argument.lowercased()) }
}
extension DraftMode: ExpressibleByArgument {
    public init?(argument: String) { self.init(rawValue: argument.lowercased()) }
}
extension SigmaModel.Configuration.Backend: ExpressibleByArgument {
    public init?(argument: String) { self.init(rawValue: argument.lowercased()) }
}

/// Which model computes, and with what: the same in every command that computes.
public struct ComputeOptions: ParsableArguments {
    @OptionGroup public var model: ModelOption

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Limit on the tokens of a sequence (default: the model's context; for sigma-eval's texts at most 2048).",
            valueName: "n"))
    public var context: Int?

    @Option(
        help: ArgumentHelp("Type of the key-value cache: f16, q8_0 or f32 (for checking numbers).", valueName: "type"))
    public var kvType: KVType = .f16

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Threads that compute (default: one for each fast core of one memory node, among the processors that it may use).",
            valueName: "n"
        ))
    public var threads: Int?

    @Option(
        help: ArgumentHelp("What computes: cpu, cuda, or auto, the best available.", valueName: "name"))
    public var backend: SigmaModel.Configuration.Backend = .auto

    @Option(
        help: ArgumentHelp(
            "All the memory the process may use, such as 4GiB (default: what is available).", valueName: "size"))
    public var memory: ByteSize?

    public init() {}

    /// Warns of more threads than there are processors, and of more memory than the process is allowed.
    /// - Throws: `SigmaError` (`.usage`) for values out of range. Cheap: for before anything is read.
    public func check() throws {
        if let threads { try checkThreads(threads) }
        if let context, context < 1 { throw usageError("--context must be at least 1, and is \(context)") }
        if let memory { checkMemory(memory) }
    }

    public var configuration: SigmaModel.Configuration {
        var configuration = SigmaModel.Configuration(
            memory: memory.map { .bytes($0.bytes) }, threads: threads, backend: backend, contextLength: context,
            kvType: kvType)
        configuration.warn = { SigmaCommand.warn($0) }
        return configuration
    }
}

/// Of every command that has `--threads`.
/// - Throws: `SigmaError` (`.usage`) for a number out of range.
public func checkThreads(_ threads: Int) throws {
    guard (1...256).contains(threads) else {
        throw usageError("--threads must be from 1 to 256, and is \(threads)")
    }
    let processors = Int(sigma_hardware_threads())
    if threads > processors {
        warn(
            "--threads \(threads) is more than the \(processors) processor\(processors == 1 ? "" : "s") this process may use: threads that take turns are slower"
        )
    }
}

/// Of every command that has `--memory` for the host: warns of what the system would end the process for.
public func checkMemory(_ memory: ByteSize) {
    guard let limit = AvailableMemory.killingLimit, memory.bytes > limit else { return }
    warn(
        "--memory \(memory) is more than the control group's limit of \(ByteSize.text(limit)): the system kills the process when it reaches that"
    )
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

extension PredictionMode: ExpressibleByArgument {
    public init?(argument: String) { self.init(rawValue: argument.lowercased()) }
}
extension EvictionPolicyKind: ExpressibleByArgument {
    public init?(argument: String) { self.init(rawValue: argument.lowercased()) }
}
