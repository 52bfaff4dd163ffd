import Sigma

extension SigmaError.Kind {
    /// What a command that fails ends with (BSD `sysexits`; 128 + SIGINT where it was interrupted).
    public var exitCode: Int32 {
        switch self {
        case .usage: 64
        case .damaged: 65
        case .noInput: 66
        case .unavailable: 69
        case .inputOutput: 74
        case .interrupted: 130
        }
    }
}

extension SigmaError {
    /// What and where, and on a second line what to do, in the commands' options.
    public var report: String { description(remedy: remedy?.commandText) }
}

extension Remedy {
    /// The sentence with options in the place of the library's settings; sizes as the options take them.
    var commandText: String { forCommands.text(\.option) }

    private var forCommands: Remedy {
        switch self {
        case .raise(let setting, let least): .raise(setting, least: least?.filter { $0 != " " })
        case .anyOf(let remedies): .anyOf(remedies.map(\.forCommands))
        case .writeMarkup: "Use --raw with the model's own markup."
        case .advice, .lower, .set: self
        }
    }
}

extension Remedy.Setting {
    var option: String {
        switch self {
        case .memory: "--memory"
        case .expertCache: "--expert-cache"
        case .kvType: "--kv-type"
        case .contextLength: "--context"
        case .threads: "--threads"
        case .backend: "--backend"
        case .model: "--model"
        }
    }
}
