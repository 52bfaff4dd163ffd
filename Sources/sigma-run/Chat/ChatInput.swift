/// What was typed at the chat's prompt.
enum ChatInput: Equatable {
    case message(String)
    case command(Command)
    /// A slash and a word that is no command, or a command with what it does not understand.
    case misunderstood(String)

    enum Command: Equatable {
        case help, undo, clear, stats, quit
        /// How things are.
        case think
        case thinks(Bool)
        case showsThinking(Bool)
        case lastThinking
        case showSystem
        case system(String)
        case save(String?)
        case load(String?)
    }

    /// A slash begins a command, two begin a message with one.
    init(_ text: String) {
        guard text.hasPrefix("/") else {
            self = .message(text)
            return
        }
        if text.hasPrefix("//") {
            self = .message(String(text.dropFirst()))
            return
        }
        let name = text.prefix { !$0.isWhitespace }
        let argument = Self.trimmed(text[name.endIndex...])
        let command: Command? =
            switch (name, argument) {
            case ("/help", ""), ("/?", ""): .help
            case ("/undo", ""): .undo
            case ("/clear", ""): .clear
            case ("/stats", ""): .stats
            case ("/quit", ""), ("/exit", ""): .quit
            case ("/think", ""): .think
            case ("/think", "on"): .thinks(true)
            case ("/think", "off"): .thinks(false)
            case ("/think", "show"): .showsThinking(true)
            case ("/think", "fold"): .showsThinking(false)
            case ("/think", "last"): .lastThinking
            case ("/system", ""): .showSystem
            case ("/system", "off"): .system("")
            case ("/system", _): .system(argument)
            case ("/save", _): .save(Self.fileName(argument))
            case ("/load", _): .load(Self.fileName(argument))
            default: nil
            }
        self = command.map { .command($0) } ?? .misunderstood(text)
    }

    private static func trimmed(_ text: Substring) -> String {
        var text = text
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text)
    }

    /// A name as it is, or in a pair of quotes as shells take it; nil if there is none.
    private static func fileName(_ argument: String) -> String? {
        var name = argument
        if let quote = name.first, quote == "\"" || quote == "'", name.count >= 2, name.last == quote {
            name = String(name.dropFirst().dropLast())
        }
        return name.isEmpty ? nil : name
    }

    /// For the Tab key.
    static func completions(of text: String) -> [String] {
        [
            "/help", "/think on", "/think off", "/think show", "/think fold", "/think last", "/system ", "/save ",
            "/load ", "/undo", "/clear", "/stats", "/quit",
        ].filter { text.hasPrefix("/") && $0.hasPrefix(text) }
    }

    static let help = """
        /think on|off         whether the model thinks before it answers
        /think show|fold      thinking in full, or as one line with its number of tokens
        /think last           the last thinking in full (Ctrl-O)
        /system [TEXT|off]    show the system prompt, set another, or none
        /save [FILE]          write the conversation with its key-value state
        /load [FILE]          go on with a conversation that was saved
        /undo                 take back the last question and its answer
        /clear                begin anew
        /stats                speeds and memory of the last answer
        /quit                 leave (Ctrl-D)

        Enter sends; Alt-Enter or Ctrl-J begins a new line. Ctrl-C stops an answer. Up and Ctrl-R find earlier messages.
        A message that begins with / is written with two: //etc

        """
}
